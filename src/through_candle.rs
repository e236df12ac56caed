//! Errors of this crate on their way through candle, and out again.
//!
//! candle takes any error but keeps only that it can be displayed. So an error is wrapped in [`Carried`], which hands it over
//! when it is displayed while [`downcast`] asks for it.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::{self, Display, Write};
use std::sync::Arc;

use candle_core::Error;

/// An error inside of one of candle's.
struct Carried<E>(Arc<E>);

/// A [`Carried`] error that was displayed while somebody asked: its address, and what it carries.
type Handed = (*const (), Arc<dyn Any + Send + Sync>);

thread_local! {
    /// Where a carried error puts itself while somebody asks for it.
    static ASKED: RefCell<Option<Vec<Handed>>> = const { RefCell::new(None) };
}

impl<E: Display + Send + Sync + 'static> Display for Carried<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hand_over = |asked: &mut Option<Vec<Handed>>| {
            let handed = asked.as_mut()?;
            handed.push((std::ptr::from_ref(self).cast(), self.0.clone()));
            Some(())
        };
        match ASKED.with_borrow_mut(hand_over) {
            Some(()) => Ok(()),
            None => self.0.fmt(f),
        }
    }
}

/// Takes no text.
struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// The error as one of candle's, which displays like it and nothing more.
pub(crate) fn carry<E: Display + Send + Sync + 'static>(error: E) -> Error {
    without_backtrace(Error::wrap(Carried(Arc::new(error))))
}

/// The error that [`carry`] put into this one; the same error again if it holds no such thing.
pub(crate) fn downcast<E: Display + Send + Sync + 'static>(error: Error) -> Result<E, Error> {
    let Some(found) = carried(&error).and_then(|carried| carried.downcast::<E>().ok()) else { return Err(error) };
    drop(error);
    // Somebody else may hold it only if they keep what they were handed, which nobody does.
    Arc::try_unwrap(found).map_err(|shared| Error::wrap(Carried(shared)))
}

/// What an error of candle carries itself, not something inside of what it carries.
fn carried(error: &Error) -> Option<Arc<dyn Any + Send + Sync>> {
    match error {
        Error::WithBacktrace { inner, .. } => carried(inner),
        Error::Wrapped(wrapped) => {
            ASKED.set(Some(Vec::new()));
            // A display that fails has handed nothing over.
            let _ = write!(Nowhere, "{wrapped}");
            let handed = ASKED.take()?;
            let address: *const () = std::ptr::from_ref(&**wrapped).cast();
            handed.into_iter().find(|(place, _)| *place == address).map(|(_, error)| error)
        }
        _ => None,
    }
}

/// An error without the backtrace that candle prints behind its message where the environment asks for one.
pub(crate) fn without_backtrace(error: Error) -> Error {
    match error {
        Error::WithBacktrace { inner, .. } => without_backtrace(*inner),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Ours(u32);

    impl Display for Ours {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "ours {}", self.0)
        }
    }

    #[test]
    fn what_was_carried_comes_out() {
        assert_eq!(without_backtrace(carry(Ours(7))).to_string(), "ours 7");
        assert_eq!(downcast::<Ours>(carry(Ours(7))).unwrap(), Ours(7));
        let traced = Error::WithBacktrace {
            inner: Box::new(without_backtrace(carry(Ours(8)))),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(downcast::<Ours>(traced).unwrap(), Ours(8));
    }

    #[test]
    fn anything_else_comes_back_as_it_was() {
        let message = |error: Error| without_backtrace(downcast::<Ours>(error).unwrap_err()).to_string();
        assert_eq!(message(carry("another type")), "another type");
        assert_eq!(message(Error::wrap("not carried")), "not carried");
        assert_eq!(message(Error::Msg("candle's own".to_string())), "candle's own");
        // With what was said around it, an error is more than what it carries.
        assert_eq!(message(without_backtrace(carry(Ours(1))).context("while reading")), "while reading\nours 1");
        assert_eq!(message(Error::wrap(without_backtrace(carry(Ours(2))))), "ours 2");
    }
}
