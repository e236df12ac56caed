//! Later passes past a cache.

use candle_core::{Result, Tensor};
use candle_mixed_attention::{AttentionOptions, AttentionPlan, KvCache, MixedAttention, MixedAttentionConfig};

use crate::small::{HEAD_DIM, HEADS, WIDTH, frequencies, layer, mask, plan, random, same, small_plan, weights};
use crate::support::refusal::refused;

/// Anchors of two domains and queries of one, and the plan of a later pass of those queries.
fn anchored() -> AttentionPlan {
    plan(
        &[("a_anchors", 3), ("a_queries", 5), ("b_anchors", 4)],
        &["a_anchors a_queries -> a_anchors b_anchors", "b_anchors -> b_anchors"],
    )
}

#[test]
fn caches_that_do_not_fit_are_refused() -> Result<()> {
    let none = AttentionOptions::default;
    let layer = layer(false)?;
    let first = anchored();
    let (_, cache) = layer.forward_and_cache(&random(&[2, 12, WIDTH])?, &first, &none())?;
    let step = first.cached_queries("a_queries", 6).expect("a valid step");
    let x = random(&[2, 6, WIDTH])?;

    refused("a cached group and no cache", layer.forward(&x, &step, &none()), &["a_anchors", "no cache was given"]);
    let only_a = KvCache::from_groups(
        [("a_anchors", random(&[2, HEADS, 3, HEAD_DIM])?, random(&[2, HEADS, 3, HEAD_DIM])?)],
        None,
    )?;
    refused(
        "a group that is not cached",
        layer.forward_from_cache(&x, &step, &only_a, &none()),
        &["'b_anchors'", "a_anchors"],
    );
    refused(
        "a cache that no group uses",
        layer.forward_from_cache(&random(&[2, 7, WIDTH])?, &small_plan(), &cache, &none()),
        &["would be ignored"],
    );
    refused(
        "a cache of 2 rows for a batch of 3",
        layer.forward_from_cache(&random(&[3, 6, WIDTH])?, &step, &cache, &none()),
        &["cache", "2", "3"],
    );
    let other = MixedAttention::new(&MixedAttentionConfig::new(WIDTH, 4), weights())?;
    refused("a cache of other heads", other.forward_from_cache(&x, &step, &cache, &none()), &["heads", "2", "4"]);
    let fits = layer.forward_from_cache(&x, &step, &cache, &none())?;
    assert_eq!(fits.dims(), x.dims());
    refused(
        "a group of another size",
        layer.forward_from_cache(
            &x,
            &step,
            &layer
                .forward_and_cache(
                    &random(&[2, 13, WIDTH])?,
                    &plan(
                        &[("a_anchors", 4), ("a_queries", 5), ("b_anchors", 4)],
                        &["a_anchors a_queries b_anchors -> a_anchors b_anchors"],
                    ),
                    &none(),
                )?
                .1,
            &none(),
        ),
        &["'a_anchors'", "3", "4"],
    );
    let padded = none().key_padding(mask(&[&[1; 6]])?);
    refused(
        "a mask that would be ignored",
        layer.forward_from_cache(&x, &step, &cache, &padded),
        &["key_padding", "cache"],
    );
    let unknown = none().cache_groups(["nobody"]);
    refused(
        "an unknown group to cache",
        layer.forward_and_cache(&random(&[2, 12, WIDTH])?, &first, &unknown),
        &["'nobody'"],
    );
    Ok(())
}

#[test]
fn a_first_pass_caches_the_anchors() -> Result<()> {
    let layer = layer(true)?;
    let plan = plan(&[("a_anchors", 3), ("x_anchor_y", 2), ("b", 4)], &["a_anchors x_anchor_y b -> a_anchors"]);
    let options = AttentionOptions::default().rope(&frequencies(2, 9, HEAD_DIM)?);
    let (_, cache) = layer.forward_and_cache(&random(&[2, 9, WIDTH])?, &plan, &options)?;
    assert_eq!(cache.layout().names(), ["a_anchors", "x_anchor_y"]);
    let (keys, values) = cache.group("x_anchor_y")?;
    assert_eq!((keys.dims(), values.dims()), ([2, HEADS, 2, HEAD_DIM].as_slice(), [2, HEADS, 2, HEAD_DIM].as_slice()));
    Ok(())
}

