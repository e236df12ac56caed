//! Samples of different sizes in one launch: their plans as one, over their tokens one after another.

use std::collections::HashMap;
use std::ops::Range;

use super::{AttentionPattern, AttentionPlan, TokenSpec};
use crate::error::PlanError;

/// The plans of several samples as one plan, without padding: meshes differ in size.
///
/// The tokens of the samples lie one after another in a batch of one row; no sample sees another. Group `anchors` of sample
/// 3 is called `anchors/3` ([`group`](Self::group)), also in caches. Everything that takes a plan takes
/// [`plan`](Self::plan); angles and padding are those of the concatenated tokens.
///
/// ```
/// use candle_mixed_attention::{AttentionPattern, AttentionPlan, BatchPlan, TokenSpec};
///
/// let sample = |anchors, queries| {
///     AttentionPlan::new(
///         [TokenSpec::new("anchors", anchors), TokenSpec::new("queries", queries)],
///         [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
///     )
/// };
/// let batch = BatchPlan::new(&[sample(100, 50)?, sample(30, 2000)?])?;
/// assert_eq!(batch.plan().len(), 2180);
/// assert_eq!(batch.samples(), [0..150, 150..2180]);
/// # Ok::<(), candle_mixed_attention::PlanError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchPlan {
    plan: AttentionPlan,
    samples: Vec<Range<usize>>,
}

impl BatchPlan {
    /// Puts the plans of samples together. A sample may have no tokens.
    ///
    /// # Errors
    /// No plan, or more tokens or pairs than can be counted.
    pub fn new(plans: &[AttentionPlan]) -> Result<Self, PlanError> {
        let mut tokens = Vec::new();
        let mut patterns = Vec::new();
        let mut expected_cached = HashMap::new();
        let mut samples = Vec::with_capacity(plans.len());
        let mut start = 0usize;
        for (sample, plan) in plans.iter().enumerate() {
            let name = |group: &String| Self::group(group, sample);
            let names = |groups: &[String]| groups.iter().map(name).collect();
            let of_sample = plan.tokens().iter().map(|token| TokenSpec { name: name(&token.name), size: token.size });
            tokens.extend(of_sample);
            patterns.extend(plan.patterns().iter().map(|pattern| AttentionPattern {
                query_tokens: names(&pattern.query_tokens),
                key_value_tokens: names(&pattern.key_value_tokens),
                window: pattern.window,
            }));
            expected_cached.extend(plan.inner.expected_cached.iter().map(|(group, size)| (name(group), *size)));
            // A sum that overflows is found below, by the name of its group.
            let end = start.saturating_add(plan.len());
            samples.push(start..end);
            start = end;
        }
        Ok(Self { plan: AttentionPlan::build(tokens, patterns, expected_cached, None)?, samples })
    }

    /// The name of a sample's group in [`plan`](Self::plan) and in caches.
    pub fn group(group: &str, sample: usize) -> String {
        format!("{group}/{sample}")
    }

    /// The plan over the tokens of all samples.
    pub fn plan(&self) -> &AttentionPlan {
        &self.plan
    }

    /// The tokens of each sample along the token axis.
    pub fn samples(&self) -> &[Range<usize>] {
        &self.samples
    }
}
