//! Attention patterns: who attends to whom.

use serde::{Deserialize, Serialize};

/// Lets every group of `query_tokens` attend to the concatenation of the groups of `key_value_tokens`:
///
/// ```text
/// out[g] = softmax(q[g] · [k[K1] k[K2] …]ᵀ · scale) · [v[K1] v[K2] …]      for every g in query_tokens
/// ```
///
/// A group named twice among the keys counts twice in the softmax.
///
/// ```
/// use candle_mixed_attention::AttentionPattern;
///
/// let pattern = AttentionPattern::queries(["surface_anchors", "surface_queries"]).attend_to(["surface_anchors"]);
/// assert_eq!(pattern.query_tokens.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionPattern {
    /// Names of the groups that ask.
    pub query_tokens: Vec<String>,
    /// Names of the groups whose keys and values they see.
    pub key_value_tokens: Vec<String>,
}

impl AttentionPattern {
    /// Starts a pattern with the groups that ask; [`attend_to`](Self::attend_to) completes it.
    ///
    /// A pattern without keys is refused when the plan is made.
    pub fn queries<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { query_tokens: names.into_iter().map(Into::into).collect(), key_value_tokens: Vec::new() }
    }

    /// Adds groups whose keys and values the queries see.
    pub fn attend_to<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.key_value_tokens.extend(names.into_iter().map(Into::into));
        self
    }
}
