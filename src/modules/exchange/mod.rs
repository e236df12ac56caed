//! Keys that are too many for one device: each of several processes has some of them.

mod local;

use std::fmt::Debug;
use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::attention::part::AttentionPart;

pub use local::LocalExchange;

/// Queries whose parts are gathered at once.
const PIECE: usize = 1 << 16;

/// How processes that hold different keys put their attention together.
///
/// All of them ask the same queries in the same order, each of its own keys; what comes out is attention to the keys of all,
/// on each of them. How the processes reach each other is the implementor's: MPI, NCCL, channels between threads
/// ([`LocalExchange`]).
///
/// ```
/// use candle_core::Result;
/// use candle_mixed_attention::{AttentionPart, KeyExchange};
///
/// /// Two devices of one process, of which the second has answered already.
/// #[derive(Debug)]
/// struct Second(AttentionPart);
///
/// impl KeyExchange for Second {
///     fn rank(&self) -> usize {
///         0
///     }
///
///     fn ranks(&self) -> usize {
///         2
///     }
///
///     fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
///         Ok(vec![own, self.0.clone()])
///     }
/// }
/// ```
pub trait KeyExchange: Debug + Send + Sync {
    /// The place of this process among all, from 0 on.
    fn rank(&self) -> usize;

    /// How many processes there are, at least one. With one nothing is gathered.
    fn ranks(&self) -> usize;

    /// The parts of all processes, in the order of their ranks on each of them, so that all compute the same bits. A part
    /// holds `[batch, heads, tokens, head_dim]` and `[batch, heads, tokens]`, with at least one token; every process calls
    /// this the same number of times.
    ///
    /// # Errors
    /// Another process cannot be reached, or has failed.
    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>>;

    /// Attention to the keys of all processes, from that to one's own. Some ten thousand queries at a time, so that memory
    /// does not grow with the number of processes.
    ///
    /// # Errors
    /// As [`gather`](Self::gather) and [`AttentionPart::combine`].
    fn combine(&self, own: AttentionPart) -> Result<AttentionPart> {
        let tokens = own.output.dim(2)?;
        if tokens == 0 {
            return Ok(own);
        }
        if tokens <= PIECE {
            return AttentionPart::combine(&self.gather(own)?);
        }
        let (mut outputs, mut log_sum_exps) = (Vec::new(), Vec::new());
        for start in (0..tokens).step_by(PIECE) {
            let len = PIECE.min(tokens - start);
            let (output, log_sum_exp) = (own.output.narrow(2, start, len)?, own.log_sum_exp.narrow(2, start, len)?);
            let whole = AttentionPart::combine(&self.gather(AttentionPart { output, log_sum_exp })?)?;
            outputs.push(whole.output);
            log_sum_exps.push(whole.log_sum_exp);
        }
        Ok(AttentionPart { output: Tensor::cat(&outputs, 2)?, log_sum_exp: Tensor::cat(&log_sum_exps, 2)? })
    }

    /// Which of so many keys that all processes know this one holds.
    fn share(&self, keys: usize) -> Range<usize> {
        let ranks = self.ranks().max(1);
        // At most `keys`, so that nothing is cut off.
        let border = |rank: usize| (keys as u128 * rank.min(ranks) as u128 / ranks as u128) as usize;
        border(self.rank())..border(self.rank().saturating_add(1))
    }
}

/// One process that has all keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllKeys;

impl KeyExchange for AllKeys {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
        Ok(vec![own])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::{VarBuilder, VarMap};

    use super::*;
    use crate::{
        AttentionOptions, AttentionPattern, AttentionPlan, KeyPadding, KvCache, MixedAttention, MixedAttentionConfig,
        TokenSpec,
    };

