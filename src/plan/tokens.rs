//! Token groups: what the sequence is made of.

use serde::{Deserialize, Serialize};

/// One named group of tokens.
///
/// The input `x` of shape `[batch, tokens, hidden_dim]` is the concatenation, in the order of the specs, of every
/// group that has a size. A group without a size is not in `x`: its keys and values come from a
/// [`KvCache`](crate::KvCache).
///
/// The JSON form is `{"name": "surface_anchors", "size": 100}`, with `null` or no `size` for a cached group.
///
/// ```
/// use candle_mixed_attention::TokenSpec;
///
/// let anchors = TokenSpec::new("surface_anchors", 100);
/// let cached = TokenSpec::cached("volume_anchors");
/// assert_eq!(anchors.size, Some(100));
/// assert_eq!(serde_json::to_string(&cached).unwrap(), r#"{"name":"volume_anchors","size":null}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenSpec {
    /// The name that patterns and caches refer to. Any string; unique within a plan.
    pub name: String,
    /// The number of tokens of this group in the input, or `None` if its keys and values are cached.
    #[serde(default)]
    pub size: Option<usize>,
}

impl TokenSpec {
    /// A group of `size` tokens of the input. `size` may be 0.
    pub fn new(name: impl Into<String>, size: usize) -> Self {
        Self { name: name.into(), size: Some(size) }
    }

    /// A group whose keys and values come from a [`KvCache`](crate::KvCache).
    pub fn cached(name: impl Into<String>) -> Self {
        Self { name: name.into(), size: None }
    }

    /// Whether the group's keys and values come from a cache.
    pub fn is_cached(&self) -> bool {
        self.size.is_none()
    }
}
