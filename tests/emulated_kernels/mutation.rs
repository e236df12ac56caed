//! Mistakes put into the kernels on purpose: a test that did not find them would prove nothing about the real ones.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::case::{self, Case};
use emulator::{Finding, FindingKind};

/// One piece of text of a kernel's source, which is there exactly once, replaced by a wrong one.
pub struct Mutation {
    pub name: &'static str,
    pub file: &'static str,
    pub from: &'static str,
    pub to: &'static str,
    /// The case that shows it.
    pub case: &'static str,
    pub shows_as: Sign,
}

/// What the emulator or the comparison must say.
pub enum Sign {
    /// One of these findings; several where it depends on who runs first.
    Found(&'static [FindingKind]),
    /// An error with this in its text, and no finding.
    Message(&'static str),
    /// A finding or wrong numbers: what comes first depends on what happens to lie there.
    Any,
}

/// What the comparison says.
const OFF: &str = "off by";

pub const WRONG_NUMBERS: Sign = Sign::Message(OFF);

impl Mutation {
    /// A copy of a folder of kernels with the mistake.
    pub fn copy(&self, folder: &Path) -> Result<TempDir> {
        let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().context("a file")?;
            let mut text = fs::read_to_string(&path)?;
            if name == Path::new(self.file) {
                ensure!(text.matches(self.from).count() == 1, "'{}' is not in {} once", self.from, self.file);
                text = text.replace(self.from, self.to);
            }
            fs::write(copy.path().join(name), text)?;
        }
        Ok(copy)
    }

    /// The case that shows it.
    pub fn case(&self) -> Result<&'static Case> {
        case::find(self.case).with_context(|| format!("no case '{}'", self.case))
    }

    /// Checks that the case failed on the copy, and how.
    pub fn is_shown_by(&self, outcome: Result<()>) -> Result<()> {
        self.shows_as.is_shown_by(outcome)
    }
}

impl Sign {
    /// Checks that something failed, and how.
    pub fn is_shown_by(&self, outcome: Result<()>) -> Result<()> {
        let error = outcome.err().context("nobody noticed")?;
        let finding = error.chain().find_map(|cause| cause.downcast_ref::<Finding>());
        let expected = match self {
            Sign::Found(kinds) => finding.is_some_and(|finding| kinds.contains(&finding.kind)),
            Sign::Message(text) => finding.is_none() && format!("{error:#}").contains(text),
            Sign::Any => finding.is_some() || format!("{error:#}").contains(OFF),
        };
        ensure!(expected, "noticed in another way: {error:#}");
        Ok(())
    }
}
