//! True fields, and how far the predicted ones are from them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::ab_upt::DomainConfig;

use super::domains::Named;
use crate::input::{Table, tensor_names};
use crate::metrics::{FieldError, Metrics};

/// Some of the fields of one domain.
pub struct Truth {
    domain: String,
    fields: Vec<(String, Table)>,
    missing: Vec<String>,
}

impl Truth {
    /// Opens a file with a tensor named `<field>` or `<domain>_<field>` for some fields, or with the only field of the
    /// domain, and checks all numbers.
    pub fn open(named: &Named, domain: &DomainConfig, points: u64, chunk: u64) -> Result<Self> {
        let Named { option, file } = named;
        let mut fields = Vec::new();
        if file.ends_with(".safetensors") {
            let names = tensor_names(file).context(option.clone())?;
            for field in &domain.fields {
                let full = format!("{}_{}", domain.name, field.name);
                if let Some(name) = names.iter().find(|&name| *name == field.name || *name == full) {
                    fields.push((field, Table::open(file, Some(name)).context(option.clone())?));
                }
            }
            let wanted: Vec<_> = domain.fields.iter().map(|field| &field.name).collect();
            ensure!(!fields.is_empty(), "{option}: {file} has none of the fields {wanted:?}; it has {names:?}");
        } else {
            let [field] = &domain.fields[..] else {
                let fields = domain.fields.len();
                anyhow::bail!("{option}: the domain has {fields} fields, which take a .safetensors file, got {file}")
            };
            fields.push((field, Table::open(file, None).context(option.clone())?));
        }
        for (field, table) in &mut fields {
            let (rows, width) = (table.rows(), table.width());
            ensure!(
                (rows, width) == (points, field.dim),
                "{option}: '{}' must have shape [{points}, {}], got [{rows}, {width}]",
                field.name,
                field.dim
            );
            for start in (0..points).step_by(usize::try_from(chunk).unwrap_or(usize::MAX)) {
                table.read_finite(start..points.min(start + chunk)).context(option.clone())?;
            }
        }
        let fields: Vec<_> = fields.into_iter().map(|(field, table)| (field.name.clone(), table)).collect();
        let names = domain.fields.iter().map(|field| field.name.clone());
        let missing = names.filter(|name| fields.iter().all(|(known, _)| known != name)).collect();
        Ok(Self { domain: domain.name.clone(), fields, missing })
    }

    /// The fields of the domain that the file does not have.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// A field, if it is known.
    pub fn field(&mut self, name: &str) -> Option<&mut Table> {
        self.fields.iter_mut().find(|(known, _)| known == name).map(|(_, table)| table)
    }

    /// Adds the errors of the fields in a finished `.safetensors` file.
    pub fn measure(&mut self, predicted: &Path, chunk: u64, metrics: &mut Metrics) -> Result<()> {
        for (name, truth) in &mut self.fields {
            let mut predicted = Table::open(&predicted.display().to_string(), Some(name))?;
            let (mut error, mut start) = (FieldError::default(), 0);
            while start < truth.rows() {
                let range = start..truth.rows().min(start + chunk);
                error.add(&predicted.read(range.clone())?, &truth.read(range.clone())?)?;
                start = range.end;
            }
            metrics.insert(format!("{}_{name}", self.domain), error.metrics());
        }
        Ok(())
    }
}
