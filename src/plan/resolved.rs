//! A plan with every size known, and the schedules that were derived from it.

use std::sync::{Arc, Mutex};

use super::{CacheLayout, PlanRanges, TileSchedule, TileShape};

/// The ranges of a plan for one cache layout, with the schedules that backends asked for.
#[derive(Debug)]
pub struct ResolvedPlan {
    ranges: PlanRanges,
    layout: Option<CacheLayout>,
    schedules: Mutex<Vec<(ScheduleKey, Arc<TileSchedule>)>>,
    #[cfg(feature = "cuda")]
    device_plans: crate::attention::cuda::DevicePlans,
    #[cfg(feature = "metal")]
    metal_plans: crate::attention::metal::DevicePlans,
}

/// What a schedule depends on besides the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScheduleKey {
    batch: usize,
    heads: usize,
    tile: TileShape,
    workers: usize,
}

/// How many schedules a plan remembers: layers of a model share one; a few batch sizes or devices may alternate.
const REMEMBERED_SCHEDULES: usize = 8;

impl ResolvedPlan {
    pub(super) fn new(ranges: PlanRanges, layout: Option<CacheLayout>) -> Self {
        Self {
            ranges,
            layout,
            schedules: Mutex::new(Vec::new()),
            #[cfg(feature = "cuda")]
            device_plans: Default::default(),
            #[cfg(feature = "metal")]
            metal_plans: Default::default(),
        }
    }

    /// The ranges.
    pub fn ranges(&self) -> &PlanRanges {
        &self.ranges
    }

    /// The layout of the cache they refer to.
    pub fn layout(&self) -> Option<&CacheLayout> {
        self.layout.as_ref()
    }

    /// What CUDA devices keep of the plan.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_plans(&self) -> &crate::attention::cuda::DevicePlans {
        &self.device_plans
    }

    /// What Metal devices keep of the plan.
    #[cfg(feature = "metal")]
    pub(crate) fn metal_plans(&self) -> &crate::attention::metal::DevicePlans {
        &self.metal_plans
    }

    /// The work list for one shape of input and machine; built on the first call, shared afterwards.
    ///
    /// # Panics
    /// As [`TileSchedule::new`].
    pub fn schedule(&self, batch: usize, heads: usize, tile: TileShape, workers: usize) -> Arc<TileSchedule> {
        let key = ScheduleKey { batch, heads, tile, workers };
        // A poisoned lock only means that another thread panicked between two complete states of the list.
        let mut schedules = self.schedules.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, schedule)) = schedules.iter().find(|(known, _)| *known == key) {
            return schedule.clone();
        }
        let schedule = Arc::new(TileSchedule::new(&self.ranges, batch, heads, tile, workers));
        if schedules.len() == REMEMBERED_SCHEDULES {
            schedules.remove(0);
        }
        schedules.push((key, schedule.clone()));
        schedule
    }
}
