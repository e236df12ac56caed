//! What calls of the driver return.

use std::ffi::CStr;

/// A `CUresult` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub u32);

/// What the body of a call returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

macro_rules! failures {
    ($($constant:ident = $number:literal $name:literal,)*) => {
        impl Failure {
            $(pub(crate) const $constant: Self = Self($number);)*
        }

        /// The name of a code in the driver's header.
        pub(crate) fn name(code: u32) -> &'static CStr {
            match code {
                0 => c"CUDA_SUCCESS",
                $($number => $name,)*
                _ => c"CUDA_ERROR_UNKNOWN",
            }
        }
    };
}

failures! {
    INVALID_VALUE = 1 c"CUDA_ERROR_INVALID_VALUE",
    OUT_OF_MEMORY = 2 c"CUDA_ERROR_OUT_OF_MEMORY",
    INVALID_DEVICE = 101 c"CUDA_ERROR_INVALID_DEVICE",
    INVALID_CONTEXT = 201 c"CUDA_ERROR_INVALID_CONTEXT",
    INVALID_PTX = 218 c"CUDA_ERROR_INVALID_PTX",
    NO_BINARY_FOR_GPU = 209 c"CUDA_ERROR_NO_BINARY_FOR_GPU",
    INVALID_HANDLE = 400 c"CUDA_ERROR_INVALID_HANDLE",
    NOT_FOUND = 500 c"CUDA_ERROR_NOT_FOUND",
    NOT_READY = 600 c"CUDA_ERROR_NOT_READY",
    ILLEGAL_ADDRESS = 700 c"CUDA_ERROR_ILLEGAL_ADDRESS",
    LAUNCH_FAILED = 719 c"CUDA_ERROR_LAUNCH_FAILED",
    NOT_SUPPORTED = 801 c"CUDA_ERROR_NOT_SUPPORTED",
    STREAM_CAPTURE_UNSUPPORTED = 900 c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
    STREAM_CAPTURE_INVALIDATED = 901 c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
    STREAM_CAPTURE_ISOLATION = 905 c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
    CAPTURED_EVENT = 907 c"CUDA_ERROR_CAPTURED_EVENT",
    ILLEGAL_STATE = 401 c"CUDA_ERROR_ILLEGAL_STATE",
}
