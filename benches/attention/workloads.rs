//! The workloads: batch 1, hidden 192 in 3 heads of 64 unless said otherwise.

use candle_core::{Device, Result, Tensor};
use candle_mixed_attention::plan::CacheLayout;
use candle_mixed_attention::{AnchorKind, AttentionPattern, AttentionPlan, KeyPadding, TokenSpec, anchor_patterns};

/// One workload.
pub struct Workload {
    /// Short name, as in BENCHMARKS.md.
    pub name: &'static str,
    pub hidden_dim: usize,
    pub num_heads: usize,
    /// The plan; cached groups have no size.
    pub plan: AttentionPlan,
    /// Sizes of the cached groups, if any.
    pub cached: Vec<(String, usize)>,
    /// Whether the second half of every group is padding.
    pub half_padded: bool,
}

impl Workload {
    pub fn head_dim(&self) -> usize {
        self.hidden_dim / self.num_heads
    }

    /// Visible (query, key) pairs of all heads.
    pub fn pairs(&self) -> u64 {
        let layout = CacheLayout::new(self.cached.clone()).expect("distinct names");
        let plan = if self.cached.is_empty() { self.plan.clone() } else { self.with_layout(&layout) };
        let pairs = plan.visible_pairs().expect("all sizes are known") * self.num_heads as u64;
        if self.half_padded { pairs / 2 } else { pairs }
    }

    fn with_layout(&self, layout: &CacheLayout) -> AttentionPlan {
        self.plan.with_cache_layout(layout).expect("the layout has the cached groups")
    }

    /// The padding, if any. Groups have even sizes then.
    #[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(dead_code, reason = "only GPUs need it"))]
    pub fn padding(&self) -> Result<Option<KeyPadding>> {
        if !self.half_padded {
            return Ok(None);
        }
        let sizes = self.plan.tokens().iter().filter_map(|group| group.size);
        let real: Vec<u8> = sizes.flat_map(|size| (0..size).map(move |token| u8::from(token < size / 2))).collect();
        let mask = Tensor::from_vec(real, (1, self.plan.len()), &Device::Cpu)?;
        Ok(Some(KeyPadding::from_mask(&mask)?))
    }

    /// Floating-point operations of the two products over visible pairs.
    pub fn flops(&self) -> u64 {
        4 * self.pairs() * self.head_dim() as u64
    }
}

/// Groups of the surface and volume domains, each anchors then queries; `None` is cached, 0 is left out.
fn domains(sizes: [(Option<usize>, usize); 2]) -> Vec<TokenSpec> {
    let mut tokens = Vec::new();
    for (domain, (anchors, queries)) in ["surface", "volume"].into_iter().zip(sizes) {
        tokens.push(TokenSpec { name: format!("{domain}_anchors"), size: anchors });
        if queries > 0 {
            tokens.push(TokenSpec::new(format!("{domain}_queries"), queries));
        }
    }
    tokens
}

fn anchored(name: &'static str, kind: AnchorKind, sizes: [(Option<usize>, usize); 2]) -> Workload {
    let tokens = domains(sizes);
    let patterns = anchor_patterns(kind, &["surface", "volume"], &tokens, "_anchors").expect("valid domains");
    let plan = AttentionPlan::new(tokens, patterns).expect("a valid plan");
    workload(name, plan)
}

fn workload(name: &'static str, plan: AttentionPlan) -> Workload {
    Workload { name, hidden_dim: 192, num_heads: 3, plan, cached: Vec::new(), half_padded: false }
}

/// As [`anchored`], past anchors that are all cached.
fn cached(name: &'static str, kind: AnchorKind, anchors: usize, queries: usize) -> Workload {
    let sizes = [("surface_anchors".to_string(), anchors), ("volume_anchors".to_string(), anchors)];
    Workload { cached: sizes.to_vec(), ..anchored(name, kind, [(None, queries), (None, queries)]) }
}

/// Groups that each see themselves and the first.
fn groups(name: &'static str, count: usize, size: usize) -> Workload {
    let group = |number: usize| format!("group_{number}");
    let tokens: Vec<TokenSpec> = (0..count).map(|number| TokenSpec::new(group(number), size)).collect();
    let own_and_first = |number: usize| {
        let keys = if number == 0 { vec![group(0)] } else { vec![group(number), group(0)] };
        AttentionPattern::queries([group(number)]).attend_to(keys)
    };
    let patterns: Vec<AttentionPattern> = (0..count).map(own_and_first).collect();
    workload(name, AttentionPlan::new(tokens, patterns).expect("a valid plan"))
}

fn documentation(name: &'static str) -> Workload {
    let example = anchored(name, AnchorKind::Own, [(Some(100), 50), (Some(80), 60)]);
    Workload { hidden_dim: 64, num_heads: 4, ..example }
}

/// The workloads of a CPU.
pub fn workloads() -> Vec<Workload> {
    let even = [(Some(2048), 2048), (Some(2048), 2048)];
    vec![
        anchored("W1 self", AnchorKind::Own, even),
        anchored("W2 cross", AnchorKind::Cross, even),
        anchored("W3 joint", AnchorKind::Joint, even),
        anchored("W4 ragged", AnchorKind::Own, [(Some(1500), 3000), (Some(700), 5003)]),
        cached("W5 cached", AnchorKind::Own, 2048, 4096),
        groups("W6 groups", 16, 256),
        documentation("DOC"),
    ]
}

/// The workloads of a GPU.
#[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(dead_code, reason = "only GPUs run them"))]
pub fn gpu_workloads() -> Vec<Workload> {
    let even = [(Some(16_384), 16_384), (Some(16_384), 16_384)];
    let dense = [AttentionPattern::queries(["tokens"]).attend_to(["tokens"])];
    let dense = AttentionPlan::new([TokenSpec::new("tokens", 8192)], dense).expect("a valid plan");
    vec![
        anchored("A self", AnchorKind::Own, even),
        anchored("A cross", AnchorKind::Cross, even),
        anchored("A joint", AnchorKind::Joint, even),
        cached("B cached", AnchorKind::Joint, 16_384, 32_768),
        anchored("C ragged", AnchorKind::Own, [(Some(3586), 0), (Some(4096), 0)]),
        documentation("C documentation"),
        groups("D groups", 64, 512),
        Workload { half_padded: true, ..anchored("F padded", AnchorKind::Own, even) },
        Workload { hidden_dim: 2048, num_heads: 16, ..workload("G dense", dense) },
    ]
}
