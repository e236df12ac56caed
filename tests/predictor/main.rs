//! The predictor: physical units in and out, any number of points in chunks.

mod cache;
mod chunks;
mod fixtures;
mod refusals;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
