//! Keys that are too many for one device: each of several processes has some of them.

use candle_core::Result;

use crate::attention::part::AttentionPart;

/// How processes that hold different keys put their attention together.
///
/// All of them ask the same queries in the same order, each of its own keys; what comes out is attention to the keys of all,
/// on each of them. How the processes reach each other is the implementor's: MPI, NCCL, channels between threads.
///
/// ```
/// use candle_core::Result;
/// use candle_mixed_attention::{AttentionPart, KeyExchange};
///
/// /// Two devices of one process, of which the second has answered already.
/// struct Second(AttentionPart);
///
/// impl KeyExchange for Second {
///     fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
///         Ok(vec![own, self.0.clone()])
///     }
/// }
/// ```
pub trait KeyExchange {
    /// The parts of all processes, in the same order on each of them, so that all compute the same bits. A part holds
    /// `[batch, heads, tokens, head_dim]` and `[batch, heads, tokens]`; every process calls this the same number of times.
    ///
    /// # Errors
    /// Another process cannot be reached, or has failed.
    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>>;

    /// Attention to the keys of all processes, from that to one's own.
    ///
    /// # Errors
    /// As [`gather`](Self::gather) and [`AttentionPart::combine`].
    fn combine(&self, own: AttentionPart) -> Result<AttentionPart> {
        let mut parts = self.gather(own)?;
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => AttentionPart::combine(&parts),
        }
    }
}

/// One process that has all keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllKeys;

impl KeyExchange for AllKeys {
    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
        Ok(vec![own])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use candle_core::{DType, Device, Tensor};
    use candle_nn::{VarBuilder, VarMap};

    use super::*;
    use crate::{
        AttentionOptions, AttentionPattern, AttentionPlan, KeyPadding, KvCache, MixedAttention, MixedAttentionConfig,
        TokenSpec,
    };

    /// Threads that send their part to every other.
    struct Threads {
        rank: usize,
        to: Vec<Sender<(usize, AttentionPart)>>,
        from: Receiver<(usize, AttentionPart)>,
    }

    impl KeyExchange for Threads {
        fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
            self.to.iter().for_each(|to| to.send((self.rank, own.clone())).unwrap());
            let mut parts: Vec<_> = self.to.iter().map(|_| self.from.recv().unwrap()).collect();
            parts.sort_by_key(|(rank, _)| *rank);
            Ok(parts.into_iter().map(|(_, part)| part).collect())
        }
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
            let (to, from): (Vec<_>, Vec<_>) = (0..ranks).map(|_| channel()).unzip();
            let threads: Vec<_> = from
                .into_iter()
                .enumerate()
                .map(|(rank, from)| {
                    let exchange = Threads { rank, to: to.clone(), from };
                    let cache = shard(&groups, borders[rank], borders[rank + 1]);
                    let (layer, plan, x) = (layer.clone(), plan.clone(), x.clone());
                    std::thread::spawn(move || {
                        let options = AttentionOptions::default();
                        layer.forward_from_shard(&x, &plan, &cache, &options, &exchange).unwrap()
                    })
                })
                .collect();
            let results: Vec<Tensor> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for result in &results {
                assert!(difference(result, &expected) < 1e-6, "{ranks} ranks: {}", difference(result, &expected));
                assert_eq!(difference(result, &results[0]), 0.0, "ranks differ");
            }
        }
        // A process that forgets the others is found out.
        let own = layer.forward_from_shard(&x, &plan, &shard(&groups, 0.0, 0.5), &options, &AllKeys).unwrap();
        assert!(difference(&own, &expected) > 1e-3);
    }

    /// The largest difference, as a share of the largest number.
    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        largest(&(a - b).unwrap()) / largest(b)
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
        let error = layer().forward_from_shard(&x, &plan, &cache, &options, &AllKeys).unwrap_err().to_string();
        assert!(error.contains("keys that are all cached"), "{error}");
    }
}
