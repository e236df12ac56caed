//! Any way of cutting points into chunks gives the same fields.

use std::cell::Cell;
use std::ops::ControlFlow;

use candle_core::Tensor;
use candle_mixed_attention::models::ab_upt::{AbUptError, EncodedBody, PredictedFields, Predictor};

use crate::fixtures::{BODY, Golden, sample, sample_points};
use crate::support::compare::check_close;

/// Chunks side by side.
fn joined(chunks: &[PredictedFields], field: &str) -> Tensor {
    let parts: Vec<_> = chunks.iter().map(|chunk| chunk.get(field).unwrap()).collect();
    Tensor::cat(&parts, 0).unwrap()
}

/// Checks that chunks follow each other and give what one pass gives.
fn assert_same(body: &EncodedBody, domain: &str, positions: &[f32], chunk: usize, tolerance: f64) {
    let whole = body.predict(domain, positions).unwrap();
    let width = body.predictor().model().config().position_dim;
    let pieces: Vec<_> = positions
        .chunks(chunk * width)
        .enumerate()
        .map(|(at, piece)| body.predict_from(domain, (at * chunk) as u64, piece).unwrap())
        .collect();
    let mut next = 0;
    for piece in &pieces {
        assert_eq!(piece.points().start, next);
        next = piece.points().end;
    }
    assert_eq!(next, (positions.len() / width) as u64);
    for (field, values) in whole.iter() {
        check_close(&format!("{domain} {field} by {chunk}"), &joined(&pieces, field), values, tolerance).unwrap();
    }
}

#[test]
fn the_demo_gives_the_same_in_chunks_of_any_size() {
    for domain in ["surface", "volume"] {
        let queries = sample(&format!("{domain}.queries"));
        for chunk in [97, 1000, 1 << 20] {
            assert_same(&BODY, domain, &queries, chunk, 3e-6);
        }
        assert_same(&BODY, domain, &queries[..30 * 3], 1, 3e-6);
    }
}

#[test]
fn every_golden_network_gives_the_same_in_chunks() {
    let cases = Golden::all();
    assert!(cases.len() >= 10, "{} networks", cases.len());
    for case in cases {
        let body = case.predictor().encode(&case.random_input(7)).unwrap();
        for domain in &case.config.domains {
            for chunk in [1, 4, 13] {
                assert_same(&body, &domain.name, &case.random_points(29, 8), chunk, case.tolerance);
            }
        }
    }
}

#[test]
fn the_iterator_gives_one_pass_and_stops() {
    let points = sample_points("surface.queries");
    let chunks: Vec<_> = BODY.chunks("surface", points.iter().copied(), 1000).map(Result::unwrap).collect();
    let ranges: Vec<_> = chunks.iter().map(PredictedFields::points).collect();
    assert_eq!(ranges, [0..1000, 1000..2000, 2000..3000, 3000..4000, 4000..4608]);
    let whole = BODY.predict("surface", points.as_flattened()).unwrap();
    check_close("pressure", &joined(&chunks, "pressure"), whole.get("pressure").unwrap(), 3e-6).unwrap();

    let mut exact = BODY.chunks("surface", points[..2000].iter().copied(), 1000);
    assert_eq!(exact.by_ref().count(), 2);
    assert!(exact.next().is_none());
}

#[test]
fn only_one_chunk_is_taken_ahead() {
    let taken = Cell::new(0);
    let endless = std::iter::repeat_with(|| {
        taken.set(taken.get() + 1);
        [1.5f32, 0.25, 2.0]
    });
    let mut chunks = BODY.chunks("volume", endless, 50);
    for done in 1..=4 {
        assert_eq!(chunks.next().unwrap().unwrap().points(), (done - 1) * 50..done * 50);
        assert_eq!(taken.get(), done * 50);
    }
}

#[test]
fn breaking_cancels_between_chunks() {
    let (mut seen, taken) = (Vec::new(), Cell::new(0));
    let points = sample_points("volume.queries").into_iter().inspect(|_| taken.set(taken.get() + 1));
    let result = BODY.for_each_chunk("volume", points, 100, |fields| {
        seen.push(fields.points());
        if seen.len() == 3 { ControlFlow::Break("cancelled") } else { ControlFlow::Continue(()) }
    });
    assert_eq!(result.unwrap(), ControlFlow::Break("cancelled"));
    assert_eq!((seen.len(), taken.get()), (3, 300));

    let all = BODY.for_each_chunk("volume", sample_points("volume.anchors"), 100, |fields| {
        seen.push(fields.points());
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(all.unwrap(), ControlFlow::Continue(()));
    assert_eq!(seen.last(), Some(&(500..512)));
}

#[test]
fn no_points_give_no_values() {
    let fields = BODY.predict::<f32>("volume", &[]).unwrap();
    assert_eq!(fields.points(), 0..0);
    assert_eq!(fields.get("velocity").unwrap().dims(), [0, 3]);
    assert_eq!(BODY.chunks("volume", Vec::<[f32; 3]>::new(), 10).count(), 0);
}

#[test]
fn an_error_ends_the_iterator_and_names_the_point_in_the_stream() {
    let mut points = vec![[1.5f32, 0.25, 2.0]; 500];
    points[321][1] = f32::NAN;
    let results: Vec<_> = BODY.chunks("volume", points, 100).collect();
    assert_eq!(results.len(), 4);
    assert!(results[..3].iter().all(Result::is_ok));
    let error = results[3].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "queries of 'volume' must be finite, got NaN as y of point 321");
}

#[test]
fn chunks_that_cannot_work_are_refused() {
    let refuse = |result: Option<Result<PredictedFields, AbUptError>>| result.unwrap().unwrap_err().to_string();
    let points = [[1.5f32, 0.25, 2.0]; 5];
    assert_eq!(refuse(BODY.chunks("volume", points, 0).next()), "a chunk must have at least 1 point, got 0");
    let flat = [[1.5f32, 0.25]; 6];
    let message = refuse(BODY.chunks("volume", flat, 3).next());
    assert_eq!(message, "queries of 'volume' must have 3 components per point, got 2");
    assert!(refuse(BODY.chunks("wake", points, 3).next()).contains("domain 'wake'"));
}

#[test]
fn a_body_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<(Predictor, EncodedBody, AbUptError)>();
    let points = sample("surface.queries");
    let whole = BODY.predict("surface", &points).unwrap().values("pressure").unwrap();
    let half = points.len() / 6 * 3;
    let values = |points: &[f32]| BODY.predict("surface", points).unwrap().values("pressure").unwrap();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| values(&points[..half]));
        let second = scope.spawn(|| values(&points[half..]));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (threaded, whole) in first.iter().chain(&second).zip(&whole) {
        assert!((threaded - whole).abs() <= 3e-6, "{threaded} for {whole}");
    }
}
