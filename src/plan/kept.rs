//! What backends derive from a plan and keep with it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// One value per type, made on the first question: a plan holds what each backend keeps of it and names no backend.
#[derive(Default)]
pub(super) struct Kept {
    values: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Kept {
    /// The value of this type.
    pub(super) fn of<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        let value = lock(&self.values).entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        match value.downcast::<T>() {
            Ok(value) => value,
            Err(_) => unreachable!("the entry of a type holds a value of that type"),
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({})", lock(&self.values).len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Uploads(AtomicU32);

    #[test]
    fn each_type_has_one_value() {
        let kept = Kept::default();
        kept.of::<Uploads>().0.fetch_add(3, Relaxed);
        kept.of::<AtomicU32>().fetch_add(4, Relaxed);
        assert_eq!((kept.of::<Uploads>().0.load(Relaxed), kept.of::<AtomicU32>().load(Relaxed)), (3, 4));
    }
}
