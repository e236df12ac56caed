//! Every reader of the library on its seeds and on changes of them: no panic, no hang, and no more memory than a multiple of
//! the input. `FUZZ_SECONDS=120 cargo test --release --test fuzz_seeds` gives each two minutes; `fuzz/README.md` says more.

#[path = "../fuzz/src/counting.rs"]
mod counting;
#[path = "../fuzz/src/readers.rs"]
mod readers;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

use candle_mixed_attention::models::ab_upt::PredictorInput;

#[test]
fn no_input_stops_a_reader() {
    for (name, read) in readers::READERS {
        seeds::check(name, read);
    }
}

/// Otherwise changes of it would be refused at the door. `WRITE_SEEDS=1` makes it again where files have changed.
#[test]
fn the_seed_of_a_body_is_read_to_its_end() {
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/body/body.safetensors");
    let predictor = readers::predictor().expect("a small network");
    if std::env::var_os("WRITE_SEEDS").is_some() {
        let points = [0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6];
        let input = PredictorInput::new().geometry(&points, &[0, 1]).anchors("surface", &points);
        predictor.encode(&input.anchors("volume", &points)).unwrap().save(seed).unwrap();
    }
    let body = predictor.load(seed).unwrap();
    assert_eq!(body.predict("volume", &[0.1f32, 0.2, 0.3]).unwrap().points(), 0..1);
}
