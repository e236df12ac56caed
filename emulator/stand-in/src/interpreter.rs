//! What runs PTX, for all devices.

use std::sync::OnceLock;

use emulator::{Compiler, Interpreter};

use crate::failure::{Failure, Outcome};

/// The one interpreter, compiled on the first call.
pub(crate) fn interpreter() -> Outcome<&'static Interpreter> {
    static INTERPRETER: OnceLock<Option<Interpreter>> = OnceLock::new();
    let make = || {
        let made = Compiler::find().map_err(anyhow::Error::msg).and_then(|compiler| Interpreter::new(&compiler));
        made.inspect_err(|error| eprintln!("there is no interpreter of PTX: {error:#}")).ok()
    };
    INTERPRETER.get_or_init(make).as_ref().ok_or(Failure::NOT_SUPPORTED)
}
