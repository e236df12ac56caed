//! What several test binaries share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod ab_upt;
pub mod backends;
pub mod compare;
pub mod refusal;