#[test]
fn cached_and_fresh_keys_mix() -> Result<()> {
    let layer = layer(true)?;
    let none = AttentionOptions::default;
    let joint = plan(&[("a_anchors", 3), ("b", 4)], &["a_anchors -> a_anchors", "b -> a_anchors b"]);
    let frequencies = frequencies(2, 7, HEAD_DIM)?;
    let x = random(&[2, 7, WIDTH])?;
    let (whole, cache) = layer.forward_and_cache(&x, &joint, &none().rope(&frequencies))?;
    let step = joint.with_cached(["a_anchors"], [("b", 4)]).expect("a valid step");
    let later = none().rope(&frequencies.narrow(3, 4)?);
    let y = layer.forward_from_cache(&x.narrow(1, 3, 4)?, &step, &cache, &later)?;
    same("keys of the cache and of the input", &y, &whole.narrow(1, 3, 4)?);
    // Nothing asks any more.
    let step = joint.with_cached(["a_anchors"], [("b", 0)]).expect("a valid step");
    let later = none().rope(&frequencies.narrow(3, 0)?);
    assert_eq!(layer.forward_from_cache(&x.narrow(1, 3, 0)?, &step, &cache, &later)?.dims(), [2, 0, WIDTH]);
    Ok(())
}

#[test]
fn a_cache_keeps_its_padding() -> Result<()> {
    let layer = layer(false)?;
    let first = plan(&[("a_anchors", 5), ("b", 4)], &["a_anchors b -> a_anchors"]);
    let options =
        AttentionOptions::default().key_padding(mask(&[&[1, 1, 0, 1, 0, 1, 1, 1, 1], &[1, 0, 0, 0, 0, 1, 1, 1, 1]])?);
    let x = random(&[2, 9, WIDTH])?;
    let (whole, cache) = layer.forward_and_cache(&x, &first, &options)?;
    let step = first.cached_queries("b", 4).expect("a valid step");
    let y = layer.forward_from_cache(&x.narrow(1, 5, 4)?, &step, &cache, &AttentionOptions::default())?;
    same("padded anchors", &y, &whole.narrow(1, 5, 4)?);
    Ok(())
}

#[test]
fn a_cache_of_one_row_serves_every_row() -> Result<()> {
    let layer = layer(false)?;
    let first = anchored();
    let x = random(&[1, 12, WIDTH])?;
    let (_, cache) = layer.forward_and_cache(&x, &first, &AttentionOptions::default())?;
    let step = first.cached_queries("a_queries", 6).expect("a valid step");
    let queries = random(&[2, 6, WIDTH])?;
    let both = layer.forward_from_cache(&queries, &step, &cache, &AttentionOptions::default())?;
    for row in 0..2 {
        let one = layer.forward_from_cache(&queries.narrow(0, row, 1)?, &step, &cache, &AttentionOptions::default())?;
        same("one row of the cache", &both.narrow(0, row, 1)?, &one);
    }
    Ok(())
}

#[test]
fn groups_whose_name_has_a_word_for_anchors_are_cached() -> Result<()> {
    let layer = layer(false)?;
    for (name, cached) in [
        ("anchors", true),
        ("anchor", true),
        ("anchors_2", true),
        ("hull_anchors", true),
        ("hull_anchor_points", true),
        ("ranchors", false),
        ("an_chor", false),
    ] {
        let plan = plan(&[(name, 3), ("queries", 2)], &[&format!("{name} queries -> {name}")]);
        let result = layer.forward_and_cache(&random(&[1, 5, WIDTH])?, &plan, &AttentionOptions::default());
        match cached {
            true => assert_eq!(result?.1.layout().names(), [name]),
            false => refused(name, result, &["cache_groups", "anchors", name]),
        }
    }
    Ok(())
}

