//! Blocks of the network, called alone.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_mixed_attention::models::ab_upt::{
    Activation, BlockKeys, Mlp, PerceiverBlock, PerceiverBlockConfig, SinCosEmbedding, TransformerBlock,
    TransformerBlockConfig,
};
use candle_mixed_attention::{
    AttentionOptions, DotProductAttention, KvCache, PerceiverAttention, Rope, RopeConfig, RopeFrequencies, TokenSpec,
    WeightSharing,
};
use candle_nn::VarBuilder;

use crate::support::refusal::refused;
use crate::{drawn_weights, random, same};

const WIDTH: usize = 32;
const CONDITION: usize = 5;

fn transformer_config() -> TransformerBlockConfig {
    TransformerBlockConfig {
        hidden_dim: WIDTH,
        num_heads: 2,
        mlp_hidden_dim: 64,
        condition_dim: Some(CONDITION),
        layer_scale: false,
        bias: true,
        eps: 1e-6,
        use_rope: false,
    }
}

fn transformer(config: TransformerBlockConfig) -> Result<TransformerBlock> {
    TransformerBlock::new(&config, drawn_weights().1)
}

fn perceiver_config() -> PerceiverBlockConfig {
    PerceiverBlockConfig {
        hidden_dim: WIDTH,
        num_heads: 2,
        mlp_hidden_dim: 64,
        kv_dim: Some(20),
        condition_dim: Some(CONDITION),
        layer_scale: false,
        bias: true,
        eps: 1e-6,
        use_rope: false,
    }
}

fn perceiver(config: PerceiverBlockConfig) -> Result<PerceiverBlock> {
    PerceiverBlock::new(&config, &WeightSharing::Shared, drawn_weights().1)
}

/// A pass of a transformer block over all tokens of `x`.
fn attend(block: &TransformerBlock, x: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
    let plan = DotProductAttention::plan(x.dims().get(1).copied().unwrap_or(0))?;
    Ok(block.forward(x, &plan, BlockKeys::Input, condition, &AttentionOptions::default())?.0)
}

/// A pass of a perceiver block over all tokens of `x`.
fn ask(block: &PerceiverBlock, x: &Tensor, source: &KvCache, condition: Option<&Tensor>) -> Result<Tensor> {
    let groups = [TokenSpec::new("queries", x.dims().get(1).copied().unwrap_or(0))];
    block.forward(x, &groups, source, condition, &AttentionOptions::default())
}

