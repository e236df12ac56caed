//! Plans that cannot work, and what a plan means.

use candle_core::Result;
use candle_mixed_attention::{AttentionOptions, AttentionPlan, DomainRuns, KeyPadding, TokenSpec};

use crate::small::{WIDTH, layer, pattern, plan, random, same, tokens};
use crate::support::compare::check_close;
use crate::support::refusal::refused;

#[test]
fn plans_that_cannot_work_are_refused() {
    type Case = (&'static str, &'static [(&'static str, usize)], &'static [&'static str], &'static [&'static str]);
    let cases: &[Case] = &[
        ("a group asks in two patterns", &[("a", 3)], &["a -> a", "a -> a"], &["'a'", "pattern 0", "pattern 1"]),
        ("a group is named twice in one list of queries", &[("a", 3)], &["a a -> a"], &["'a'", "query"]),
        ("a group asks nowhere", &[("a", 3), ("b", 4)], &["a -> a"], &["'b'", "4 tokens", "no pattern"]),
        ("an unknown group asks", &[("a", 3)], &["a c -> a"], &["'c'", "query_tokens", "[\"a\"]"]),
        ("an unknown group is asked", &[("a", 3)], &["a -> c"], &["'c'", "key_value_tokens", "[\"a\"]"]),
        ("two specs of one name", &[("a", 3), ("a", 3)], &["a -> a"], &["'a'", "twice"]),
        ("nobody asks in a pattern", &[("a", 3)], &["a -> a", " -> a"], &["pattern 1", "query_tokens"]),
        ("a pattern without keys", &[("a", 3)], &["a -> "], &["pattern 0", "key_value_tokens"]),
        ("no groups at all", &[], &[], &["at least one token group"]),
        ("sizes that overflow", &[("a", usize::MAX), ("b", 1)], &["a b -> a"], &["'b'"]),
    ];
    for (case, groups, patterns, words) in cases {
        let patterns: Vec<_> = patterns.iter().map(|text| pattern(text)).collect();
        refused(case, AttentionPlan::new(tokens(groups), patterns), words);
    }
    refused("a negative size", serde_json::from_str::<TokenSpec>(r#"{"name": "a", "size": -1}"#), &["-1"]);
}

#[test]
fn sizes_that_no_machine_holds_are_refused() {
    let huge = |groups: &[(&str, usize)]| AttentionPlan::new(tokens(groups), [pattern("a b -> a")]);
    refused("too many tokens", huge(&[("a", usize::MAX), ("b", 1)]), &["'b'", "tokens"]);
    refused("too many pairs", huge(&[("a", 1 << 33), ("b", 0)]), &["pairs", "18446744073709551615"]);
    let large = huge(&[("a", 1 << 31), ("b", 5)]).expect("countable pairs");
    assert_eq!(large.visible_pairs(), Ok(((1 << 31) + 5) * (1 << 31)));
    let large = huge(&[("a", 1), ("b", 1 << 62)]).expect("countable pairs");
    refused("a dense mask", large.to_dense_mask(), &["memory", "4611686018427387905"]);
    refused("a long mask", KeyPadding::from_lengths(&[5], 1 << 62), &["key_padding", "memory"]);
    let runs = DomainRuns::from_sizes(&[usize::MAX]);
    assert_eq!(runs.tokens(), usize::MAX);
}

#[test]
fn a_group_named_twice_among_the_keys_counts_twice() -> Result<()> {
    let layer = layer(false)?;
    let x = random(&[1, 7, WIDTH])?;
    let run = |keys: &str| {
        let plan = plan(&[("a", 3), ("b", 4)], &[&format!("a b -> {keys}")]);
        layer.forward(&x, &plan, &AttentionOptions::default())
    };
    same("all keys twice", &run("a a")?, &run("a")?);
    assert!(check_close("some keys twice", &run("a b a")?, &run("a b")?, 1e-3).is_err());
    Ok(())
}

#[test]
fn the_order_of_the_patterns_does_not_matter() -> Result<()> {
    let layer = layer(false)?;
    let x = random(&[1, 7, WIDTH])?;
    let run =
        |patterns: &[&str]| layer.forward(&x, &plan(&[("a", 3), ("b", 4)], patterns), &AttentionOptions::default());
    same("patterns in another order", &run(&["b -> a b", "a -> b"])?, &run(&["a -> b", "b -> a b"])?);
    Ok(())
}

#[test]
fn a_later_pass_without_queries_is_refused() {
    let first = plan(&[("anchors", 3), ("queries", 4)], &["anchors queries -> anchors"]);
    let none: [(&str, usize); 0] = [];
    refused("no queries", first.with_cached(["anchors"], none), &["anchors", "at least one group of queries"]);
    assert_eq!(first.with_cached(["anchors"], [("queries", 0)]).map(|step| step.len()), Ok(0));
}
