//! Layers that make their plans themselves: anchor, dot-product and perceiver attention.

use candle_core::Result;
use candle_mixed_attention::{
    AnchorAttention, AnchorAttentionConfig, AnchorKind, AttentionOptions, AttentionPattern, DotProductAttention,
    DotProductAttentionConfig, MixedAttentionConfig, PerceiverAttention, PerceiverAttentionConfig,
};

use crate::small::{HEAD_DIM, HEADS, WIDTH, bias_of, frequencies, random, same, tokens, weights};
use crate::support::refusal::refused;

fn anchor_layer(kind: AnchorKind, domains: &[&str]) -> Result<AnchorAttention> {
    let attention = MixedAttentionConfig::new(WIDTH, HEADS);
    AnchorAttention::new(&AnchorAttentionConfig::new(attention, kind, domains.iter().copied()), weights())
}

#[test]
fn domains_that_cannot_work_are_refused() -> Result<()> {
    use AnchorKind::{Cross, Joint, Own};
    refused("no domains", anchor_layer(Own, &[]), &["at least one domain"]);
    refused("cross with one domain", anchor_layer(Cross, &["a"]), &["cross", "at least two", "[\"a\"]"]);
    refused("joint with one domain", anchor_layer(Joint, &["a"]), &["joint", "at least two", "[\"a\"]"]);
    refused("a domain named twice", anchor_layer(Own, &["a", "a"]), &["'a'", "twice"]);

    let layer = anchor_layer(Own, &["a", "b"])?;
    type Case = (&'static str, &'static [(&'static str, usize)], &'static [&'static str]);
    let cases: &[Case] = &[
        (
            "an unknown token",
            &[("a_anchors", 3), ("b_anchors", 2), ("z_queries", 2)],
            &["'z_queries'", "[\"a\", \"b\"]"],
        ),
        ("a domain without tokens", &[("a_anchors", 7)], &["'b'", "no token group"]),
        ("a domain without anchors", &[("a_anchors", 3), ("b_queries", 4)], &["'b'", "'b_anchors'"]),
        ("a name that merely starts like a domain", &[("a_anchors", 3), ("b_anchors", 2), ("bX", 2)], &["'bX'", "'_'"]),
    ];
    for (case, groups, words) in cases {
        let x = random(&[1, 7, WIDTH])?;
        refused(case, layer.forward(&x, &tokens(groups), &AttentionOptions::default()), words);
    }
    Ok(())
}

#[test]
fn domain_names_may_start_alike() -> Result<()> {
    use AnchorKind::{Cross, Joint, Own};
    let groups = tokens(&[("wing_anchors", 2), ("wing_queries", 1), ("wing_tip_anchors", 3), ("wing_tip_queries", 2)]);
    let (wing, tip) = (["wing_anchors", "wing_queries"], ["wing_tip_anchors", "wing_tip_queries"]);
    for (kind, seen_by_wing, seen_by_tip) in [
        (Own, vec!["wing_anchors"], vec!["wing_tip_anchors"]),
        (Cross, vec!["wing_tip_anchors"], vec!["wing_anchors"]),
        (Joint, vec!["wing_anchors", "wing_tip_anchors"], vec!["wing_anchors", "wing_tip_anchors"]),
    ] {
        let layer = anchor_layer(kind, &["wing", "wing_tip"])?;
        let x = random(&[1, 8, WIDTH])?;
        let got = layer.forward(&x, &groups, &AttentionOptions::default())?;
        let patterns = [
            AttentionPattern::queries(wing).attend_to(seen_by_wing),
            AttentionPattern::queries(tip).attend_to(seen_by_tip),
        ];
        let explicit = layer.attention().forward_patterns(&x, &groups, &patterns, &AttentionOptions::default())?;
        same(&format!("{kind:?}"), &got, &explicit);
    }
    Ok(())
}

#[test]
fn empty_anchors_give_the_bias() -> Result<()> {
    let layer = anchor_layer(AnchorKind::Own, &["a"])?;
    let groups = tokens(&[("a_anchors", 0), ("a_queries", 3)]);
    let y = layer.forward(&random(&[1, 3, WIDTH])?, &groups, &AttentionOptions::default())?;
    same("no anchors", &y, &bias_of(layer.attention())?.broadcast_as((1, 3, WIDTH))?);
    Ok(())
}

#[test]
fn dot_product_and_perceiver_calls() -> Result<()> {
    let none = AttentionOptions::default;
    let x = random(&[1, 3, WIDTH])?;
    for use_rope in [false, true] {
        let config = DotProductAttentionConfig(MixedAttentionConfig::new(WIDTH, HEADS).use_rope(use_rope));
        let layer = DotProductAttention::new(&config, weights())?;
        let wrong = if use_rope { none() } else { none().rope(&frequencies(1, 3, HEAD_DIM)?) };
        refused("frequencies that do not agree with use_rope", layer.forward(&x, &wrong), &["use_rope", "frequencies"]);
    }

    let config = |use_rope| PerceiverAttentionConfig {
        hidden_dim: WIDTH,
        num_heads: HEADS,
        num_kv_heads: None,
        kv_dim: Some(20),
        bias: true,
        use_rope,
    };
    let source = random(&[1, 4, 20])?;
    let angles = frequencies(1, 4, HEAD_DIM)?;
    let plain = PerceiverAttention::new(&config(false), weights())?;
    let rotating = PerceiverAttention::new(&config(true), weights())?;
    refused("angles of the source missing", rotating.encode(&source, None, None), &["the source", "use_rope = true"]);
    refused("angles of the source without RoPE", plain.encode(&source, Some(&angles), None), &["use_rope = false"]);
    let encoded = rotating.encode(&source, Some(&angles), None)?;
    refused("angles of the queries missing", rotating.forward(&x, &encoded, &none()), &["x", "use_rope = true"]);
    let wide = random(&[1, 4, WIDTH])?;
    refused("a source of another width", plain.encode(&wide, None, None), &["source", "20", "[1, 4, 32]"]);
    let empty = plain.encode(&source.narrow(1, 0, 0)?, None, None)?;
    let y = plain.forward(&x, &empty, &none())?;
    assert_eq!(y.dims(), [1, 3, WIDTH]);
    let first = y.narrow(1, 0, 1)?;
    same("a source without tokens: every row is the bias", &y, &first.broadcast_as((1, 3, WIDTH))?.contiguous()?);
    Ok(())
}
