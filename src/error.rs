//! The errors of this crate. Each names the argument or group, what was expected and what came.
//!
//! All of them convert into [`candle_core::Error`], so that `?` works inside a candle `forward`, and come out of it again by
//! [`AttentionError::downcast`].

use std::fmt::Display;

use candle_core::{DType, Device, DeviceLocation};
use thiserror::Error;

use crate::through_candle::{carry, downcast};

/// Why token specs and patterns do not make an [`AttentionPlan`](crate::AttentionPlan).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no token group at all.
    #[error("a plan needs at least one token group, got none")]
    NoGroups,
    /// Two token specs have the same name.
    #[error("token group '{group}' is defined twice; group names must be unique")]
    DuplicateGroup {
        /// The name.
        group: String,
    },
    /// The sizes of the groups overflow the address space.
    #[error("the sizes of the token groups add up to more than {limit} tokens at group '{group}'", limit = usize::MAX)]
    TooManyTokens {
        /// The group whose size made the sum overflow.
        group: String,
    },
    /// The patterns make more pairs than can be counted.
    #[error("the patterns make more than {limit} pairs of a query and a key", limit = u64::MAX)]
    TooManyPairs,
    /// A pattern with a window counts places, and there are too many.
    #[error(
        "pattern {pattern} has a window and names groups of more than {limit} tokens, which is all that it can count"
    )]
    TooManyTokensForWindow {
        /// Position of the pattern in the list.
        pattern: usize,
        /// Most tokens.
        limit: usize,
    },
    /// In a later pass, the groups of a pattern with a window would come to stand elsewhere.
    #[error(
        "a pattern with a window sees other keys if its groups change places: they stand in the order {before:?}, and in \
         the later pass, whose cached groups come first, they would stand as {after:?}; expected groups that are side by \
         side in the first, in the same order"
    )]
    PlacesChange {
        /// The groups that the pattern names, in the order of their places.
        before: Vec<String>,
        /// Those that it would name in the later pass.
        after: Vec<String>,
    },
    /// A dense mask does not fit into memory.
    #[error("a dense mask of {queries} queries and {keys} keys does not fit into memory")]
    DenseMask {
        /// Rows of the mask.
        queries: usize,
        /// Columns of the mask.
        keys: usize,
    },
    /// A call names a group that the plan does not have.
    #[error("the plan has no such group '{group}'; expected one of {known:?}")]
    NoSuchGroup {
        /// The unknown name.
        group: String,
        /// The names that would do.
        known: Vec<String>,
    },
    /// A pattern names a group that no token spec defines.
    #[error("pattern {pattern} names group '{group}' among its {role}, but the token groups are {known:?}")]
    UnknownGroup {
        /// Position of the pattern in the list.
        pattern: usize,
        /// The unknown name.
        group: String,
        /// `"query_tokens"` or `"key_value_tokens"`.
        role: &'static str,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A group is query more than once.
    #[error(
        "group '{group}' is query in pattern {first} and again in pattern {second}; each input group is query of \
         exactly one pattern"
    )]
    DuplicateQuery {
        /// The group.
        group: String,
        /// The pattern that named it first.
        first: usize,
        /// The pattern that named it again (equal to `first` when one list names it twice).
        second: usize,
    },
    /// An input group is query of no pattern.
    #[error("input group '{group}' ({size} tokens) is query of no pattern; each input group is query of exactly one")]
    GroupWithoutPattern {
        /// The group.
        group: String,
        /// Its size.
        size: usize,
    },
    /// A pattern has an empty list.
    #[error("pattern {pattern} has no {role}; expected at least one group name")]
    EmptyPattern {
        /// Position of the pattern in the list.
        pattern: usize,
        /// `"query_tokens"` or `"key_value_tokens"`.
        role: &'static str,
    },
    /// The number of keys of a cached group is not known before a cache is given.
    #[error(
        "group '{group}' is cached and its size is not known from the plan alone; call \
         `AttentionPlan::with_cache_layout` with the layout of the cache first"
    )]
    CachedSizeUnknown {
        /// The cached group.
        group: String,
    },
    /// A cached group is not in the cache.
    #[error("cached group '{group}' is not in the cache, which holds {cached:?}")]
    NotInCache {
        /// The group.
        group: String,
        /// The groups that the cache holds.
        cached: Vec<String>,
    },
    /// A plan made by [`AttentionPlan::with_cached`](crate::AttentionPlan::with_cached) meets a cache whose group has
    /// another size.
    #[error("group '{group}' has {expected} tokens in the plan that filled the cache, but the cache holds {got}")]
    CachedSizeMismatch {
        /// The group.
        group: String,
        /// Its size in the first plan.
        expected: usize,
        /// Its size in the cache.
        got: usize,
    },
    /// The plan has cached groups but no cache came.
    #[error("groups {groups:?} have no size, so their keys and values come from a cache, but no cache was given")]
    CacheMissing {
        /// The cached groups of the plan.
        groups: Vec<String>,
    },
    /// A cache came but no group of the plan is cached.
    #[error(
        "a cache holding {cached:?} was given, but every group of the plan has a size, so it would be ignored; give the \
         groups to take from the cache no size"
    )]
    CacheUnused {
        /// The groups that the cache holds.
        cached: Vec<String>,
    },
    /// A derived plan would need keys that are neither cached nor in the input.
    #[error(
        "queries '{query}' attend to group '{group}', which is neither among the cached groups {cached:?} nor in the \
         input of this step"
    )]
    KeysMissing {
        /// The query group.
        query: String,
        /// The key group.
        group: String,
        /// The cached groups of the step.
        cached: Vec<String>,
    },
    /// A later pass has nobody who asks.
    #[error("a later pass past the cached groups {cached:?} needs at least one group of queries, got none")]
    NoQueries {
        /// The cached groups.
        cached: Vec<String>,
    },
    /// An anchor-attention setup is not usable.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
}

