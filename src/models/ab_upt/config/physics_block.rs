//! The blocks that all domains go through together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::models::ab_upt::error::AbUptError;
use crate::modules::AnchorKind;

/// What the tokens of a physics block attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PhysicsKind {
    /// Anchors.
    Anchors(AnchorKind),
    /// The encoded geometry.
    Perceiver,
}

/// One physics block. As text: `self` (or `shared`), `cross`, `joint` or `perceiver`, with `_untied` behind it where each
/// domain has its own weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhysicsBlock {
    /// What its tokens attend to.
    pub kind: PhysicsKind,
    /// Whether each domain has its own weights.
    pub untied: bool,
}

impl FromStr for PhysicsBlock {
    type Err = AbUptError;

    fn from_str(text: &str) -> Result<Self, AbUptError> {
        let (kind, untied) = match text.strip_suffix("_untied") {
            Some(kind) => (kind, true),
            None => (text, false),
        };
        let kind = match kind {
            "self" | "shared" => PhysicsKind::Anchors(AnchorKind::Own),
            "cross" => PhysicsKind::Anchors(AnchorKind::Cross),
            "joint" => PhysicsKind::Anchors(AnchorKind::Joint),
            "perceiver" => PhysicsKind::Perceiver,
            _ => {
                let expected = "self, shared, cross, joint or perceiver, optionally followed by _untied";
                return Err(AbUptError::config("physics_blocks", expected, format!("'{text}'")));
            }
        };
        Ok(Self { kind, untied })
    }
}

impl fmt::Display for PhysicsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PhysicsKind::Anchors(AnchorKind::Own) => "self",
            PhysicsKind::Anchors(AnchorKind::Cross) => "cross",
            PhysicsKind::Anchors(AnchorKind::Joint) => "joint",
            PhysicsKind::Perceiver => "perceiver",
        })?;
        f.write_str(if self.untied { "_untied" } else { "" })
    }
}

impl TryFrom<String> for PhysicsBlock {
    type Error = AbUptError;

    fn try_from(text: String) -> Result<Self, AbUptError> {
        text.parse()
    }
}

impl From<PhysicsBlock> for String {
    fn from(block: PhysicsBlock) -> Self {
        block.to_string()
    }
}
