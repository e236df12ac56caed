//! Wall time, and the CPU time of all threads, which other work on the machine disturbs less.

use std::time::{Duration, Instant};

/// Two readings of both clocks apart.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    pub wall: Duration,
    pub cpu: Duration,
}

impl Spent {
    /// What any run is shorter than.
    pub const MAX: Self = Self { wall: Duration::MAX, cpu: Duration::MAX };

    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Both clocks at one moment.
pub struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub fn elapsed(&self) -> Spent {
        Spent { wall: self.wall.elapsed(), cpu: cpu_time() - self.cpu }
    }
}

#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Without a clock of the process, wall time stands in: right for one thread on an idle machine.
#[cfg(not(unix))]
fn cpu_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