/// Why domains and tokens do not make an anchor-attention plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// No domain was named.
    #[error("anchor attention needs at least one domain, got none")]
    NoDomains,
    /// Two domains have the same name.
    #[error("domain '{domain}' is named twice")]
    DuplicateDomain {
        /// The domain.
        domain: String,
    },
    /// Cross and joint attention need a second domain.
    #[error("{kind} anchor attention needs at least two domains, got {got:?}; with one, use self attention")]
    TooFewDomains {
        /// `"cross"` or `"joint"`.
        kind: &'static str,
        /// The domains.
        got: Vec<String>,
    },
    /// A token group belongs to no domain.
    #[error("group '{group}' belongs to no domain: its name starts with none of {domains:?} followed by '_'")]
    UnknownDomain {
        /// The group.
        group: String,
        /// The configured domains.
        domains: Vec<String>,
    },
    /// A domain has no token group.
    #[error("domain '{domain}' has no token group; the groups are {groups:?}")]
    DomainWithoutTokens {
        /// The domain.
        domain: String,
        /// The groups that came.
        groups: Vec<String>,
    },
    /// A domain has no anchor group.
    #[error("domain '{domain}' lacks its anchor group '{anchors}'; the groups are {groups:?}")]
    MissingAnchors {
        /// The domain.
        domain: String,
        /// The expected name of its anchor group.
        anchors: String,
        /// The groups that came.
        groups: Vec<String>,
    },
}

/// Why a call does not fit its plan, its layer or its device.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// The plan itself, or the plan together with a cache.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A tensor has another shape than the call needs.
    #[error("{argument} must have shape {expected}, got {got:?}")]
    Shape {
        /// The argument.
        argument: &'static str,
        /// The shape that was expected, with the names of its axes.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// The token axis does not match the groups.
    #[error("{argument} has {got} tokens, expected {expected}: {groups}")]
    TokenCount {
        /// The argument.
        argument: &'static str,
        /// Tokens of the groups.
        expected: usize,
        /// Tokens of the argument.
        got: usize,
        /// The groups with their sizes.
        groups: String,
    },
    /// A tensor has another batch size than the input and cannot be broadcast.
    #[error("{argument} has batch size {got}, but the input has {expected}; expected {expected} or 1")]
    Batch {
        /// The argument.
        argument: &'static str,
        /// Batch size of the input.
        expected: usize,
        /// Batch size of the argument.
        got: usize,
    },
    /// A tensor has another dtype than it must have.
    #[error("{argument} has dtype {got:?}, expected {expected}")]
    DType {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// The dtype that came.
        got: DType,
    },
    /// A tensor lives on another device than the rest.
    #[error("{argument} is on {got:?}, expected {expected:?}{}", opened_twice(expected, got))]
    Device {
        /// The argument.
        argument: &'static str,
        /// Device of the rest.
        expected: DeviceLocation,
        /// Device of the argument.
        got: DeviceLocation,
    },
    /// A number is out of its range.
    #[error("{argument} must be {expected}, got {got}")]
    Value {
        /// The argument.
        argument: &'static str,
        /// The range.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// The layer rotates its queries and keys, but no RoPE frequencies came.
    #[error("the layer has use_rope = true, but no RoPE frequencies were given for {argument}")]
    RopeMissing {
        /// What the frequencies are for.
        argument: &'static str,
    },
    /// RoPE frequencies came for a layer that does not rotate.
    #[error("RoPE frequencies were given for {argument}, but the layer has use_rope = false")]
    RopeUnexpected {
        /// What the frequencies are for.
        argument: &'static str,
    },
    /// A padding mask came together with a cache, and no input token is a key.
    #[error(
        "key_padding covers the input tokens, but all keys of this plan come from the cache, so the mask would be \
         ignored; a cache carries the padding of its own tokens"
    )]
    PaddingWithoutKeys,
    /// A bias of input tokens came, and none of them is a key.
    #[error(
        "key_bias covers the input tokens, but all keys of this plan come from the cache, so it would be ignored; a cache \
         carries the bias of its own tokens"
    )]
    BiasWithoutKeys,
    /// A cache was made by another layer.
    #[error("the cache does not fit: {what} is {got} in the cache and {expected} in this layer")]
    CacheMismatch {
        /// What differs.
        what: &'static str,
        /// The value in the layer.
        expected: String,
        /// The value in the cache.
        got: String,
    },
    /// A file holds a layer's projections neither apart nor in one.
    #[error("the weights hold neither '{separate}' nor '{fused}', which holds {names:?} one under the other")]
    ProjectionMissing {
        /// Name of the first of the separate weights.
        separate: String,
        /// Name of the weight that may hold all of them.
        fused: String,
        /// The projections.
        names: Vec<String>,
    },
    /// A cache file cannot be read.
    #[error("'{path}' is not a KV cache of this crate: {reason}")]
    CacheFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `Backend::Fused` was asked for where it does not run.
    #[error("the fused backend cannot run here: {0}")]
    Unsupported(#[from] Unsupported),
}

