//! Does a checkpoint fit a configuration?

use std::fmt;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, AbUptError, Checkpoint, Component, TensorProblem};

/// What a configuration describes, and which tensors do not fit.
pub(super) struct Fit<'a> {
    config: &'a AbUptConfig,
    problems: Vec<TensorProblem>,
}

impl<'a> Fit<'a> {
    /// Compares names and shapes; no data is read.
    pub(super) fn new(checkpoint: &Checkpoint, config: &'a AbUptConfig) -> Result<Self> {
        let problems = match checkpoint.check(config) {
            Ok(()) => Vec::new(),
            Err(AbUptError::Tensors { problems, .. }) => problems,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { config, problems })
    }

    /// Whether every tensor fits.
    pub(super) fn fits(&self) -> bool {
        self.problems.is_empty()
    }
}

fn components(components: &[Component]) -> String {
    components.iter().map(|Component { name, dim }| format!("{name} [{dim}]")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Fit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config;
        let (width, heads, mlp) = (config.hidden_dim, config.num_heads, config.mlp_hidden_dim);
        writeln!(f, "width {width}, {heads} heads of {}, feed-forward {mlp}", config.head_dim())?;
        let blocks = config.physics_blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        writeln!(f, "physics blocks: {blocks}")?;
        if config.uses_geometry() {
            writeln!(f, "geometry blocks: {}", config.geometry_depth)?;
        }
        if !config.condition.is_empty() {
            writeln!(f, "conditions: {}", components(&config.condition))?;
        }
        for domain in &config.domains {
            let (name, depth, fields) = (&domain.name, domain.decoder_blocks, components(&domain.fields));
            writeln!(f, "domain {name}: {depth} decoder blocks, fields {fields}")?;
        }
        match self.problems.len() {
            0 => writeln!(f, "The checkpoint fits: every tensor is there, with its shape, and no other."),
            count => writeln!(f, "The checkpoint does not fit in {count} tensors:"),
        }?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}