/// Two caches of which the second continues a group of the first and adds one, with padding in the second alone.
#[test]
fn an_appended_cache_is_the_cache_of_all_tokens() -> Result<()> {
    let tokens = |count: usize| random(&[2, HEADS, count, HEAD_DIM]);
    let (past, more, other) = ((tokens(4)?, tokens(4)?), (tokens(3)?, tokens(3)?), (tokens(2)?, tokens(2)?));
    let first = KvCache::from_groups([("past", past.0.clone(), past.1.clone())], None)?;
    let later = [("other", other.0.clone(), other.1.clone()), ("past", more.0.clone(), more.1.clone())];
    let later = KvCache::from_groups(later, Some(mask(&[&[1, 1, 0, 1, 1], &[1, 0, 1, 1, 1]])?))?;
    let got = first.append(&later)?;
    let cat = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 2);
    let past = ("past", cat(&past.0, &more.0)?, cat(&past.1, &more.1)?);
    let padding = mask(&[&[1, 1, 1, 1, 0, 1, 1, 1, 1], &[1, 1, 1, 1, 1, 1, 1, 1, 0]])?;
    let want = KvCache::from_groups([past, ("other", other.0, other.1)], Some(padding))?;
    assert_eq!(got.fingerprint(), want.fingerprint());
    assert_eq!(got.padding(), want.padding());
    same("keys", got.keys(), want.keys());
    same("values", got.values(), want.values());

    // A row that serves the whole batch is repeated, on either side.
    let row = |cache: &KvCache| {
        let (keys, values) = cache.group("past")?;
        KvCache::from_groups([("past", keys.narrow(0, 0, 1)?, values.narrow(0, 0, 1)?)], None)
    };
    assert_eq!(row(&first)?.append(&later)?.batch(), 2);
    let repeated = later.append(&row(&first)?)?;
    same("row", &repeated.group("past")?.0.narrow(2, 3, 4)?.narrow(0, 1, 1)?, &row(&first)?.group("past")?.0);

    let wide = random(&[2, HEADS, 3, HEAD_DIM + 1])?;
    let wide = KvCache::from_groups([("past", wide.clone(), wide)], None)?;
    refused("another head_dim", first.append(&wide), &["appended cache", "16", "17"]);
    let three = random(&[3, HEADS, 3, HEAD_DIM])?;
    let three = KvCache::from_groups([("past", three.clone(), three)], None)?;
    refused("another batch", first.append(&three), &["appended cache", "3", "2"]);
    Ok(())
}

/// Anchors that come in two passes, the later of which see the earlier, serve like anchors of one pass.
#[test]
fn a_cache_grows_pass_by_pass() -> Result<()> {
    let layer = layer(true)?;
    let frequencies = frequencies(1, 9, HEAD_DIM)?;
    let x = random(&[2, 9, WIDTH])?;
    let rope =
        |start, len| Ok::<_, candle_core::Error>(AttentionOptions::default().rope(&frequencies.narrow(start, len)?));
    let groups = [("early_anchors", 3), ("late_anchors", 4), ("queries", 2)];
    let patterns = ["early_anchors -> early_anchors", "late_anchors queries -> early_anchors late_anchors"];
    let whole = layer.forward(&x, &plan(&groups, &patterns), &rope(0, 9)?)?;

    let first = plan(&[("early_anchors", 3)], &["early_anchors -> early_anchors"]);
    let (_, early) = layer.forward_and_cache(&x.narrow(1, 0, 3)?, &first, &rope(0, 3)?)?;
    let second = plan(&groups, &patterns).with_cached(["early_anchors"], [("late_anchors", 4)]).expect("a valid step");
    let late = x.narrow(1, 3, 4)?;
    let (y, cache) = layer.forward_and_append(&late, &second, &early, &rope(3, 4)?)?;
    same("late anchors", &y, &whole.narrow(1, 3, 4)?);
    assert_eq!(cache.layout().names(), ["early_anchors", "late_anchors"]);

    let third = plan(&groups, &patterns).with_cached(["early_anchors", "late_anchors"], [("queries", 2)]);
    let y = layer.forward_from_cache(&x.narrow(1, 7, 2)?, &third.expect("a valid step"), &cache, &rope(7, 2)?)?;
    same("queries", &y, &whole.narrow(1, 7, 2)?);
    Ok(())
}
