//! Former names, kept for one version.
//!
//! `forward_with_cache` returned a cache and `forward_cached` took one, which nobody could tell by their names.

use candle_core::{Result, Tensor};

use crate::attention::options::AttentionOptions;
use crate::cache::KvCache;
use crate::models::ab_upt::{AbUpt, AbUptCache, Fields};
use crate::modules::{AnchorAttention, MixedAttention, domain_of};
use crate::plan::{AttentionPlan, TokenSpec};

/// The former name of [`domain_of`].
#[deprecated(since = "0.1.0", note = "it is called `domain_of`")]
pub fn branch_of<'a, S: AsRef<str>>(group: &str, domains: &'a [S]) -> Option<&'a str> {
    domain_of(group, domains)
}

impl MixedAttention {
    /// The former name of [`forward_and_cache`](Self::forward_and_cache).
    ///
    /// # Errors
    /// As there.
    #[deprecated(since = "0.1.0", note = "it is called `forward_and_cache`")]
    pub fn forward_with_cache(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        options: &AttentionOptions,
    ) -> Result<(Tensor, KvCache)> {
        self.forward_and_cache(x, plan, options)
    }

    /// The former name of [`forward_from_cache`](Self::forward_from_cache).
    ///
    /// # Errors
    /// As there.
    #[deprecated(since = "0.1.0", note = "it is called `forward_from_cache`")]
    pub fn forward_cached(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        cache: &KvCache,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.forward_from_cache(x, plan, cache, options)
    }
}

impl AnchorAttention {
    /// The former name of [`forward_and_cache`](Self::forward_and_cache).
    ///
    /// # Errors
    /// As there.
    #[deprecated(since = "0.1.0", note = "it is called `forward_and_cache`")]
    pub fn forward_with_cache(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        options: &AttentionOptions,
    ) -> Result<(Tensor, KvCache)> {
        self.forward_and_cache(x, tokens, options)
    }

    /// The former name of [`forward_from_cache`](Self::forward_from_cache).
    ///
    /// # Errors
    /// As there.
    #[deprecated(since = "0.1.0", note = "it is called `forward_from_cache`")]
    pub fn forward_cached(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        cache: &KvCache,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.forward_from_cache(x, tokens, cache, options)
    }
}

impl AbUpt {
    /// The former name of [`forward_from_cache`](Self::forward_from_cache).
    ///
    /// # Errors
    /// As there.
    #[deprecated(since = "0.1.0", note = "it is called `forward_from_cache`")]
    pub fn forward_cached<S: Into<String>>(
        &self,
        queries: impl IntoIterator<Item = (S, Tensor)>,
        cache: &AbUptCache,
    ) -> Result<Fields> {
        self.forward_from_cache(queries, cache)
    }
}
