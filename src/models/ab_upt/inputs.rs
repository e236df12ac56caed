//! What a first pass reads, and what a pass returns.

use std::collections::BTreeMap;

use candle_core::{D, DType, Result, Tensor};

use super::cache::AbUptCache;
use super::config::{AbUptConfig, anchor_field, query_field};
use super::error::AbUptError;
use super::finite::check_finite;
use super::geometry::Geometry;
use crate::models::input_error::check_condition_names;

/// The input of a first pass: positions by domain, geometry, conditions by name.
///
/// Positions are `[batch, points, position_dim]`, better f32 than anything smaller. Naming a domain or a condition again
/// replaces what was given before.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::models::ab_upt::AbUptInput;
///
/// let points = |n: usize| Tensor::rand(0f32, 1000., (1, n, 3), &Device::Cpu);
/// let input = AbUptInput::new()
///     .anchors("surface", &points(512)?)
///     .anchors("volume", &points(512)?)
///     .queries("volume", &points(4096)?)
///     .condition("angle_of_attack", &Tensor::new(&[0.3f32], &Device::Cpu)?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AbUptInput {
    anchors: BTreeMap<String, Tensor>,
    queries: BTreeMap<String, Tensor>,
    geometry: Option<Geometry>,
    conditions: BTreeMap<String, Tensor>,
}

impl AbUptInput {
    /// Without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the anchors of a domain, `[batch, anchors, position_dim]`: points that the others attend to.
    pub fn anchors(mut self, domain: impl Into<String>, positions: &Tensor) -> Self {
        self.anchors.insert(domain.into(), positions.clone());
        self
    }

    /// Sets the queries of a domain, `[batch, queries, position_dim]`: points that nobody attends to.
    pub fn queries(mut self, domain: impl Into<String>, positions: &Tensor) -> Self {
        self.queries.insert(domain.into(), positions.clone());
        self
    }

    /// Sets the geometry.
    pub fn geometry(mut self, geometry: &Geometry) -> Self {
        self.geometry = Some(geometry.clone());
        self
    }

    /// Sets a conditioning input, `[batch, components]`, or `[components]` or `[1, components]` for all samples.
    pub fn condition(mut self, name: impl Into<String>, value: &Tensor) -> Self {
        self.conditions.insert(name.into(), value.clone());
        self
    }

    /// Checks everything against the network and returns it in the order of the domains.
    pub(super) fn resolve(&self, config: &AbUptConfig) -> Result<FirstPass<'_>> {
        let anchors = by_domain(config, "anchors", &self.anchors)?;
        let queries = by_domain(config, "queries", &self.queries)?;
        let first = anchors.iter().flatten().find(|anchors| anchors.elem_count() > 0).ok_or(AbUptError::NoAnchors)?;
        let batch = first.dim(0)?;
        check_batch("anchors", batch, &anchors)?;
        check_batch("queries", batch, &queries)?;
        match (&self.geometry, config.uses_geometry()) {
            (None, true) => return Err(AbUptError::GeometryMissing.into()),
            (Some(_), false) => return Err(AbUptError::GeometryUnexpected.into()),
            (Some(geometry), true) if geometry.batch() != batch => {
                return Err(AbUptError::batch("geometry", batch, geometry.batch()).into());
            }
            (Some(geometry), true) => geometry.check_position_dim(config.position_dim)?,
            (None, false) => {}
        }
        let condition = self.condition_vector(config, batch)?;
        Ok(FirstPass { batch, anchors, queries, geometry: self.geometry.as_ref(), condition })
    }

    /// The conditioning inputs side by side in the order of the network, `[batch or 1, condition_dim]` in f32.
    fn condition_vector(&self, config: &AbUptConfig, batch: usize) -> Result<Option<Tensor>> {
        let known = config.condition.iter().map(|input| input.name.as_str());
        check_condition_names(known, self.conditions.keys().map(String::as_str)).map_err(AbUptError::from)?;
        let mut parts = Vec::with_capacity(config.condition.len());
        for (input, value) in
            config.condition.iter().filter_map(|input| Some((input, self.conditions.get(&input.name)?)))
        {
            let argument = format!("condition '{}'", input.name);
            let row = match value.dims() {
                [dim] if *dim == input.dim => value.unsqueeze(0)?,
                [rows, dim] if *dim == input.dim && (*rows == 1 || *rows == batch) => value.clone(),
                dims => {
                    let expected = format!("[{0}], [1, {0}] or [{batch}, {0}]", input.dim);
                    return Err(AbUptError::shape(argument, expected, dims).into());
                }
            };
            check_finite(&argument, &row)?;
            parts.push(row.to_dtype(DType::F32)?);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let rows = if parts.iter().all(|part| part.dims()[0] == 1) { 1 } else { batch };
        let full = |part: &Tensor| part.broadcast_as((rows, part.dim(1)?))?.contiguous();
        Ok(Some(Tensor::cat(&parts.iter().map(full).collect::<Result<Vec<_>>>()?, 1)?))
    }
}

