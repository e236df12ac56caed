//! Where each group lies in a cache.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::PlanError;

/// One group of a [`CacheLayout`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CachedGroup {
    /// Name of the group.
    pub name: String,
    /// First token in the cache.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
}

/// The groups of a cache, one after another along its token axis. Cheap to clone; clones are compared without a look at
/// the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLayout {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    groups: Vec<CachedGroup>,
    position: HashMap<String, usize>,
}

impl CacheLayout {
    /// Lays groups out one after another.
    ///
    /// # Errors
    /// Two groups of one name, or sizes that overflow.
    pub fn new<S: Into<String>>(groups: impl IntoIterator<Item = (S, usize)>) -> Result<Self, PlanError> {
        let mut inner = Inner { groups: Vec::new(), position: HashMap::new() };
        let mut start = 0usize;
        for (name, len) in groups {
            let name = name.into();
            if inner.position.insert(name.clone(), inner.groups.len()).is_some() {
                return Err(PlanError::DuplicateGroup { group: name });
            }
            let end = start.checked_add(len).ok_or_else(|| PlanError::TooManyTokens { group: name.clone() })?;
            inner.groups.push(CachedGroup { name, start, len });
            start = end;
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The groups in order.
    pub fn groups(&self) -> &[CachedGroup] {
        &self.inner.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&CachedGroup> {
        self.inner.position.get(name).map(|&position| &self.inner.groups[position])
    }

    /// Number of tokens of all groups.
    pub fn tokens(&self) -> usize {
        self.inner.groups.last().map_or(0, |group| group.start + group.len)
    }

    /// The names of the groups.
    pub fn names(&self) -> Vec<String> {
        self.inner.groups.iter().map(|group| group.name.clone()).collect()
    }
}
