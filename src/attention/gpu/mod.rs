//! What the GPU backends share: how tensors are read in place, and which schedule a call uploads.

mod rows;
mod schedule;

pub(in crate::attention) use rows::{AngleRows, Rows, is_readable};
pub(in crate::attention) use schedule::{PlanKey, Remembered};
