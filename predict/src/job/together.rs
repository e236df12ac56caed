//! Devices that hold a body together, each the keys of some of its anchors, and answer every question together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result};
use candle_mixed_attention::LocalExchange;
use candle_mixed_attention::models::ab_upt::{AbUptError, Predictor};

/// The ends of an exchange of keys, one for each device; a single device has all keys.
#[derive(Debug, Clone)]
pub(super) struct Together {
    exchanges: Vec<Arc<LocalExchange>>,
}

impl Together {
    /// Joins the networks on some devices, and returns them so joined.
    pub(super) fn join(predictors: &[Predictor]) -> Result<(Self, Vec<Predictor>), AbUptError> {
        let exchanges: Vec<_> = LocalExchange::connect(predictors.len()).into_iter().map(Arc::new).collect();
        let joined = predictors.iter().zip(&exchanges).map(|(predictor, exchange)| {
            let network = predictor.model().clone().with_exchange(exchange.clone());
            Predictor::new(network, predictor.statistics())
        });
        let joined = joined.collect::<Result<_, _>>()?;
        Ok((Self { exchanges }, joined))
    }

    /// Does the same on all devices at the same time, given what each of them needs.
    ///
    /// # Errors
    /// The first error of any of them; nothing more can be done together then.
    pub(super) fn run<S: Sync, T: Send>(&self, devices: &[S], work: impl Fn(&S) -> Result<T> + Sync) -> Result<Vec<T>> {
        if let [device] = devices {
            return Ok(vec![work(device)?]);
        }
        let failed = Mutex::new(None);
        let on_device = |device: &S, exchange: &LocalExchange| {
            let done = catch_unwind(AssertUnwindSafe(|| work(device)));
            let done = done.unwrap_or_else(|_| Err(Error::msg("the thread of a device panicked")));
            done.map_err(|error| {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                // Not before: the others' errors will be about nothing else.
                exchange.leave();
            })
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let on_device = &on_device;
            let pairs = devices.iter().zip(&self.exchanges);
            let threads: Vec<_> =
                pairs.map(|(device, exchange)| scope.spawn(move || on_device(device, exchange))).collect();
            threads.into_iter().map(|thread| thread.join().ok().and_then(Result::ok)).collect()
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => done.into_iter().collect::<Option<_>>().context("the thread of a device has gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_mixed_attention::candle_core::{DType, Device, Tensor};
    use candle_mixed_attention::{AttentionPart, KeyExchange};

    use super::*;

    #[test]
    fn the_first_error_is_told_and_nobody_waits_for_who_made_it() {
        let exchanges: Vec<_> = LocalExchange::connect(3).into_iter().map(Arc::new).collect();
        let (together, devices) = (Together { exchanges: exchanges.clone() }, [0, 1, 2]);
        let part = || {
            let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
            Ok::<_, Error>(AttentionPart { output: zeros(&[1, 1, 1, 1])?, log_sum_exp: zeros(&[1, 1, 1])? })
        };
        let gathers = |&device: &usize| Ok(exchanges[device].gather(part()?)?.len());
        assert_eq!(together.run(&devices, gathers).unwrap(), [3, 3, 3]);
        let fails = |device: &usize| match device {
            1 => Err(Error::msg("out of memory")),
            _ => gathers(device),
        };
        assert_eq!(together.run(&devices, fails).unwrap_err().to_string(), "out of memory");
        let panics = |_: &usize| -> Result<()> { panic!("a bug") };
        let error = together.run(&devices, panics).unwrap_err().to_string();
        assert_eq!(error, "the thread of a device panicked");
    }
}
