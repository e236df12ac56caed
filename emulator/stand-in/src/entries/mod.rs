//! The functions of the driver's interface that candle and this crate call, and the others that a program links to.

mod context;
mod event;
mod graph;
mod memory;
mod module;
mod others;
mod stream;

use crate::failure::{Failure, Outcome};

/// Functions of C that are counted and can be made to fail. What each does is told as in the driver's header.
macro_rules! entries {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:expr)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the name in the driver's header")]
            #[allow(unused_unsafe, reason = "some touch nothing of the caller's")]
            unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                // SAFETY: callers keep to the driver's header: what they point to is there, and nobody else uses it.
                $crate::driver::call(stringify!($name), |driver| unsafe {
                    let body: fn(&mut $crate::driver::Driver, $($type),*) -> $crate::failure::Outcome = $body;
                    body(driver, $($argument),*)
                })
            }
        )*
    };
}
pub(crate) use entries;

/// Writes a result where the caller wants it.
///
/// # Safety
/// The pointer is null, or valid for writes.
pub(crate) unsafe fn give<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(Failure::INVALID_VALUE);
    }
    // SAFETY: the caller vouches for it.
    unsafe { to.write(value) };
    Ok(())
}
