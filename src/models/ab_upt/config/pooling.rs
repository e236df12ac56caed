//! The description of a supernode pooling.

use serde::{Deserialize, Serialize};

use super::checks::check_width;
use super::defaults;
use crate::models::ab_upt::error::AbUptError;

/// Which positions a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionMode {
    /// Those of the point and of the supernode.
    #[default]
    AbsPos,
    /// Their difference and distance.
    RelPos,
    /// All of these.
    AbsRelPos,
}

/// What happens to a message before it is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageMode {
    /// Two linear layers with a GELU between them.
    #[default]
    Mlp,
    /// One linear layer.
    Linear,
    /// Nothing.
    Identity,
}

/// How messages are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// Their mean; zeros without any.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// Configuration of a [`SupernodePooling`](crate::models::ab_upt::SupernodePooling). Exactly one of `radius` and `k` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolingConfig {
    /// Width of the embeddings and messages.
    pub hidden_dim: usize,
    /// Coordinates of a position. Default: 3.
    #[serde(default = "defaults::position_dim")]
    pub position_dim: usize,
    /// Neighbours are the points within this distance, in units of the positions.
    #[serde(default)]
    pub radius: Option<f64>,
    /// Neighbours are the `k` nearest points.
    #[serde(default)]
    pub k: Option<usize>,
    /// Of the points within `radius`, the first `max_degree` by index are used. Default: 32.
    #[serde(default = "defaults::max_degree")]
    pub max_degree: usize,
    /// Which positions a message is made of.
    #[serde(default)]
    pub pos_mode: PositionMode,
    /// Whether the embedding of the supernode itself is added at the end. Default: true.
    #[serde(default = "defaults::readd_supernode_pos")]
    pub readd_supernode_pos: bool,
    /// How messages are summed up.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// What happens to a message before.
    #[serde(default)]
    pub message_mode: MessageMode,
    /// Width of the input features of the points; none if not set.
    #[serde(default)]
    pub input_features_dim: Option<usize>,
}

impl PoolingConfig {
    /// Width of the resulting tokens.
    pub fn output_dim(&self) -> usize {
        match (self.readd_supernode_pos, self.message_mode) {
            (false, MessageMode::Identity) => self.message_dim(),
            _ => self.hidden_dim,
        }
    }

    /// Width of a message before its layers.
    pub(in crate::models::ab_upt) fn message_dim(&self) -> usize {
        let parts = match self.pos_mode {
            PositionMode::AbsPos => 2,
            PositionMode::RelPos => 1,
            PositionMode::AbsRelPos => 3,
        };
        parts * self.hidden_dim
    }

    /// Checks that a pooling can be made of this.
    ///
    /// # Errors
    /// The first entry that cannot work, with what it should be.
    pub fn validate(&self) -> Result<(), AbUptError> {
        let refuse = |field: &str, expected: &str, got: String| {
            Err(AbUptError::config(format!("supernode_pooling.{field}"), expected, got))
        };
        if !(1..=3).contains(&self.position_dim) {
            return refuse("position_dim", "1, 2 or 3", self.position_dim.to_string());
        }
        let coordinates = self.position_dim + usize::from(self.pos_mode != PositionMode::AbsPos);
        check_width("supernode_pooling.hidden_dim", self.hidden_dim)?;
        if self.hidden_dim < 2 * coordinates {
            let expected = format!("at least {}, two channels for each embedded number", 2 * coordinates);
            return refuse("hidden_dim", &expected, self.hidden_dim.to_string());
        }
        match (self.radius, self.k) {
            // Distances are f32.
            (Some(radius), None) if !(radius >= 0.0 && (radius as f32).is_finite()) => {
                return refuse("radius", "finite in f32 and not negative", radius.to_string());
            }
            (Some(_), None) if self.max_degree == 0 => {
                return refuse("max_degree", "at least 1", "0".to_string());
            }
            (None, Some(0)) => return refuse("k", "at least 1", "0".to_string()),
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) => return refuse("radius, k", "one of the two", "both".to_string()),
            (None, None) => return refuse("radius, k", "one of the two", "neither".to_string()),
        }
        if let Some(features) = self.input_features_dim {
            check_width("supernode_pooling.input_features_dim", features)?;
        }
        if self.input_features_dim.is_some() && self.pos_mode == PositionMode::AbsRelPos {
            return refuse("input_features_dim", "null with pos_mode absrelpos", "features".to_string());
        }
        let wide = self.message_mode == MessageMode::Identity && self.message_dim() != self.hidden_dim;
        if wide && self.readd_supernode_pos {
            let expected = "false with message_mode identity, unless pos_mode is relpos";
            return refuse("readd_supernode_pos", expected, "true".to_string());
        }
        Ok(())
    }
}
