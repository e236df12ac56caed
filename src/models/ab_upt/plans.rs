//! The plans of blocks whose tokens attend to anchors.

use super::tokens::ANCHOR_SUFFIX;
use crate::error::PlanError;
use crate::modules::{AnchorKind, anchor_patterns};
use crate::plan::RecentPlans;
use crate::plan::{AttentionPlan, TokenSpec};

/// Makes the plans of some domains and keeps the last ones: a stream of equal chunks makes one.
#[derive(Debug, Clone)]
pub(super) struct AnchorPlans {
    domains: Vec<String>,
    recent: RecentPlans<(AnchorKind, Vec<TokenSpec>)>,
}

impl AnchorPlans {
    /// For these domains.
    pub(super) fn new(domains: impl Into<Vec<String>>) -> Self {
        Self { domains: domains.into(), recent: RecentPlans::default() }
    }

    /// The plan in which the groups of these domains attend to anchors.
    pub(super) fn of(&self, kind: AnchorKind, groups: &[TokenSpec]) -> Result<AttentionPlan, PlanError> {
        let make = || AttentionPlan::new(groups, anchor_patterns(kind, &self.domains, groups, ANCHOR_SUFFIX)?);
        self.recent.get(&(kind, groups.to_vec()), make)
    }
}
