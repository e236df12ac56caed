//! Counts what is made of plans: each plan that is resolved, each schedule, each upload is an event.
//!
//! One test in a program of its own: which events are wanted is remembered by the whole process, so that threads without a
//! subscriber would have a say in what is counted.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::Result;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use support::ab_upt::{config, input, model, parse, points};

/// How often `call` made something of a plan on this thread.
fn made_by<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let made = Arc::new(AtomicUsize::new(0));
    let result = tracing::subscriber::with_default(Planning(made.clone()), call);
    (result, made.load(Relaxed))
}

struct Planning(Arc<AtomicUsize>);

impl Subscriber for Planning {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("candle_mixed_attention")
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Each chunk of a stream would otherwise plan anew, and a GPU upload its schedules anew.
#[test]
fn a_stream_of_equal_chunks_is_planned_once() -> Result<()> {
    let model = model(&parse(config()))?;
    let cache = model.forward(&input(1)?.anchors("wing", &points(1, 9)?).anchors("wing_tip", &points(1, 5)?))?.cache;
    let chunk = |size: usize| -> Result<usize> {
        let queries = points(1, size)?;
        let (fields, made) = made_by(|| model.forward_from_cache([("wing", queries)], &cache));
        fields?;
        Ok(made)
    };
    assert!(chunk(7)? > 0);
    assert_eq!([chunk(7)?, chunk(7)?], [0, 0]);
    // The end of one stream, and the next one.
    assert!(chunk(3)? > 0);
    assert_eq!([chunk(7)?, chunk(3)?], [0, 0]);
    Ok(())
}
