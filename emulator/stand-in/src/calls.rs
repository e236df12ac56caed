//! Every call is counted, and one of them can be made to fail.

use std::collections::BTreeMap;

use crate::failure::Failure;

/// The calls so far.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    by_name: BTreeMap<&'static str, u64>,
    total: u64,
    /// Launches by kernel, and of all of candle's kernels.
    launches: BTreeMap<String, u64>,
    /// The call that fails, with a code.
    to_fail: Option<(Which, Failure)>,
    /// The one that did.
    failed: Option<&'static str>,
}

/// Which call fails.
#[derive(Debug)]
enum Which {
    /// That of this number.
    Number(u64),
    /// The next one of this function.
    Next(String),
}

impl Calls {
    /// Counts a call.
    ///
    /// # Errors
    /// It is the one that has to fail.
    pub(crate) fn count(&mut self, name: &'static str) -> Result<(), Failure> {
        self.total += 1;
        *self.by_name.entry(name).or_default() += 1;
        let fails = match &self.to_fail {
            Some((Which::Number(number), _)) => *number == self.total,
            Some((Which::Next(function), _)) => function == name,
            None => false,
        };
        match self.to_fail.take_if(|_| fails) {
            Some((_, failure)) => {
                self.failed = Some(name);
                Err(failure)
            }
            None => Ok(()),
        }
    }

    /// Counts a launch.
    pub(crate) fn count_launch(&mut self, kernel: &str) {
        *self.launches.entry(kernel.to_string()).or_default() += 1;
    }

    /// How often a kernel was launched.
    pub(crate) fn launches_of(&self, kernel: &str) -> u64 {
        self.launches.get(kernel).copied().unwrap_or_default()
    }

    /// How often a function was called; all of them for an empty name.
    pub(crate) fn of(&self, name: &str) -> u64 {
        if name.is_empty() { self.total } else { self.by_name.get(name).copied().unwrap_or_default() }
    }

    /// Lets the call that comes `number`th from now fail; none for 0.
    pub(crate) fn fail(&mut self, number: u64, failure: Failure) {
        self.to_fail = (number > 0).then_some((Which::Number(self.total + number), failure));
        self.failed = None;
    }

    /// Lets the next call of a function fail.
    pub(crate) fn fail_next(&mut self, function: &str, failure: Failure) {
        self.to_fail = Some((Which::Next(function.to_string()), failure));
        self.failed = None;
    }

    /// The function whose call was made to fail.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        self.failed
    }
}