/// A checked first pass. Positions are in the order of the domains, `None` for a domain that was not named.
pub(super) struct FirstPass<'a> {
    pub batch: usize,
    pub anchors: Vec<Option<&'a Tensor>>,
    pub queries: Vec<Option<&'a Tensor>>,
    pub geometry: Option<&'a Geometry>,
    /// `[batch or 1, condition_dim]`, f32.
    pub condition: Option<Tensor>,
}

/// Checks the queries of a cached pass and returns them in the order of the domains.
pub(super) fn resolve_queries<'a>(
    config: &AbUptConfig,
    queries: &'a BTreeMap<String, Tensor>,
    batch: usize,
) -> Result<Vec<Option<&'a Tensor>>> {
    let queries = by_domain(config, "queries", queries)?;
    if queries.iter().all(Option::is_none) {
        return Err(AbUptError::NoQueries.into());
    }
    check_batch("queries", batch, &queries)?;
    Ok(queries)
}

fn by_domain<'a>(
    config: &AbUptConfig,
    role: &'static str,
    positions: &'a BTreeMap<String, Tensor>,
) -> Result<Vec<Option<&'a Tensor>>> {
    for (domain, positions) in positions {
        if !config.domains.iter().any(|known| &known.name == domain) {
            let (domain, known) = (domain.clone(), config.domain_names());
            return Err(AbUptError::UnknownDomain { role, domain, known }.into());
        }
        let argument = format!("{role} of '{domain}'");
        if positions.rank() != 3 || positions.dim(D::Minus1)? != config.position_dim {
            let expected = format!("[batch, points, {}]", config.position_dim);
            return Err(AbUptError::shape(argument, expected, positions.dims()).into());
        }
        check_finite(&argument, positions)?;
    }
    Ok(config.domains.iter().map(|domain| positions.get(&domain.name)).collect())
}

fn check_batch(role: &str, expected: usize, positions: &[Option<&Tensor>]) -> Result<()> {
    for positions in positions.iter().flatten() {
        let got = positions.dim(0)?;
        if got != expected {
            return Err(AbUptError::batch(role, expected, got).into());
        }
    }
    Ok(())
}

/// Predicted fields by name: `<domain>_<field>` at anchors and `query_<domain>_<field>` at queries, each
/// `[batch, points, components]`, in the order of domains and fields.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    fields: Vec<(String, Tensor)>,
}

impl Fields {
    pub(super) fn push(&mut self, name: String, values: Tensor) {
        self.fields.push((name, values));
    }

    /// A field by its full name.
    ///
    /// # Errors
    /// There is no such field.
    pub fn get(&self, name: &str) -> std::result::Result<&Tensor, AbUptError> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, values)| values).ok_or_else(|| AbUptError::UnknownField {
            field: name.to_string(),
            known: self.names().map(str::to_string).collect(),
        })
    }

    /// A field at the anchors of a domain.
    ///
    /// # Errors
    /// There is no such field.
    pub fn at_anchors(&self, domain: &str, field: &str) -> std::result::Result<&Tensor, AbUptError> {
        self.get(&anchor_field(domain, field))
    }

    /// A field at the queries of a domain.
    ///
    /// # Errors
    /// There is no such field, or the domain had no queries.
    pub fn at_queries(&self, domain: &str, field: &str) -> std::result::Result<&Tensor, AbUptError> {
        self.get(&query_field(domain, field))
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.fields.iter().map(|(name, values)| (name.as_str(), values))
    }
}

/// What a first pass returns.
#[derive(Debug, Clone)]
pub struct AbUptOutput {
    /// Fields of every domain at its anchors, and at its queries where there were any.
    pub fields: Fields,
    /// What later passes need of this one.
    pub cache: AbUptCache,
}
