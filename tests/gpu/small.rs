//! Small calls, one feature after the other: what a first run on a GPU looks at, and what a memory checker gets through.

use anyhow::Result;
use candle_core::{DType, Device};

use crate::Test;
use crate::problem::{Features, PLAIN, Problem, SPLIT};

/// From the simplest.
pub const TESTS: [(&str, Test); 8] = [
    ("small::whole_tiles", |device| each(device, &[WHOLE])),
    ("small::padded_channels", |device| each(device, &[with_head_dim(40), with_head_dim(72)])),
    ("small::a_rest_of_keys", |device| each(device, &[PLAIN])),
    ("small::hidden_keys", |device| each(device, &[Features { padding: true, ..PLAIN }])),
    ("small::split_keys", |device| each(device, &[Features { rope: false, ..SPLIT }])),
    ("small::rotated_keys", |device| each(device, &[Features { rope: true, ..PLAIN }, SPLIT])),
    ("small::a_cache", |device| each(device, &[CACHED])),
    ("small::batches", |device| each(device, &BATCHES)),
];

/// Two tiles of queries and three of keys for every kernel for Hopper, and no rest.
const WHOLE: Features = Features { anchors: 384, queries: 0, ..PLAIN };

const CACHED: Features = Features { cached: 50, ..PLAIN };

/// With a cache of as many rows, with one that serves all of them, and with everything at once.
const BATCHES: [Features; 3] = [
    Features { batch: 2, ..CACHED },
    Features { batch: 2, broadcast: true, ..CACHED },
    Features { batch: 2, broadcast: true, rope: true, padding: true, general: true, ..CACHED },
];

const fn with_head_dim(head_dim: usize) -> Features {
    Features { anchors: 384, queries: 0, head_dim, ..PLAIN }
}

/// In f32, which has no kernel for Hopper, first.
fn each(device: &Device, calls: &[Features]) -> Result<()> {
    for (seed, &features) in (1..).zip(calls) {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            Problem::new(features, seed)?.check(device, dtype)?;
        }
    }
    Ok(())
}
