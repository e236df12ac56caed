//! Layers whose weights differ from domain to domain.

use candle_core::{Result, Tensor};
use candle_mixed_attention::models::ab_upt::{TransformerBlock, TransformerBlockConfig};
use candle_mixed_attention::{DomainRuns, SquareBanks, TokenSpec, UntiedLinear, WeightSharing};

use crate::support::refusal::refused;
use crate::{drawn_weights, random, same};

const WIDTH: usize = 16;

/// A square layer of three domains, and its weights.
fn layer(square: SquareBanks) -> Result<(UntiedLinear, Vec<Tensor>)> {
    let (vars, vb) = drawn_weights();
    let layer = UntiedLinear::new((WIDTH, WIDTH), 3, false, square, &vb)?;
    let vars = vars.data().lock().expect("no other thread");
    Ok((layer, (0..3).map(|domain| vars[&format!("weight.{domain}")].as_detached_tensor()).collect()))
}

/// Each run of tokens through the weight of its domain.
fn by_hand(x: &Tensor, runs: &[(usize, usize)], weights: &[Tensor], square: SquareBanks) -> Result<Tensor> {
    let (mut start, mut parts) = (0, Vec::new());
    for &(domain, len) in runs.iter().filter(|(_, len)| *len > 0) {
        let weight = match square {
            SquareBanks::Transposed => weights[domain].t()?,
            SquareBanks::Plain => weights[domain].clone(),
        };
        parts.push(x.narrow(1, start, len)?.contiguous()?.broadcast_matmul(&weight.contiguous()?)?);
        start += len;
    }
    Tensor::cat(&parts, 1)
}

#[test]
fn the_sizes_of_the_domains_do_not_turn_the_weights_round() -> Result<()> {
    // The package multiplies by W or by its transpose, depending on how equal the sizes are, and takes the weights of
    // another domain where one in the middle is empty.
    for square in [SquareBanks::Plain, SquareBanks::Transposed] {
        let (layer, weights) = layer(square)?;
        for sizes in [[5, 5, 5], [10, 9, 9], [9, 3, 1], [3, 0, 3], [9, 0, 3], [0, 0, 4]] {
            let x = random(&[2, sizes.iter().sum(), WIDTH])?;
            let runs: Vec<_> = sizes.into_iter().enumerate().collect();
            let want = by_hand(&x, &runs, &weights, square)?;
            same(&format!("{square:?} {sizes:?}"), &layer.forward(&x, &DomainRuns::from_sizes(&sizes))?, &want);
        }
        let nothing = layer.forward(&random(&[2, 0, WIDTH])?, &DomainRuns::from_sizes(&[0, 0, 0]))?;
        assert_eq!(nothing.dims(), [2, 0, WIDTH]);
    }
    Ok(())
}

#[test]
fn groups_of_a_domain_need_not_be_neighbours() -> Result<()> {
    let (layer, weights) = layer(SquareBanks::Transposed)?;
    // Names that begin alike are different domains.
    let domains = ["far", "far_field", "far_wake"];
    let groups = [("far_wake_anchors", 2), ("far_anchors", 3), ("far_field_anchors", 1), ("far_wake_queries", 4)];
    let tokens = groups.map(|(name, size)| TokenSpec::new(name, size));
    let runs = DomainRuns::of_groups(&tokens, &domains).expect("known domains");
    let x = random(&[1, 10, WIDTH])?;
    let want = by_hand(&x, &[(2, 2), (0, 3), (1, 1), (2, 4)], &weights, SquareBanks::Transposed)?;
    same("domains that come again", &layer.forward(&x, &runs)?, &want);
    let stranger = [TokenSpec::new("near_anchors", 1)];
    refused("an unknown domain", DomainRuns::of_groups(&stranger, &domains), &["near_anchors", "far_wake"]);
    Ok(())
}

#[test]
fn domains_without_weights_and_sizes_that_do_not_fit() -> Result<()> {
    let (layer, _) = layer(SquareBanks::Transposed)?;
    let x = random(&[1, 8, WIDTH])?;
    let four = DomainRuns::from_sizes(&[4, 2, 1, 1]);
    refused("more domains than weights", layer.forward(&x, &four), &["domain 3 of 3"]);
    refused("other sizes", layer.forward(&x, &DomainRuns::from_sizes(&[4, 2, 1])), &["x has 8 tokens", "7"]);
    let none = UntiedLinear::new((4, 4), 0, true, SquareBanks::Plain, &drawn_weights().1);
    refused("no domains", none, &["number of domains", "0"]);
    Ok(())
}

#[test]
fn untied_feed_forward_layers_keep_their_biases() -> Result<()> {
    let (vars, vb) = drawn_weights();
    let config = TransformerBlockConfig {
        hidden_dim: WIDTH,
        num_heads: 2,
        mlp_hidden_dim: 32,
        condition_dim: None,
        layer_scale: false,
        bias: false,
        eps: 1e-6,
        use_rope: false,
    };
    let domains = ["a", "b"].map(String::from).to_vec();
    let sharing = WeightSharing::PerDomain { domains, square: SquareBanks::Plain };
    TransformerBlock::anchored(&config, &sharing, vb)?;
    let vars = vars.data().lock().expect("no other thread");
    let mut biases: Vec<_> = vars.keys().filter(|name| name.contains("bias")).cloned().collect();
    biases.sort();
    assert_eq!(biases, ["mlp.layers.0.bias.0", "mlp.layers.0.bias.1", "mlp.layers.1.bias.0", "mlp.layers.1.bias.1"]);
    Ok(())
}
