//! Calls that must fail.

use std::fmt::Display;

/// The call fails, and the message holds each of these words.
pub fn refused<T, E: Display>(case: &str, result: Result<T, E>, words: &[&str]) {
    match result.map_err(|error| error.to_string()) {
        Ok(_) => panic!("{case}: accepted"),
        Err(message) => {
            for word in words {
                assert!(message.contains(word), "{case}: no '{word}' in: {message}");
            }
        }
    }
}
