//! A plan with every size known, and the schedules that were derived from it.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use super::kept::Kept;
use super::{CacheLayout, PlanRanges, TileSchedule, TileShape};
use crate::recent::Recent;

/// The ranges of a plan for one cache layout, with what backends derived from them.
#[derive(Debug)]
pub struct ResolvedPlan {
    ranges: PlanRanges,
    layout: Option<CacheLayout>,
    schedules: Recent<ScheduleKey, Arc<TileSchedule>, RECENT_SCHEDULES>,
    kept: Kept,
}

/// What a schedule depends on besides the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScheduleKey {
    batch: usize,
    heads: usize,
    tile: TileShape,
    workers: usize,
}

/// How many schedules a plan keeps: layers of a model share one; a few batch sizes or devices may alternate.
const RECENT_SCHEDULES: usize = 8;

impl ResolvedPlan {
    pub(super) fn new(ranges: PlanRanges, layout: Option<CacheLayout>) -> Self {
        tracing::debug!(tokens = ranges.input_tokens(), cached = ranges.cache_tokens(), "plan resolved");
        Self { ranges, layout, schedules: Recent::default(), kept: Kept::default() }
    }

    /// The ranges.
    pub fn ranges(&self) -> &PlanRanges {
        &self.ranges
    }

    /// The layout of the cache they refer to.
    pub fn layout(&self) -> Option<&CacheLayout> {
        self.layout.as_ref()
    }

    /// What a backend keeps of the plan: the one value of its type.
    #[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(dead_code, reason = "the CPU keeps nothing"))]
    pub(crate) fn kept<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        self.kept.of()
    }

    /// The work list for one shape of input and machine; built on the first call, shared afterwards.
    ///
    /// # Panics
    /// As [`TileSchedule::new`].
    pub fn schedule(&self, batch: usize, heads: usize, tile: TileShape, workers: usize) -> Arc<TileSchedule> {
        let make = || {
            let schedule = TileSchedule::new(&self.ranges, batch, heads, tile, workers);
            tracing::debug!(items = schedule.items().len(), "schedule made");
            Ok::<_, Infallible>(Arc::new(schedule))
        };
        let Ok(schedule) = self.schedules.get(&ScheduleKey { batch, heads, tile, workers }, make);
        schedule
    }
}
