//! The schedule that a GPU gets for a call, and which calls share it.

use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::Result;

use crate::attention::call::Arguments;
use crate::plan::{KeyRows, PaddingBits, ResolvedPlan, StepContext, StepSchedule, TileShape};

/// What an uploaded schedule depends on besides the plan. `D` names a device or a stream of it, `T` a kernel's tile.
#[derive(Clone)]
pub struct PlanKey<D, T> {
    pub device: D,
    pub tile: T,
    /// Work items that run at a time.
    pub workers: usize,
    pub batch: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub element_bytes: usize,
    /// Whether the keys of the input are rotated.
    pub rotated: bool,
    pub input_padding: Option<Arc<PaddingBits>>,
    pub cache_padding: Option<Arc<PaddingBits>>,
}

impl<D: PartialEq, T: PartialEq> PartialEq for PlanKey<D, T> {
    /// Masks are compared by content, so that one made anew for each call finds its upload. Their hashes come first:
    /// only the bits of equal ones are looked at, and not of those that layers share.
    fn eq(&self, other: &Self) -> bool {
        let same = |left: &Option<Arc<PaddingBits>>, right: &Option<Arc<PaddingBits>>| match (left, right) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left == right,
            (None, None) => true,
            _ => false,
        };
        let sizes = |key: &Self| (key.workers, key.batch, key.heads, key.head_dim, key.element_bytes, key.rotated);
        self.device == other.device
            && self.tile == other.tile
            && sizes(self) == sizes(other)
            && same(&self.input_padding, &other.input_padding)
            && same(&self.cache_padding, &other.cache_padding)
    }
}

impl<D, T> PlanKey<D, T> {
    /// The key of a call.
    pub fn new(arguments: &Arguments, device: D, tile: T, workers: usize, element_bytes: usize) -> Self {
        Self {
            device,
            tile,
            // One worker: no item is split.
            workers: if arguments.invariant { 1 } else { workers },
            batch: arguments.batch,
            heads: arguments.heads,
            head_dim: arguments.head_dim,
            element_bytes,
            rotated: arguments.rope.is_some(),
            input_padding: arguments.padding.clone(),
            cache_padding: arguments.cache.as_ref().and_then(|cache| cache.padding.clone()),
        }
    }

    /// The schedule for tiles of this shape.
    pub fn schedule(&self, resolved: &ResolvedPlan, shape: TileShape) -> GpuSchedule {
        let tiles = resolved.schedule(self.batch, self.heads, shape, self.workers);
        let key_rows = self.rotated.then(|| KeyRows::new(resolved.ranges())).filter(|rows| rows.rows() > 0);
        let context = StepContext {
            input_padding: self.input_padding.as_deref(),
            cache_padding: self.cache_padding.as_deref(),
            key_rows: key_rows.as_ref(),
        };
        let steps = StepSchedule::new(&tiles, self.batch, context);
        GpuSchedule { steps, partial_slots: tiles.partial_slots(), key_rows }
    }
}

/// What a GPU walks over.
pub struct GpuSchedule {
    pub steps: StepSchedule,
    /// Number of partial results.
    pub partial_slots: usize,
    /// Where rotated keys lie; `None` if there are none.
    pub key_rows: Option<KeyRows>,
}

/// How many uploads a plan remembers: streams times a few batch sizes or masks.
const REMEMBERED: usize = 16;

/// The uploaded schedules of one plan, the one that was used last at the end.
#[derive(Debug)]
pub struct Remembered<P> {
    known: Mutex<Vec<Arc<P>>>,
}

impl<P> Default for Remembered<P> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<P> Remembered<P> {
    /// The one that `is` it; made on the first call.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(&self, is: impl Fn(&P) -> bool, make: impl FnOnce() -> Result<P>) -> Result<Arc<P>> {
        let mut known = self.lock();
        if let Some(place) = known.iter().position(|plan| is(plan)) {
            let plan = known.remove(place);
            known.push(plan.clone());
            return Ok(plan);
        }
        drop(known);
        let plan = Arc::new(make()?);
        let mut known = self.lock();
        let forgotten = (known.len() == REMEMBERED).then(|| known.remove(0));
        known.push(plan.clone());
        drop(known);
        // Outside of the lock: it may wait for the device.
        drop(forgotten);
        Ok(plan)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<P>>> {
        // A poisoned lock only means that another thread panicked between two complete states of the list.
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upload_of_longest_ago_is_forgotten_and_others_are_made_once() -> Result<()> {
        let remembered = Remembered::default();
        let made = std::cell::Cell::new(0);
        let get = |wanted: usize| {
            remembered.get(
                |known| *known == wanted,
                || {
                    made.set(made.get() + 1);
                    Ok(wanted)
                },
            )
        };
        for i in 0..REMEMBERED {
            assert_eq!(*get(i)?, i);
        }
        get(0)?;
        assert_eq!(made.get(), REMEMBERED);
        get(REMEMBERED)?;
        get(0)?;
        assert_eq!(made.get(), REMEMBERED + 1);
        get(1)?;
        assert_eq!(made.get(), REMEMBERED + 2);
        assert!(remembered.get(|_| false, || candle_core::bail!("no device")).is_err());
        Ok(())
    }
}
