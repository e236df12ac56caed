//! Values that are costly to make and asked for again and again: the last few are kept.

use std::fmt;
use std::sync::Mutex;

use crate::lock::lock;

/// The `MOST` values that were asked for last, each made from its key.
///
/// Threads share it. A value is cheap to clone: an `Arc`, or something that holds one.
pub(crate) struct Recent<K, V, const MOST: usize> {
    /// The one that was asked for last at the end.
    known: Mutex<Vec<(K, V)>>,
}

impl<K, V, const MOST: usize> Default for Recent<K, V, MOST> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<K: Clone + PartialEq, V: Clone, const MOST: usize> Recent<K, V, MOST> {
    /// The value of a key, kept or made. While it is made nobody waits: threads that ask for the same value at a time may
    /// each make it, and all get the first.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some(value) = find(&mut lock(&self.known), key) {
            return Ok(value);
        }
        let value = make()?;
        let mut known = lock(&self.known);
        if let Some(earlier) = find(&mut known, key) {
            return Ok(earlier);
        }
        let forgotten = (known.len() == MOST).then(|| known.remove(0));
        known.push((key.clone(), value.clone()));
        drop(known);
        // Outside of the lock: an uploaded value may wait for its device.
        drop(forgotten);
        Ok(value)
    }
}

/// The value of a key, which moves to the end.
fn find<K: PartialEq, V: Clone>(known: &mut [(K, V)], key: &K) -> Option<V> {
    let place = known.iter().position(|(of, _)| of == key)?;
    known[place..].rotate_left(1);
    known.last().map(|(_, value)| value.clone())
}

impl<K, V, const MOST: usize> fmt::Debug for Recent<K, V, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({} of {MOST})", lock(&self.known).len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_value_of_longest_ago_is_forgotten_and_others_are_made_once() {
        let recent = Recent::<usize, usize, 3>::default();
        let made = Cell::new(0);
        let get = |key: usize| {
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, Infallible>(10 * key)
            };
            let value = recent.get(&key, make);
            assert_eq!(value, Ok(10 * key));
            made.get()
        };
        assert_eq!([0, 1, 2].map(get), [1, 2, 3]);
        assert_eq!([0, 1, 0].map(get), [3; 3]);
        // 2 was asked for longest ago.
        assert_eq!([3, 0, 1, 3].map(get), [4; 4]);
        assert_eq!(get(2), 5);
        assert_eq!(get(0), 6);
    }

    #[test]
    fn what_could_not_be_made_is_not_kept() {
        let recent = Recent::<(), (), 1>::default();
        assert_eq!(recent.get(&(), || Err("no device")), Err("no device"));
        assert_eq!(recent.get(&(), || Ok::<_, Infallible>(())), Ok(()));
    }

    #[test]
    fn of_two_that_make_the_same_value_the_first_is_kept() {
        let recent = Recent::<(), u32, 2>::default();
        let slow = recent.get(&(), || {
            let fast = recent.get(&(), || Ok::<_, Infallible>(1));
            assert_eq!(fast, Ok(1));
            Ok::<_, Infallible>(2)
        });
        assert_eq!(slow, Ok(1));
    }
}
