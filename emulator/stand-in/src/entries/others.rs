//! Functions that a program links to and none of the tests calls: they say that they are not supported.

use crate::failure::Failure;

macro_rules! unsupported {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the name in a header")]
            extern "C" fn $name() -> u32 {
                crate::driver::call(stringify!($name), |_| Err(Failure::NOT_SUPPORTED))
            }
        )*
    };
}

unsupported! {
    cuCtxDestroy_v2 cuModuleLoad
}
