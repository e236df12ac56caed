//! Blocks of rows on the thread pool, written into memory that nobody has touched before.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers of a block: a MiB, so that what is computed in several steps stays in a second-level cache, and a weight that is
/// packed for a block is used for many rows.
const BLOCK: usize = 1 << 18;

/// Below this many operations everything runs on the calling thread: waking another one takes longer.
const SEQUENTIAL_BELOW: usize = 1 << 21;

/// Makes `rows` rows of `width` numbers. `fill` writes the rows of one block, given its first row; `operations` is what a
/// row costs.
///
/// # Safety
/// `fill` writes every number of the block that it gets.
pub(super) unsafe fn make_rows<T: Send>(
    rows: usize,
    width: usize,
    operations: usize,
    fill: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync,
) -> Vec<T> {
    let mut output: Vec<T> = Vec::with_capacity(rows * width);
    if rows * width > 0 {
        let numbers = &mut output.spare_capacity_mut()[..rows * width];
        let sequential = rows.saturating_mul(operations) < SEQUENTIAL_BELOW;
        let threads = if sequential { 1 } else { rayon::current_num_threads() };
        let block = block_rows(rows, width, threads);
        let fill = |(index, block_numbers): (usize, &mut [MaybeUninit<T>])| fill(index * block, block_numbers);
        if threads == 1 {
            numbers.chunks_mut(block * width).enumerate().for_each(fill);
        } else {
            numbers.par_chunks_mut(block * width).enumerate().for_each(fill);
        }
    }
    // SAFETY: the chunks cover all numbers, and the caller vouches that each is written.
    unsafe { output.set_len(rows * width) };
    output
}

/// Rows of a block: at most [`BLOCK`] numbers, and equally many blocks for every thread.
fn block_rows(rows: usize, width: usize, threads: usize) -> usize {
    let largest = (BLOCK / width).max(1);
    let rounds = rows.div_ceil(threads * largest);
    rows.div_ceil(threads * rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_written_once_wherever_blocks_end() {
        for (rows, width, operations) in [(0, 5, 1), (5, 0, 1), (1, 1, 1), (1000, 7, 1 << 20), (3001, 129, 1 << 20)] {
            let fill = |first: usize, block: &mut [MaybeUninit<f32>]| {
                for (row, numbers) in block.chunks_mut(width).enumerate() {
                    for (column, number) in numbers.iter_mut().enumerate() {
                        number.write(((first + row) * width + column) as f32);
                    }
                }
            };
            // SAFETY: all numbers of the block are written.
            let got = unsafe { make_rows(rows, width, operations, fill) };
            assert_eq!(got, (0..rows * width).map(|i| i as f32).collect::<Vec<_>>());
        }
    }
}
