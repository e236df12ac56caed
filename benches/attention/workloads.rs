//! The workloads: batch 1, hidden 192 in 3 heads of 64, except the documentation example.

use candle_mixed_attention::{AnchorKind, AttentionPattern, AttentionPlan, TokenSpec, anchor_patterns};

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
}

impl Workload {
    pub fn head_dim(&self) -> usize {
        self.hidden_dim / self.num_heads
    }

    /// Visible (query, key) pairs of all heads.
    pub fn pairs(&self) -> u64 {
        let layout = candle_mixed_attention::plan::CacheLayout::new(self.cached.clone()).expect("distinct names");
        let plan = if self.cached.is_empty() { self.plan.clone() } else { self.with_layout(&layout) };
        plan.visible_pairs().expect("all sizes are known") * self.num_heads as u64
    }

    fn with_layout(&self, layout: &candle_mixed_attention::plan::CacheLayout) -> AttentionPlan {
        self.plan.with_cache_layout(layout).expect("the layout has the cached groups")
    }

    /// Floating-point operations of the two products over visible pairs.
    pub fn flops(&self) -> u64 {
        4 * self.pairs() * self.head_dim() as u64
    }
}

/// Groups of the surface and volume domains, each anchors then queries; `None` is cached, 0 is left out.
fn domains(sizes: [(Option<usize>, usize); 2]) -> Vec<TokenSpec> {
    let mut tokens = Vec::new();
    for (branch, (anchors, queries)) in ["surface", "volume"].into_iter().zip(sizes) {
        tokens.push(TokenSpec { name: format!("{branch}_anchors"), size: anchors });
        if queries > 0 {
            tokens.push(TokenSpec::new(format!("{branch}_queries"), queries));
        }
    }
    tokens
}

fn anchored(name: &'static str, kind: AnchorKind, sizes: [(Option<usize>, usize); 2]) -> Workload {
    let tokens = domains(sizes);
    let patterns = anchor_patterns(kind, &["surface", "volume"], &tokens, "_anchors").expect("valid branches");
    let plan = AttentionPlan::new(tokens, patterns).expect("a valid plan");
    Workload { name, hidden_dim: 192, num_heads: 3, plan, cached: Vec::new() }
}

/// All workloads.
pub fn workloads() -> Vec<Workload> {
    let even = [(Some(2048), 2048), (Some(2048), 2048)];
    let mut cached = anchored("W5 cached", AnchorKind::Own, [(None, 4096), (None, 4096)]);
    cached.cached = vec![("surface_anchors".to_string(), 2048), ("volume_anchors".to_string(), 2048)];
    let many = 16;
    let name = |group: usize| format!("group_{group}");
    let tokens: Vec<TokenSpec> = (0..many).map(|group| TokenSpec::new(name(group), 256)).collect();
    let own_and_first = |group: usize| {
        let keys = if group == 0 { vec![name(0)] } else { vec![name(group), name(0)] };
        AttentionPattern::queries([name(group)]).attend_to(keys)
    };
    let patterns: Vec<AttentionPattern> = (0..many).map(own_and_first).collect();
    let plan = AttentionPlan::new(tokens, patterns).expect("a valid plan");
    let mut documentation = anchored("DOC", AnchorKind::Own, [(Some(100), 50), (Some(80), 60)]);
    (documentation.hidden_dim, documentation.num_heads) = (64, 4);
    vec![
        anchored("W1 self", AnchorKind::Own, even),
        anchored("W2 cross", AnchorKind::Cross, even),
        anchored("W3 joint", AnchorKind::Joint, even),
        anchored("W4 ragged", AnchorKind::Own, [(Some(1500), 3000), (Some(700), 5003)]),
        cached,
        Workload { name: "W6 groups", hidden_dim: 192, num_heads: 3, plan, cached: Vec::new() },
        documentation,
    ]
}
