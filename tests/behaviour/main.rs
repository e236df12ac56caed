//! Odd calls of the attention layers, case by case: what is refused and with which words, what works and gives what.
//!
//! The cases are those in which the published PyTorch package is known to refuse, crash, or be silently wrong; the table
//! in the crate's documentation lists where this crate differs on purpose.

mod batches;
mod caches;
mod calls;
mod grouped_heads;
mod key_bias;
mod layers;
mod nothing_to_see;
mod parts;
mod plans;
mod rope;
mod sizes;
mod small;
#[path = "../support/mod.rs"]
mod support;

#[test]
fn errors_hold_no_backtrace_where_the_environment_asks_for_one() {
    support::refusal::again_with_backtraces("errors_hold_no_backtrace");
}
