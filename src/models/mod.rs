//! Whole networks built on the crate's attention.

pub mod ab_upt;
