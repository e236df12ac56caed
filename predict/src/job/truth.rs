//! True fields, and how far the predicted ones are from them.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::ab_upt::DomainConfig;
use serde_json::json;

use super::{Named, Scans};
use crate::input::{Table, tensor_names};
use crate::metrics::FieldError;

/// Some of the fields of one domain.
pub(crate) struct Truth {
    known: Known,
    missing: Vec<String>,
}

enum Known {
    /// A formula for all of them.
    Exact(Box<dyn Exact>),
    /// Arrays in files, in the order of the points.
    Tables(Vec<(String, Table)>),
}

/// Fields that are known at any point.
pub(crate) trait Exact {
    /// A field at some points.
    fn at(&self, field: &str, points: &[[f32; 3]]) -> Vec<f32>;
}

impl Truth {
    /// All fields of a domain, by a formula.
    pub(crate) fn exact(formula: impl Exact + 'static) -> Self {
        Self { known: Known::Exact(Box::new(formula)), missing: Vec::new() }
    }

    /// Opens a file with a tensor named `<field>` or `<domain>_<field>` for some fields, or with the only field of the
    /// domain, and checks all numbers. Pairs as in `pMean:pressure,tau:shear` are arrays in `own`, the file of the points,
    /// and the fields that they are.
    pub(crate) fn open(
        named: &Named,
        own: Option<&Named>,
        domain: &DomainConfig,
        points: u64,
        chunk: u64,
        scans: &Scans,
    ) -> Result<Self> {
        let Named { option, file, .. } = named;
        let mut fields = Vec::new();
        if let Some(pairs) = pairs(file) {
            let own = own.with_context(|| format!("{option}: there is no file of points that could hold arrays"))?;
            for (at, &(array, name)) in pairs.iter().enumerate() {
                let twice = pairs[..at].iter().any(|(_, earlier)| *earlier == name);
                ensure!(!twice, "{option}: field '{name}' is given twice");
                let known: Vec<_> = domain.fields.iter().map(|field| &field.name).collect();
                let field = domain.fields.iter().find(|field| field.name == name);
                let field = field.with_context(|| format!("{option}: there is no field '{name}', but {known:?}"))?;
                fields.push((field, Table::open(&own.file, Some(array)).context(option.clone())?));
            }
        } else if file.ends_with(".safetensors") {
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
            let mut read = || {
                for start in (0..points).step_by(usize::try_from(chunk).unwrap_or(usize::MAX)) {
                    table.read_finite(start..points.min(start + chunk)).context(option.clone())?;
                }
                Ok(())
            };
            // Pairs are arrays of the file of the points.
            let file = own.filter(|_| pairs(file).is_some()).map_or(file, |own| &own.file);
            scans.once(file, json!({"truth": named.file, "field": field.name}), &mut read)?;
        }
        let fields: Vec<_> = fields.into_iter().map(|(field, table)| (field.name.clone(), table)).collect();
        let names = domain.fields.iter().map(|field| field.name.clone());
        let missing = names.filter(|name| fields.iter().all(|(known, _)| known != name)).collect();
        Ok(Self { known: Known::Tables(fields), missing })
    }

    /// The arrays of the file of the points that an option names, if it does.
    pub(crate) fn arrays(named: &Named) -> Vec<String> {
        let pairs = pairs(&named.file).unwrap_or_default();
        pairs.into_iter().map(|(array, _)| array.to_string()).collect()
    }

    /// The fields of the domain that are not known.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether a field of the domain is known.
    pub(crate) fn knows(&self, field: &str) -> bool {
        self.missing.iter().all(|missing| missing != field)
    }

    /// Whether the fields are those of a formula, which no file holds yet.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.known, Known::Exact(_))
    }

    /// A field at a range of the points of its place, if it is known.
    pub(crate) fn read(&mut self, field: &str, range: Range<u64>, points: &[[f32; 3]]) -> Result<Option<Vec<f32>>> {
        match &mut self.known {
            Known::Exact(formula) => Ok(Some(formula.at(field, points))),
            Known::Tables(tables) => {
                let table = tables.iter_mut().find(|(known, _)| known == field);
                table.map(|(_, table)| table.read(range)).transpose()
            }
        }
    }

    /// A field as a table, if it is known. `finished` is the `.safetensors` file of the place, which holds exact fields too.
    pub(crate) fn table(&mut self, field: &str, finished: &Path) -> Result<Option<TrueTable<'_>>> {
        match &mut self.known {
            Known::Exact(_) => {
                let name = format!("{field}_exact");
                Ok(Some(TrueTable::Written(Table::open(&finished.display().to_string(), Some(&name))?)))
            }
            Known::Tables(tables) => {
                Ok(tables.iter_mut().find(|(known, _)| known == field).map(|(_, table)| TrueTable::Given(table)))
            }
        }
    }

    /// The error of a field in a finished file, if its truth is known. `weights` gives those of a
    /// range of points, or none. Where points were `dropped`, those without a field have no error.
    pub(crate) fn measure(
        &mut self,
        field: &str,
        finished: &Path,
        chunk: u64,
        dropped: bool,
        weights: &mut dyn FnMut(Range<u64>) -> Result<Option<Vec<f64>>>,
    ) -> Result<Option<FieldError>> {
        let Some(mut truth) = self.table(field, finished)? else { return Ok(None) };
        let mut predicted = Table::open(&finished.display().to_string(), Some(field))?;
        let (mut error, mut start, width) = (FieldError::default(), 0, predicted.width());
        while start < predicted.rows() {
            let range = start..predicted.rows().min(start + chunk);
            let (mut values, mut exact) = (predicted.read(range.clone())?, truth.table().read(range.clone())?);
            let mut weights = weights(range.clone())?;
            if dropped {
                let is_told: Vec<bool> = values.chunks(width).map(|row| !row.iter().any(|x| x.is_nan())).collect();
                keep(&mut values, &is_told);
                keep(&mut exact, &is_told);
                weights.iter_mut().for_each(|weights| keep(weights, &is_told));
            }
            match weights {
                _ if values.is_empty() => {}
                Some(weights) => error.add_weighted(&values, &exact, &weights)?,
                None => error.add(&values, &exact)?,
            }
            start = range.end;
        }
        Ok(Some(error))
    }
}

/// Keeps the rows that are told.
fn keep<T>(values: &mut Vec<T>, is_told: &[bool]) {
    let width = values.len() / is_told.len().max(1);
    let mut at = 0;
    values.retain(|_| {
        at += 1;
        is_told[(at - 1) / width]
    });
}

/// Pairs of an array and a field, unless the text is the name of a file.
fn pairs(text: &str) -> Option<Vec<(&str, &str)>> {
    match Path::new(text).exists() {
        true => None,
        false => text.split(',').map(|pair| pair.split_once(':')).collect(),
    }
}

/// True values in a file.
pub(crate) enum TrueTable<'a> {
    /// A file of the user's.
    Given(&'a mut Table),
    /// A file of this run.
    Written(Table),
}

impl TrueTable<'_> {
    /// The table itself.
    pub(crate) fn table(&mut self) -> &mut Table {
        match self {
            Self::Given(table) => table,
            Self::Written(table) => table,
        }
    }
}
