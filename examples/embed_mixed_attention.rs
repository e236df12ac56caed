//! Mixed attention inside a model of your own: a small transformer over points, some of which are anchors.
//!
//! `cargo run --release --example embed_mixed_attention`

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_mixed_attention::{AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec};
use candle_nn::{Activation, LayerNorm, Sequential, VarBuilder, VarMap, layer_norm, linear, seq};

/// A pre-norm block as candle models write it. Only the attention is new.
struct Block {
    norm1: LayerNorm,
    attention: MixedAttention,
    plan: AttentionPlan,
    norm2: LayerNorm,
    mlp: Sequential,
}

impl Block {
    fn new(width: usize, heads: usize, plan: &AttentionPlan, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: layer_norm(width, 1e-6, vb.pp("norm1"))?,
            attention: MixedAttention::new(&MixedAttentionConfig::new(width, heads), vb.pp("attn"))?,
            plan: plan.clone(),
            norm2: layer_norm(width, 1e-6, vb.pp("norm2"))?,
            mlp: seq().add(linear(width, 4 * width, vb.pp("mlp.fc1"))?).add(Activation::Gelu).add(linear(
                4 * width,
                width,
                vb.pp("mlp.fc2"),
            )?),
        })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention.bind(&self.plan).forward(&self.norm1.forward(x)?)?)?;
        &x + self.mlp.forward(&self.norm2.forward(&x)?)?
    }
}

/// `[batch, points, 3]` positions to `[batch, points, 1]` values.
fn model(plan: &AttentionPlan, vb: VarBuilder) -> Result<Sequential> {
    let (width, heads) = (64, 4);
    let mut model = seq().add(linear(3, width, vb.pp("embedding"))?);
    for i in 0..2 {
        model = model.add(Block::new(width, heads, plan, vb.pp("blocks").pp(i))?);
    }
    Ok(model.add(linear(width, 1, vb.pp("head"))?))
}

/// The values at `positions [batch, points, 3]`, of which the first `anchors` are attended to.
pub fn run(positions: &Tensor, anchors: usize, weights: &VarMap) -> Result<Tensor> {
    let plan = AttentionPlan::new(
        [TokenSpec::new("anchors", anchors), TokenSpec::new("queries", positions.dim(1)?.saturating_sub(anchors))],
        [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
    )?;
    model(&plan, VarBuilder::from_varmap(weights, DType::F32, positions.device()))?.forward(positions)
}

pub fn main() -> Result<()> {
    let positions = Tensor::rand(0f32, 1., (1, 300, 3), &Device::Cpu)?;
    println!("{}", run(&positions, 100, &VarMap::new())?.narrow(1, 0, 5)?);
    Ok(())
}
