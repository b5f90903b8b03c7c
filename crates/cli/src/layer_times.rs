//! Where a net's time goes: the spans in which `zoo-layers` runs its layers, measured.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use zoo_layers::LAYER_SPANS;

/// Time by layer since the last [`take`].
static SPENT: Mutex<Option<HashMap<String, Duration>>> = Mutex::new(None);

/// What listens to the spans.
pub struct LayerTimes;

/// Whether a span is a layer's.
pub fn is_layer(metadata: &Metadata) -> bool {
    metadata.target() == LAYER_SPANS
}

/// The time spent in each layer since the last call.
pub fn take() -> HashMap<String, Duration> {
    SPENT.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

/// A layer that is running.
struct Running {
    name: String,
    since: Option<Instant>,
}

impl Visit for Running {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            value.clone_into(&mut self.name);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LayerTimes {
    fn on_new_span(&self, attributes: &Attributes, id: &Id, context: Context<S>) {
        let mut running = Running { name: String::new(), since: None };
        attributes.record(&mut running);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(running);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<S>) {
        if let Some(span) = context.span(id)
            && let Some(running) = span.extensions_mut().get_mut::<Running>()
        {
            running.since = Some(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<S>) {
        if let Some(span) = context.span(id)
            && let Some(running) = span.extensions_mut().get_mut::<Running>()
            && let Some(since) = running.since.take()
        {
            let mut spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
            *spent.get_or_insert_default().entry(running.name.clone()).or_default() += since.elapsed();
        }
    }
}