/// A name, a condition, and the words of its error.
type BadCondition = (&'static str, Option<Tensor>, &'static [&'static str]);

/// Conditions that a batch of 2 cannot have.
fn bad_conditions() -> Result<Vec<BadCondition>> {
    Ok(vec![
        ("missing", None, &["made with a condition", "called without"]),
        ("of another width", Some(random(&[2, 4])?), &["condition", "[2, 5]", "[2, 4]"]),
        ("of three rows", Some(random(&[3, CONDITION])?), &["condition", "[1, 5]", "[3, 5]"]),
        ("with three axes", Some(random(&[2, 1, CONDITION])?), &["condition", "[2, 1, 5]"]),
        ("with one axis", Some(random(&[CONDITION])?), &["condition", "[5]"]),
    ])
}

#[test]
fn conditions_of_a_transformer_block() -> Result<()> {
    let block = transformer(transformer_config())?;
    let x = random(&[2, 3, WIDTH])?;
    for (case, condition, words) in bad_conditions()? {
        refused(case, attend(&block, &x, condition.as_ref()), words);
    }
    let plain = transformer(TransformerBlockConfig { condition_dim: None, ..transformer_config() })?;
    let condition = random(&[1, CONDITION])?;
    refused("not expected", attend(&plain, &x, Some(&condition)), &["made without a condition", "called with one"]);
    let rows = attend(&block, &x, Some(&condition.repeat((2, 1))?))?;
    same("one row for all samples", &attend(&block, &x, Some(&condition))?, &rows);
    let unbiased = transformer(TransformerBlockConfig { bias: false, ..transformer_config() })?;
    assert_eq!(attend(&unbiased, &x, Some(&condition))?.dims(), x.dims(), "a condition without biases");
    Ok(())
}

#[test]
fn conditions_of_a_perceiver_block() -> Result<()> {
    let block = perceiver(perceiver_config())?;
    let (x, source) = (random(&[2, 3, WIDTH])?, random(&[2, 4, 20])?);
    let condition = random(&[1, CONDITION])?;
    let encoded = block.encode(&source, None, Some(&condition))?;
    for (case, condition, words) in bad_conditions()? {
        refused(case, block.encode(&source, None, condition.as_ref()), words);
        refused(case, ask(&block, &x, &encoded, condition.as_ref()), words);
    }
    let plain = perceiver(PerceiverBlockConfig { condition_dim: None, ..perceiver_config() })?;
    let words = &["made without a condition", "called with one"];
    refused("not expected by the source", plain.encode(&source, None, Some(&condition)), words);
    refused("not expected", ask(&plain, &x, &encoded, Some(&condition)), words);
    Ok(())
}

#[test]
fn inputs_of_another_shape() -> Result<()> {
    let block = transformer(TransformerBlockConfig { condition_dim: None, ..transformer_config() })?;
    let perceiver = perceiver(PerceiverBlockConfig { condition_dim: None, ..perceiver_config() })?;
    let encoded = perceiver.encode(&random(&[2, 4, 20])?, None, None)?;
    // A width of 1 would broadcast.
    for shape in [&[2, 3, 16][..], &[2, 3, 1], &[3, WIDTH], &[1, 2, 3, WIDTH]] {
        let (x, got) = (random(shape)?, format!("{shape:?}"));
        refused("transformer block", attend(&block, &x, None), &["x", "[batch, tokens, 32]", &got]);
        refused("perceiver block", ask(&perceiver, &x, &encoded, None), &["x", "[batch, tokens, 32]", &got]);
    }
    for shape in [&[2, 4, WIDTH][..], &[2, 4, 1], &[4, 20]] {
        let got = format!("{shape:?}");
        let source = perceiver.encode(&random(shape)?, None, None);
        refused("source", source, &["source", "[batch, tokens, 20]", &got]);
    }
    let x = random(&[2, 3, WIDTH])?;
    let three = perceiver.encode(&random(&[3, 4, 20])?, None, None)?;
    refused("a source of 3 samples", ask(&perceiver, &x, &three, None), &["cache", "3", "2"]);
    let other = PerceiverAttention::new(
        &serde_json::from_str(r#"{"hidden_dim": 32, "num_heads": 4}"#).expect("a configuration"),
        drawn_weights().1,
    )?;
    let other = other.encode(&random(&[2, 4, WIDTH])?, None, None)?;
    refused("a source of other heads", ask(&perceiver, &x, &other, None), &["number of heads", "2", "4"]);
    Ok(())
}

#[test]
fn rope_and_its_frequencies_must_agree() -> Result<()> {
    let frequencies = |tokens| -> Result<RopeFrequencies> {
        Rope::new(&RopeConfig::new(WIDTH / 2), &Device::Cpu)?.frequencies(&random(&[2, tokens, 3])?)
    };
    let x = random(&[2, 3, WIDTH])?;
    let plan = DotProductAttention::plan(3)?;
    let rope = AttentionOptions::default().rope(&frequencies(3)?);
    for use_rope in [false, true] {
        let config = TransformerBlockConfig { condition_dim: None, use_rope, ..transformer_config() };
        let options = if use_rope { AttentionOptions::default() } else { rope.clone() };
        let word = format!("use_rope = {use_rope}");
        refused("block", transformer(config)?.forward(&x, &plan, BlockKeys::Input, None, &options), &[&word]);
        let block = perceiver(PerceiverBlockConfig { condition_dim: None, use_rope, ..perceiver_config() })?;
        let of_source = frequencies(4)?;
        let wrong = if use_rope { None } else { Some(&of_source) };
        refused("source", block.encode(&random(&[2, 4, 20])?, wrong, None), &[&word, "the source"]);
    }
    Ok(())
}

#[test]
fn configurations_of_blocks() {
    let base = transformer_config();
    let table: &[(&str, TransformerBlockConfig, &[&str])] = &[
        ("heads", TransformerBlockConfig { num_heads: 3, ..base }, &["hidden_dim", "32", "num_heads 3"]),
        ("no feed-forward width", TransformerBlockConfig { mlp_hidden_dim: 0, ..base }, &["mlp_hidden_dim", "0"]),
        ("no condition width", TransformerBlockConfig { condition_dim: Some(0), ..base }, &["condition_dim", "0"]),
        ("eps of 0", TransformerBlockConfig { eps: 0.0, ..base }, &["eps", "positive"]),
        ("eps of NaN", TransformerBlockConfig { eps: f64::NAN, ..base }, &["eps", "NaN"]),
    ];
    for (case, config, words) in table {
        refused(case, transformer(*config), words);
    }
    let base = perceiver_config();
    refused("heads", perceiver(PerceiverBlockConfig { num_heads: 0, ..base }), &["hidden_dim", "num_heads 0"]);
    refused(
        "no feed-forward width",
        perceiver(PerceiverBlockConfig { mlp_hidden_dim: 0, ..base }),
        &["mlp_hidden_dim"],
    );
    refused("eps", perceiver(PerceiverBlockConfig { eps: f64::INFINITY, ..base }), &["eps", "inf"]);
    // The package wants a feed-forward layer to be wider than its input.
    let narrow = TransformerBlockConfig { mlp_hidden_dim: WIDTH, ..transformer_config() };
    transformer(narrow).expect("a feed-forward layer as wide as its input");
}

#[test]
fn a_source_without_tokens_adds_the_bias() -> Result<()> {
    let block = perceiver(PerceiverBlockConfig { condition_dim: None, ..perceiver_config() })?;
    let x = random(&[2, 3, WIDTH])?;
    let nothing = block.encode(&random(&[2, 0, 20])?, None, None)?;
    let y = ask(&block, &x, &nothing, None)?;
    // What the queries are makes no difference to the attention, so each row is predicted as if it were alone.
    let alone = ask(&block, &x.narrow(1, 1, 1)?, &nothing, None)?;
    same("one of the rows", &y.narrow(1, 1, 1)?, &alone);
    assert_eq!(ask(&block, &x.narrow(1, 0, 0)?, &nothing, None)?.dims(), [2, 0, WIDTH]);
    Ok(())
}

#[test]
fn closed_gates_let_the_tokens_through() -> Result<()> {
    let (vars, vb) = drawn_weights();
    TransformerBlock::new(&transformer_config(), vb)?;
    let vars = vars.data().lock().expect("no other thread");
    let closed = vars.iter().map(|(name, var)| {
        let drawn = var.as_detached_tensor();
        Ok((name.clone(), if name.starts_with("modulation") { drawn.zeros_like()? } else { drawn }))
    });
    let closed = VarBuilder::from_tensors(closed.collect::<Result<_>>()?, DType::F32, &Device::Cpu);
    let block = TransformerBlock::new(&transformer_config(), closed)?;
    let x = random(&[2, 3, WIDTH])?;
    same("modulation of zeros", &attend(&block, &x, Some(&random(&[2, CONDITION])?))?, &x);
    Ok(())
}

#[test]
fn layers_around_the_blocks() -> Result<()> {
    let mlp = Mlp::new((8, 16, 4), 0, Activation::Gelu, drawn_weights().1)?;
    assert_eq!(mlp.forward(&random(&[2, 3, 8])?)?.dim(D::Minus1)?, 4);
    for shape in [&[2, 3, 16][..], &[2, 3, 1], &[]] {
        refused("another width", mlp.forward(&random(shape)?), &["[.., 8]", &format!("{shape:?}")]);
    }
    let embedding = |width, coordinates| SinCosEmbedding::new(width, coordinates, 10_000.0, drawn_weights().1);
    let odd = embedding(37, 3)?.forward(&random(&[5, 3])?)?;
    assert_eq!(odd.dims(), [5, 37]);
    same("the channel that is left over", &odd.narrow(1, 36, 1)?, &odd.narrow(1, 36, 1)?.zeros_like()?);
    for shape in [&[5][..], &[5, 2], &[2, 5, 4], &[]] {
        refused("coordinates", embedding(36, 3)?.forward(&random(shape)?), &["[.., 3]", &format!("{shape:?}")]);
    }
    assert_eq!(embedding(36, 3)?.forward(&random(&[3])?)?.dims(), [36], "one position");
    refused("too narrow", embedding(4, 3), &["4 channels for 3 coordinates"]);
    Ok(())
}