impl AttentionError {
    /// [`Shape`](Self::Shape): `got` are the dims that came.
    pub(crate) fn shape(argument: &'static str, expected: impl Into<String>, got: &[usize]) -> Self {
        Self::Shape { argument, expected: expected.into(), got: got.to_vec() }
    }

    /// [`TokenCount`](Self::TokenCount): `groups` are those that make up the expected number.
    pub(crate) fn token_count(argument: &'static str, expected: usize, got: usize, groups: impl Into<String>) -> Self {
        Self::TokenCount { argument, expected, got, groups: groups.into() }
    }

    /// [`DType`](Self::DType).
    pub(crate) fn dtype(argument: &'static str, expected: impl Into<String>, got: DType) -> Self {
        Self::DType { argument, expected: expected.into(), got }
    }

    /// [`Device`](Self::Device).
    pub(crate) fn device(argument: &'static str, expected: &Device, got: &Device) -> Self {
        Self::Device { argument, expected: expected.location(), got: got.location() }
    }

    /// [`Value`](Self::Value).
    pub(crate) fn value(argument: &'static str, expected: impl Into<String>, got: impl Display) -> Self {
        Self::Value { argument, expected: expected.into(), got: got.to_string() }
    }
}

/// What else there is to say of devices that are not the same.
fn opened_twice(expected: &DeviceLocation, got: &DeviceLocation) -> &'static str {
    if expected == got { " as the same `Device`: of one GPU, only clones of a `Device` are" } else { "" }
}

/// Why the fused backend does not serve a device, dtype and head_dim.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// No fused kernel for this dtype.
    #[error("no fused kernel for dtype {dtype:?} on {device:?}; it takes f32, f16 and bf16")]
    DType {
        /// The dtype.
        dtype: DType,
        /// The device.
        device: DeviceLocation,
    },
    /// No fused kernel for this head_dim.
    #[error("no fused kernel for head_dim {head_dim} on {device:?}; it takes {expected}")]
    HeadDim {
        /// The head_dim.
        head_dim: usize,
        /// The head_dims that work.
        expected: &'static str,
        /// The device.
        device: DeviceLocation,
    },
    /// No fused kernels for this device.
    #[error("no fused kernel for {device:?}: {reason}")]
    Device {
        /// The device.
        device: DeviceLocation,
        /// Why not.
        reason: String,
    },
    /// A gradient would be lost.
    #[error(
        "{argument} is part of a gradient computation, which the fused kernel cannot follow; use Backend::Auto or \
         Backend::Reference"
    )]
    Gradient {
        /// The argument.
        argument: &'static str,
    },
}

impl AttentionError {
    /// The error of this crate inside of one of candle's, as [`MixedAttention`](crate::MixedAttention) and the other layers
    /// return it; the same error again if it is candle's own.
    ///
    /// ```
    /// use candle_mixed_attention::{AttentionError, KeyPadding};
    ///
    /// let error = KeyPadding::from_lengths(&[5, 9], 7).unwrap_err();
    /// let error = AttentionError::downcast(error)?;
    /// assert!(matches!(error, AttentionError::Value { argument: "key_padding length", .. }));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// An error that is not of this type, as it was.
    pub fn downcast(error: candle_core::Error) -> Result<Self, candle_core::Error> {
        downcast(error)
    }
}

impl From<AnchorError> for AttentionError {
    fn from(error: AnchorError) -> Self {
        PlanError::from(error).into()
    }
}

/// Inside of candle's, all errors of attention are [`AttentionError`]s.
macro_rules! into_candle {
    ($($error:ty),*) => {$(
        impl From<$error> for candle_core::Error {
            fn from(error: $error) -> Self {
                carry(AttentionError::from(error))
            }
        }
    )*};
}

into_candle!(PlanError, AnchorError, AttentionError, Unsupported);
