//! Calls that must fail.

use std::fmt::Display;
use std::process::Command;

/// How every line of a backtrace that begins a frame looks: its number and a colon.
const FIRST_FRAME: &str = "   0: ";

/// The call fails, and the message holds each of these words, and no backtrace.
pub fn refused<T, E: Display>(case: &str, result: Result<T, E>, words: &[&str]) {
    match result.map_err(|error| error.to_string()) {
        Ok(_) => panic!("{case}: accepted"),
        Err(message) => {
            for word in words {
                assert!(message.contains(word), "{case}: no '{word}' in: {message}");
            }
            assert!(!message.contains(FIRST_FRAME), "{case}: a backtrace in: {message}");
        }
    }
}

/// Runs all tests of this binary but one once more, in a process whose environment asks for backtraces, which candle then
/// puts into the words of its errors.
pub fn again_with_backtraces(except: &str) {
    let mut command = Command::new(std::env::current_exe().expect("the path of the tests"));
    let output = command.args(["--skip", except]).env("RUST_BACKTRACE", "1").output().expect("the tests");
    let told = || String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", told());
    // The test below was among them.
    assert!(told().contains("candle_tells_backtraces ... ok"), "{}", told());
}

/// Else looking for backtraces would find none anywhere.
#[test]
fn candle_tells_backtraces() {
    use candle_core::{DType, Device, Tensor};
    let message =
        Tensor::zeros(6, DType::F32, &Device::Cpu).and_then(|six| six.reshape(5)).expect_err("no shape").to_string();
    let asked = std::env::var("RUST_BACKTRACE").is_ok_and(|asked| asked == "1");
    assert!(!asked || message.contains(FIRST_FRAME), "{message}");
}
