//! Several devices of one process.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use candle_core::{Error, Result};

use super::KeyExchange;
use crate::attention::part::AttentionPart;
use crate::transfer::to_host;

/// One of several threads of a process that hold some of the keys each, on a device of its own or on the same.
///
/// What is gathered goes through the memory of the host: no thread meets what another one's device has not finished.
///
/// ```
/// use candle_mixed_attention::{KeyExchange, LocalExchange};
///
/// let [first, second] = <[LocalExchange; 2]>::try_from(LocalExchange::connect(2)).unwrap();
/// assert_eq!((first.share(7), second.share(7)), (0..3, 3..7));
/// ```
#[derive(Debug)]
pub struct LocalExchange {
    rank: usize,
    /// To all of them in the order of their ranks; none once this one has left.
    to: Mutex<Vec<Sender<AttentionPart>>>,
    /// A channel from each, so that one that is ahead is not taken for another.
    from: Mutex<Vec<Receiver<AttentionPart>>>,
    ranks: usize,
}

impl LocalExchange {
    /// So many that reach each other.
    pub fn connect(ranks: usize) -> Vec<Self> {
        let mut receivers: Vec<Vec<_>> = (0..ranks).map(|_| Vec::new()).collect();
        let senders: Vec<_> = (0..ranks)
            .map(|_| {
                let channels = receivers.iter_mut().map(|from| {
                    let (sender, receiver) = channel();
                    from.push(receiver);
                    sender
                });
                channels.collect::<Vec<_>>()
            })
            .collect();
        let both = senders.into_iter().zip(receivers).enumerate();
        both.map(|(rank, (to, from))| Self { rank, to: Mutex::new(to), from: Mutex::new(from), ranks }).collect()
    }

    /// Ends the exchange for all: whoever waits for this one, or will, gets an error instead of waiting for ever. For a
    /// thread that has failed elsewhere.
    pub fn leave(&self) {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl KeyExchange for LocalExchange {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
        let gone = || Error::Msg("another thread has left the exchange of keys".to_string());
        let device = own.output.device().clone();
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if to.len() != self.ranks {
            return Err(Error::Msg("this thread has left the exchange of keys".to_string()));
        }
        let told = AttentionPart { output: to_host(&own.output)?, log_sum_exp: to_host(&own.log_sum_exp)? };
        to.iter().try_for_each(|to| to.send(told.clone()).map_err(|_| gone()))?;
        // Its copies of the senders would keep those waiting that this thread leaves meanwhile.
        drop(to);
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let receive = |(rank, from): (usize, &Receiver<AttentionPart>)| {
            let AttentionPart { output, log_sum_exp } = from.recv().map_err(|_| gone())?;
            match rank == self.rank {
                true => Ok(own.clone()),
                false => Ok(AttentionPart {
                    output: output.to_device(&device)?,
                    log_sum_exp: log_sum_exp.to_device(&device)?,
                }),
            }
        };
        from.iter().enumerate().map(receive).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    fn part(value: f64) -> AttentionPart {
        let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let output = (ones(&[1, 1, 2, 3]) * value).unwrap();
        AttentionPart { output, log_sum_exp: ones(&[1, 1, 2]) }
    }

    /// The first number of each part.
    fn values(parts: &[AttentionPart]) -> Vec<f32> {
        let value = |part: &AttentionPart| part.output.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        parts.iter().map(value).collect()
    }

    #[test]
    fn all_get_the_parts_of_all_in_one_order_however_fast_they_are() {
        let threads = LocalExchange::connect(3).into_iter().map(|own| {
            std::thread::spawn(move || {
                for round in 0..20 {
                    let gathered = own.gather(part(f64::from(10 * round) + own.rank() as f64)).unwrap();
                    let begin = f32::from(u8::try_from(10 * round).unwrap());
                    assert_eq!(values(&gathered), [begin, begin + 1.0, begin + 2.0]);
                }
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn nobody_waits_for_one_that_has_left() {
        let [stays, leaves] = <[LocalExchange; 2]>::try_from(LocalExchange::connect(2)).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| stays.gather(part(1.0)).unwrap_err().to_string());
            leaves.leave();
            assert!(waits.join().unwrap().contains("another thread has left"));
        });
        assert!(leaves.gather(part(1.0)).unwrap_err().to_string().contains("this thread has left"));
    }
}