    /// What each of so many threads makes of its end of an exchange.
    fn on_ranks<T: Send>(ranks: usize, work: impl Fn(LocalExchange) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let start = |exchange| scope.spawn(|| work(exchange));
            let threads: Vec<_> = LocalExchange::connect(ranks).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    const KEYS: [usize; 2] = [130, 71];

    fn plan(queries: usize) -> AttentionPlan {
        AttentionPlan::new(
            [
                TokenSpec::cached("surface_anchors"),
                TokenSpec::cached("volume_anchors"),
                TokenSpec::new("surface", queries),
                TokenSpec::new("volume", queries),
            ],
            [
                AttentionPattern::queries(["surface"]).attend_to(["surface_anchors"]),
                AttentionPattern::queries(["volume"]).attend_to(["surface_anchors", "volume_anchors"]),
            ],
        )
        .unwrap()
    }

    fn layer() -> MixedAttention {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        MixedAttention::new(&MixedAttentionConfig::new(48, 6).num_kv_heads(2), vb).unwrap()
    }

    /// Keys, values and padding of each group from `start` of its share to `end` of it.
    fn shard(groups: &[[Tensor; 3]; 2], start: f64, end: f64) -> KvCache {
        let names = ["surface_anchors", "volume_anchors"];
        let at = |share: f64, keys: usize| (share * keys as f64) as usize;
        let cut = |tensor: &Tensor, keys: usize, dim| {
            tensor.narrow(dim, at(start, keys), at(end, keys) - at(start, keys)).unwrap()
        };
        let parts = groups.iter().zip(KEYS).zip(names);
        let cached = parts.map(|(([keys, values, _], count), name)| (name, cut(keys, count, 2), cut(values, count, 2)));
        let padding: Vec<_> = groups.iter().zip(KEYS).map(|([.., padding], count)| cut(padding, count, 1)).collect();
        let padding = KeyPadding::from_mask(&Tensor::cat(&padding, 1).unwrap()).unwrap();
        KvCache::from_groups(cached, Some(padding)).unwrap()
    }

    #[test]
    fn keys_of_several_processes_are_those_of_one() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap();
        let groups = KEYS.map(|count| {
            let padding = random(&[1, count]).ge(-0.5f32).unwrap();
            [random(&[1, 2, count, 8]), random(&[1, 2, count, 8]), padding]
        });
        let (layer, plan, x) = (layer(), plan(37), random(&[1, 74, 48]));
        let whole = shard(&groups, 0.0, 1.0);
        let options = AttentionOptions::default();
        let expected = layer.forward_from_cache(&x, &plan, &whole, &options).unwrap();
        let one = layer.forward_from_shard(&x, &plan, &whole, &options, &AllKeys).unwrap();
        assert!(difference(&one, &expected) < 1e-6, "{}", difference(&one, &expected));
        // Uneven shares, of which one is empty.
        for borders in [vec![0.0, 0.3, 1.0], vec![0.0, 0.5, 0.5, 0.55, 1.0]] {
            let ranks = borders.len() - 1;
            let results = on_ranks(ranks, |exchange| {
                let cache = shard(&groups, borders[exchange.rank()], borders[exchange.rank() + 1]);
                layer.forward_from_shard(&x, &plan, &cache, &options, &exchange).unwrap()
            });
            for result in &results {
                assert!(difference(result, &expected) < 1e-6, "{ranks} ranks: {}", difference(result, &expected));
                assert_eq!(difference(result, &results[0]), 0.0, "ranks differ");
            }
        }
        // A process that forgets the others is found out.
        let own = layer.forward_from_shard(&x, &plan, &shard(&groups, 0.0, 0.5), &options, &AllKeys).unwrap();
        assert!(difference(&own, &expected) > 1e-3);
    }

    #[test]
    fn many_queries_are_gathered_in_pieces() {
        let tokens = 2 * PIECE + 5;
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap();
        let parts = [(); 3].map(|()| {
            let (output, log_sum_exp) = (random(&[1, 2, tokens, 1]), random(&[1, 2, tokens]));
            AttentionPart { output, log_sum_exp }
        });
        let whole = AttentionPart::combine(&parts).unwrap();
        for together in on_ranks(3, |exchange| exchange.combine(parts[exchange.rank()].clone()).unwrap()) {
            assert_eq!(difference(&together.output, &whole.output), 0.0);
            assert_eq!(difference(&together.log_sum_exp, &whole.log_sum_exp), 0.0);
        }
    }

