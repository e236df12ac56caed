//! Ours and its peers on one workload: checked against the reference, then timed by criterion and by CPU time.

use std::cell::{Cell, LazyCell};
use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Result, Tensor};
use criterion::{Criterion, Throughput};
use rayon::ThreadPool;

use crate::clock::{Clock, Spent};
use crate::peak;

/// One way to compute a workload.
pub struct Contestant<'a> {
    pub name: &'static str,
    /// How far it may be from the reference, for numbers up to 1; further in proportion for larger ones.
    pub tolerance: f32,
    pub run: &'a (dyn Fn() -> Result<Tensor> + Sync),
}

/// One workload on so many threads.
pub struct Contest<'a, F> {
    /// `core/f32/1 thread/W1 self`
    pub title: String,
    pub dtype: DType,
    pub threads: usize,
    /// Of so many threads.
    pub pool: &'a ThreadPool,
    /// Of the two products over visible pairs.
    pub flops: u64,
    /// What all must agree with; computed if any of them is run.
    pub reference: &'a LazyCell<Tensor, F>,
}

impl<F: FnOnce() -> Tensor> Contest<'_, F> {
    /// Times all and prints a line for each: time, GFLOP/s per core, and how many times the first one's time.
    pub fn run(&self, criterion: &mut Criterion, contestants: &[Contestant<'_>]) {
        let mut group = criterion.benchmark_group(&self.title);
        group.throughput(Throughput::Elements(self.flops)).sample_size(10);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1500));
        let (mut first, mut peak) = (None, None);
        for contestant in contestants {
            let mut best = Spent::MAX;
            let checked = Cell::new(false);
            group.bench_function(contestant.name, |bencher| {
                if !checked.replace(true) {
                    contestant.check(&self.title, self.reference);
                }
                bencher.iter_custom(|iterations| {
                    let (spent, shortest) = self.pool.install(|| contestant.time(iterations));
                    best = best.min(shortest);
                    spent
                });
            });
            if checked.get() {
                let (cpu, wall) = (best.cpu.as_secs_f64(), best.wall.as_secs_f64());
                // The clock of the process lags behind threads that run, by more than a short run takes.
                let busy = if self.threads == 1 { cpu } else { wall * self.threads as f64 };
                let gflops = self.flops as f64 / busy / 1e9;
                let peak = *peak.get_or_insert_with(|| peak::gflops_per_core(self.dtype, best.cpu));
                println!(
                    "{} | {:18} | CPU {:9.3} ms, wall {:9.3} ms | {gflops:5.1} GFLOP/s per core, {:3.0} % of {:.0} | {:5.2} × {}",
                    self.title,
                    contestant.name,
                    cpu * 1e3,
                    wall * 1e3,
                    100.0 * gflops / peak,
                    peak,
                    busy / *first.get_or_insert(busy),
                    contestants[0].name,
                );
            }
        }
        group.finish();
    }
}

impl Contestant<'_> {
    fn compute(&self) -> Tensor {
        (self.run)().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Stops the benchmark if the result is wrong: a fast wrong answer is worth nothing.
    fn check(&self, title: &str, want: &Tensor) {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let got = self.compute();
        assert_eq!(got.dims(), want.dims(), "{title}, {}", self.name);
        let (got, want) = (wide(&got).expect("numbers"), wide(want).expect("numbers"));
        for (got, want) in got.iter().zip(&want) {
            // A NaN is not below the tolerance.
            let allowed = self.tolerance * want.abs().max(1.0);
            assert!((got - want).abs() <= allowed, "{title}, {}: {got}, expected {want}", self.name);
        }
    }

    /// The time of all iterations, and the shortest of each clock.
    fn time(&self, iterations: u64) -> (Duration, Spent) {
        let (mut total, mut shortest) = (Duration::ZERO, Spent::MAX);
        for _ in 0..iterations {
            let clock = Clock::start();
            black_box(self.compute());
            let spent = clock.elapsed();
            total += spent.wall;
            shortest = shortest.min(spent);
        }
        (total, shortest)
    }
}
