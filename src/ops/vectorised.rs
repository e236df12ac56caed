//! Plain loops, compiled for several instruction sets, of which the best that the machine has is chosen at run time.

use pulp::NullaryFnOnce;

/// Runs a loop as it is compiled for the machine. WebAssembly has no choice, and a module that held loops for instructions
/// beyond those it is compiled for would be refused where they are missing.
#[inline(always)]
pub(super) fn vectorised<L: NullaryFnOnce>(run: L) -> L::Output {
    #[cfg(target_family = "wasm")]
    return run.call();
    #[cfg(not(target_family = "wasm"))]
    pulp::Arch::new().dispatch(run)
}

/// `a · b + c`, rounded once where that is one instruction. WebAssembly would call a function for it.
#[inline(always)]
pub(super) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_family = "wasm") { a * b + c } else { a.mul_add(b, c) }
}
