//! Attention patterns: who attends to whom.

use serde::{Deserialize, Serialize};

use super::AttentionWindow;

/// Lets every group of `query_tokens` attend to the concatenation of the groups of `key_value_tokens`:
///
/// ```text
/// out[g] = softmax(q[g] · [k[K1] k[K2] …]ᵀ · scale) · [v[K1] v[K2] …]      for every g in query_tokens
/// ```
///
/// A group named twice among the keys counts twice in the softmax. A [window](Self::window) limits what each query sees by
/// places.
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
    /// Which of their tokens a query sees, by places.
    #[serde(default, skip_serializing_if = "AttentionWindow::is_unlimited")]
    pub window: AttentionWindow,
}

impl AttentionPattern {
    /// Starts a pattern with the groups that ask; [`attend_to`](Self::attend_to) completes it.
    ///
    /// A pattern without keys is refused when the plan is made.
    pub fn queries<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self {
            query_tokens: names.into_iter().map(Into::into).collect(),
            key_value_tokens: Vec::new(),
            window: AttentionWindow::default(),
        }
    }

    /// Adds groups whose keys and values the queries see.
    pub fn attend_to<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.key_value_tokens.extend(names.into_iter().map(Into::into));
        self
    }

    /// Limits each query to keys at its own place and in front of it.
    ///
    /// Places count the tokens of all groups that the pattern names: cached ones first, then those of the input, each in
    /// its order ([`AttentionWindow`]).
    ///
    /// ```
    /// use candle_mixed_attention::{AttentionPattern, AttentionPlan, TokenSpec};
    ///
    /// let plan = AttentionPlan::new(
    ///     [TokenSpec::new("steps", 4)],
    ///     [AttentionPattern::queries(["steps"]).attend_to(["steps"]).causal()],
    /// )?;
    /// assert_eq!(plan.to_dense_mask()?, [1, 0, 0, 0, /**/ 1, 1, 0, 0, /**/ 1, 1, 1, 0, /**/ 1, 1, 1, 1]);
    /// # Ok::<(), candle_mixed_attention::PlanError>(())
    /// ```
    pub fn causal(mut self) -> Self {
        self.window = self.window.narrowed(None, Some(0));
        self
    }

    /// Limits each query to keys at most `left` places in front of it and `right` behind it; with
    /// [`causal`](Self::causal), in any order, none behind it.
    ///
    /// Kernels skip what no query of a tile sees. A key that one of them sees is multiplied by the weights of all, those of
    /// the others 0: if it holds NaN or an infinity, that may reach them.
    ///
    /// ```
    /// use candle_mixed_attention::{AttentionPattern, AttentionPlan, TokenSpec};
    ///
    /// let plan = AttentionPlan::new(
    ///     [TokenSpec::new("line", 4)],
    ///     [AttentionPattern::queries(["line"]).attend_to(["line"]).window(2, 0)],
    /// )?;
    /// assert_eq!(plan.to_dense_mask()?, [1, 0, 0, 0, /**/ 1, 1, 0, 0, /**/ 1, 1, 1, 0, /**/ 0, 1, 1, 1]);
    /// # Ok::<(), candle_mixed_attention::PlanError>(())
    /// ```
    pub fn window(mut self, left: usize, right: usize) -> Self {
        self.window = self.window.narrowed(Some(left), Some(right));
        self
    }
}
