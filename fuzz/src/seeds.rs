//! Runs a reader over its seeds, and over changes of them that a number decides: what a stable compiler can do of fuzzing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::counting::most_bytes;

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 1 << 31, 1 << 62, i64::MAX as u64, u64::MAX];

/// The seeds of a reader, by their names.
fn of(reader: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This file is a part of several crates of the repository.
    let folder = folder.ancestors().map(|folder| folder.join("fuzz/seeds").join(reader)).find(|path| path.is_dir());
    let entries = std::fs::read_dir(folder.expect("a folder of seeds"))
        .expect("seeds")
        .map(|entry| entry.expect("a seed").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a seed"))).collect()
}

/// Bytes that any small input may cost; a network that its own description asks for is made of them.
const MOST_BYTES: usize = 512 << 20;

/// Bytes that each byte of input may cost on top.
const MOST_PER_BYTE: usize = 256;

/// What a small input may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// How long each reader is given: `FUZZ_SECONDS`, or one second.
fn time() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// Calls a reader with every seed, then with changed ones until the time is over.
pub(super) fn check(reader: &str, read: fn(&[u8])) {
    let seeds = of(reader);
    assert!(!seeds.is_empty(), "{reader} has no seeds");
    seeds.iter().for_each(|(_, seed)| check_one(reader, read, seed));
    let (start, mut round) = (Instant::now(), 0);
    while start.elapsed() < time() {
        let mut random = Random(round);
        let (_, seed) = &seeds[random.below(seeds.len())];
        check_one(reader, read, &changed(seed, &mut random));
        round += 1;
    }
    println!("{reader}: {} inputs", seeds.len() as u64 + round);
}

/// Calls a reader once, and looks at its time and its memory.
fn check_one(reader: &str, read: fn(&[u8]), bytes: &[u8]) {
    let input = || bytes[..bytes.len().min(2000)].escape_ascii();
    let start = Instant::now();
    let taken = most_bytes(|| read(bytes));
    let allowed = MOST_BYTES + MOST_PER_BYTE * bytes.len();
    assert!(taken <= allowed, "{reader} took {taken} bytes for {} bytes: {}", bytes.len(), input());
    assert!(start.elapsed() < LONGEST, "{reader} took {:?} for: {}", start.elapsed(), input());
}

/// SplitMix64: Steele, Lea and Flood, 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A few changes: bytes, edges in binary and as digits, pieces that are cut, doubled or moved.
fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below((bytes.len() - at).min(64) + 1);
        let edge = EDGES[random.below(EDGES.len())];
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                let place = random.below(bytes.len() + 1);
                bytes.splice(place..place, piece);
            }
            5 => drop(bytes.splice(at..end.min(at + 8), edge.to_le_bytes())),
            _ => {
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at..at + digits, edge.to_string().into_bytes());
            }
        }
    }
    bytes
}