    /// The largest difference, as a share of the largest number.
    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        largest(&(a - b).unwrap()) / largest(b)
    }

    #[test]
    fn a_pass_that_keeps_shares_is_that_of_one_process() {
        let layer = layer();
        // A group that is smaller than the ranks are many, padding, and a group of which nothing is kept.
        let sizes = [("surface_anchors", 90), ("volume_anchors", 3), ("volume", 20)];
        let plan = AttentionPlan::new(
            sizes.map(|(name, size)| TokenSpec::new(name, size)),
            [
                AttentionPattern::queries(["surface_anchors"]).attend_to(["surface_anchors", "volume_anchors"]),
                AttentionPattern::queries(["volume_anchors", "volume"])
                    .attend_to(["volume_anchors", "surface_anchors"]),
            ],
        )
        .unwrap();
        let x = Tensor::randn(0f32, 1., (2, plan.len(), 48), &Device::Cpu).unwrap();
        let mask = Tensor::randn(0f32, 1., (2, plan.len()), &Device::Cpu).unwrap().ge(-0.8f32).unwrap();
        let bias = Tensor::randn(0f32, 1., (1, 1, plan.len()), &Device::Cpu).unwrap();
        let options = AttentionOptions::default().key_padding(KeyPadding::from_mask(&mask).unwrap()).key_bias(&bias);
        let (expected, cache) = layer.forward_and_cache(&x, &plan, &options).unwrap();
        let later = AttentionPlan::new(
            [TokenSpec::cached("surface_anchors"), TokenSpec::cached("volume_anchors"), TokenSpec::new("volume", 20)],
            [AttentionPattern::queries(["volume"]).attend_to(["surface_anchors", "volume_anchors"])],
        )
        .unwrap();
        let asked = x.narrow(1, 93, 20).unwrap();
        let of_cache = layer.forward_from_cache(&asked, &later, &cache, &AttentionOptions::default()).unwrap();
        let (alone, whole) = layer.forward_and_shard(&x, &plan, &options, &AllKeys).unwrap();
        assert_eq!((difference(&alone, &expected), whole.fingerprint()), (0.0, cache.fingerprint()));
        for ranks in [2, 4, 7] {
            let results = on_ranks(ranks, |exchange| {
                let (y, shard) = layer.forward_and_shard(&x, &plan, &options, &exchange).unwrap();
                let usual = AttentionOptions::default();
                let asked = layer.forward_from_shard(&asked, &later, &shard, &usual, &exchange).unwrap();
                (y, asked, shard.fingerprint().groups.iter().map(|(_, size)| *size).sum::<usize>())
            });
            for (y, asked, _) in &results {
                assert!(difference(y, &expected) < 1e-6, "{ranks} ranks: {}", difference(y, &expected));
                assert!(difference(asked, &of_cache) < 1e-6, "{ranks} ranks: {}", difference(asked, &of_cache));
                assert_eq!(difference(y, &results[0].0), 0.0, "ranks differ");
            }
            assert_eq!(results.iter().map(|(.., kept)| kept).sum::<usize>(), 93, "each key is kept once");
            assert!(results.iter().all(|(.., kept)| *kept <= 93_usize.div_ceil(ranks) + 1));
        }
    }

    #[test]
    fn keys_that_every_process_has_are_refused() {
        let plan = AttentionPlan::new(
            [TokenSpec::cached("anchors"), TokenSpec::new("tokens", 5)],
            [AttentionPattern::queries(["tokens"]).attend_to(["anchors", "tokens"])],
        )
        .unwrap();
        let keys = Tensor::zeros((1, 2, 3, 8), DType::F32, &Device::Cpu).unwrap();
        let cache = KvCache::from_groups([("anchors", keys.clone(), keys)], None).unwrap();
        let x = Tensor::zeros((1, 5, 48), DType::F32, &Device::Cpu).unwrap();
        let options = AttentionOptions::default();
        let several = &LocalExchange::connect(2)[0];
        let error = layer().forward_from_shard(&x, &plan, &cache, &options, several).unwrap_err().to_string();
        assert!(error.contains("keys that are all cached"), "{error}");
        // One process has them once.
        layer().forward_from_shard(&x, &plan, &cache, &options, &AllKeys).unwrap();
    }
}
