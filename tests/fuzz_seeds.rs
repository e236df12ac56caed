//! Every reader of the library on its seeds and on changes of them: no panic, no hang, and no more memory than a multiple of
//! the input. `FUZZ_SECONDS=120 cargo test --release --test fuzz_seeds` gives each two minutes; `fuzz/README.md` says more.

#[path = "../fuzz/src/counting.rs"]
mod counting;
#[path = "../fuzz/src/readers.rs"]
mod readers;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

#[test]
fn no_input_stops_a_reader() {
    for (name, read) in readers::READERS {
        seeds::check(name, read);
    }
}
