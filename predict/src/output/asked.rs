//! What a run is asked for, so that processes that were started together find out whether they were asked alike.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::draft::Request;
use super::part::Part;
use super::state::State;

/// Inputs, chunks and files of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    program: String,
    state: State,
}

impl Asked {
    /// What a request says.
    pub(super) fn of(request: &Request) -> Self {
        let parts = request.parts.iter().map(Part::fresh_state).collect();
        let program = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_string();
        // Where files lie and how the command was written may differ.
        let origin = Default::default();
        Self { program, state: State::new(request.inputs.clone(), origin, request.chunk, parts) }
    }

    /// The number of parts.
    #[cfg(feature = "mpi")]
    pub(crate) fn parts(&self) -> usize {
        self.state.parts.len()
    }

    /// For another process.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Checks that another process was asked for the same.
    ///
    /// # Errors
    /// What differs, by its name.
    pub(crate) fn check_same(&self, other: &[u8]) -> Result<()> {
        let first: Self = serde_json::from_slice(other).context("what the process that leads was asked for")?;
        let (one, another) = (&first.program, &self.program);
        ensure!(one == another, "the program is {another} here and {one} there");
        first.state.check_same_run(&self.state)?;
        let (there, here) = (first.state.chunk, self.state.chunk);
        ensure!(there == here, "--chunk is {here} here and {there} there");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Map, json};

    use super::super::draft::Existing;
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let asked = |seed: u64, chunk: u64| {
            let inputs = Map::from_iter([("seed".to_string(), json!(seed))]);
            let (folder, parts) = (PathBuf::from(seed.to_string()), Vec::new());
            Asked::of(&Request { folder, inputs, origin: Map::new(), chunk, parts, existing: Existing::Refuse })
        };
        let leader = asked(1, 8).to_bytes().unwrap();
        asked(1, 8).check_same(&leader).unwrap();
        let refusal = |asked: Asked| asked.check_same(&leader).unwrap_err().to_string();
        assert_eq!(refusal(asked(2, 8)), "seed was 1 when the run began and is 2 now");
        assert_eq!(refusal(asked(1, 9)), "--chunk is 9 here and 8 there");
        assert!(
            refusal(Asked { program: "predict 0".to_string(), ..asked(1, 8) })
                .starts_with("the program is predict 0 here")
        );
    }
}
