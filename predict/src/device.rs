//! Devices that predict, by their names on the command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use candle_mixed_attention::candle_core::Device;

use crate::launcher;

/// Networks on the CPU at most; more than its cores are of no use.
const MOST_ON_CPU: usize = 256;

/// One or more devices of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    /// So many networks on the CPU, which share its threads.
    Cpu(usize),
    /// CUDA devices by their indices, or the one that is this process's among those of a host.
    Cuda(Option<Vec<usize>>),
    Metal,
}

impl Devices {
    /// The devices themselves, at least one.
    ///
    /// # Errors
    /// One is not available.
    pub(crate) fn open(&self) -> Result<Vec<Device>> {
        let devices = match self {
            Self::Cpu(count) => Ok(vec![Device::Cpu; *count]),
            Self::Cuda(Some(indices)) => indices.iter().map(|&index| Device::new_cuda(index)).collect(),
            Self::Cuda(None) => own_of(launcher::local_rank(), Device::new_cuda).map(|device| vec![device]),
            Self::Metal => Device::new_metal(0).map(|device| vec![device]),
        };
        devices.with_context(|| format!("--device {self}: not available"))
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Cpu(count) => *count,
            Self::Cuda(Some(indices)) => indices.len(),
            Self::Cuda(None) | Self::Metal => 1,
        }
    }

    /// What a result depends on: what kind they are, not how many.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Cuda(_) => "cuda",
            Self::Metal => "metal",
        }
    }
}

/// The device of a process, by its place among those of its host: where there are more processes than devices, several
/// share one.
fn own_of<T, E>(local_rank: usize, open: impl Fn(usize) -> Result<T, E>) -> Result<T, E> {
    // How many there are is told by the first that is missing. Where a launcher shows each process its own, that is 1.
    let own = open(local_rank);
    if own.is_ok() || local_rank == 0 {
        return own;
    }
    let count = (0..local_rank).take_while(|&index| open(index).is_ok()).count();
    if count == 0 { own } else { open(local_rank % count) }
}

impl FromStr for Devices {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, which) = text.split_once(':').map_or((text, None), |(kind, which)| (kind, Some(which)));
        let devices = match (kind, which) {
            ("cpu", None) => Some(Self::Cpu(1)),
            ("cpu", Some(count)) => count.parse().ok().filter(|count| (1..=MOST_ON_CPU).contains(count)).map(Self::Cpu),
            ("cuda", None) => Some(Self::Cuda(None)),
            ("cuda", Some(indices)) => {
                let indices = indices.split(',').map(|index| index.parse().ok()).collect::<Option<Vec<usize>>>();
                indices.map(|indices| Self::Cuda(Some(indices)))
            }
            ("metal", None) => Some(Self::Metal),
            _ => None,
        };
        let devices = devices.with_context(|| {
            format!("expected cpu, cuda, cuda:INDEX, cuda:INDEX,INDEX…, metal or cpu:COUNT up to {MOST_ON_CPU}, got '{text}'")
        })?;
        if let Self::Cuda(Some(indices)) = &devices {
            let twice = indices.iter().enumerate().find(|(at, index)| indices[..*at].contains(index));
            ensure!(twice.is_none(), "a device is named twice in '{text}'");
        }
        Ok(devices)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu(1) | Self::Cuda(None) | Self::Metal => f.write_str(self.kind()),
            Self::Cpu(count) => write!(f, "cpu:{count}"),
            Self::Cuda(Some(indices)) => {
                let indices: Vec<_> = indices.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", indices.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let cases = [
            ("cpu", Devices::Cpu(1)),
            ("cpu:2", Devices::Cpu(2)),
            ("cuda", Devices::Cuda(None)),
            ("cuda:1", Devices::Cuda(Some(vec![1]))),
            ("cuda:3,0,2", Devices::Cuda(Some(vec![3, 0, 2]))),
            ("metal", Devices::Metal),
        ];
        for (text, devices) in cases {
            assert_eq!(text.parse::<Devices>().unwrap(), devices);
            assert_eq!(devices.to_string(), text);
        }
        for text in ["tpu", "cpu:0", "cpu:257", "cuda:", "cuda:1,", "cuda:-1", "cuda:1,2,1", "metal:0"] {
            let error = text.parse::<Devices>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
        assert_eq!(Devices::Cpu(3).open().unwrap().len(), 3);
    }

    #[test]
    fn processes_of_a_host_share_its_devices_evenly() {
        for (devices, ranks) in [(4, [0, 1, 2, 3, 0, 1]), (1, [0; 6]), (8, [0, 1, 2, 3, 4, 5])] {
            let open = |index: usize| if index < devices { Ok(index) } else { Err(()) };
            assert_eq!([0, 1, 2, 3, 4, 5].map(|rank| own_of(rank, open).unwrap()), ranks, "{devices} devices");
        }
        assert_eq!(own_of(3, |_| Err::<(), _>("no driver")), Err("no driver"));
    }
}
