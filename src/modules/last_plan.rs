//! The plan of the last call of a layer that makes its plans itself.

use std::sync::{Arc, Mutex};

use crate::error::PlanError;
use crate::plan::AttentionPlan;

/// The plan for the number of tokens of the last call: the next call usually has as many, and a plan that is kept has its
/// schedules, on a GPU uploaded ones. Clones of a layer share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LastPlan(Arc<Mutex<Option<AttentionPlan>>>);

impl LastPlan {
    /// The plan for this number of tokens, kept or made.
    pub fn of(
        &self,
        tokens: usize,
        make: impl FnOnce(usize) -> Result<AttentionPlan, PlanError>,
    ) -> Result<AttentionPlan, PlanError> {
        // A poisoned lock only means that another thread panicked before or after an assignment.
        let mut last = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*last {
            Some(plan) if plan.len() == tokens => Ok(plan.clone()),
            _ => Ok(last.insert(make(tokens)?).clone()),
        }
    }
}
