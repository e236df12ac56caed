//! What of the page is not its face: the network, and the points that it predicts.
//!
//! The page asks in JSON and gets a `.safetensors` file back, whose metadata `about` is JSON again:
//!
//! ```text
//! "colours"
//!     → viridis [256, 4], cool_warm [256, 4]
//! {"read": {"body": {"ellipsoid": {"semi_axes": [1.1, 0.6, 0.8], "vertices": [31, 64]}}, "alpha": 12, "beta": -7,
//!           "anchors": 256, "plane_points": 101}}
//!     → surface.corners [corners, 3], surface.triangles [triangles, 3], … and a list of the places
//! {"step": {"points": 4096}}
//!     → pressure [points], velocity [points, 3], … of some points of one place; the errors so far
//! ```
//!
//! Warnings go to standard error, as those of the program do, whose words they are. Files that are dropped on the page lie
//! where the page says.

mod answer;
mod question;
mod session;

use std::cell::RefCell;
use std::path::PathBuf;

use session::Session;

/// Where the page keeps files that the network is read from; it makes the folder.
const NETWORK_FOLDER: &str = "/network";

thread_local! {
    /// The page's session, its question and the answer.
    static PAGE: RefCell<Page> = RefCell::new(Page {
        session: Session::new(PathBuf::from(NETWORK_FOLDER)),
        question: Vec::new(),
        answer: Vec::new(),
    });
}

struct Page {
    session: Session,
    question: Vec<u8>,
    answer: Vec<u8>,
}

fn with_page<T>(act: impl FnOnce(&mut Page) -> T) -> T {
    PAGE.with_borrow_mut(act)
}

#[cfg(target_family = "wasm")]
unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Starts the program, once; the linker would let every other function do so.
#[cfg(target_family = "wasm")]
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    // SAFETY: the linker makes this function of the constructors of the module, of which there are none that need more than
    // the module itself.
    unsafe { __wasm_call_ctors() }
}

/// Room for a question of so many bytes, until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn room_for_question(length: usize) -> *mut u8 {
    with_page(|page| {
        page.question.clear();
        page.question.resize(length, 0);
        page.question.as_mut_ptr()
    })
}

/// Answers the question that was written; the number of bytes of the answer.
#[unsafe(no_mangle)]
pub extern "C" fn ask() -> usize {
    with_page(|page| {
        page.answer = page.session.answer(&page.question);
        page.answer.len()
    })
}

/// Where the answer is, until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    with_page(|page| page.answer.as_ptr())
}
