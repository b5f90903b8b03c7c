use tracing::span::EnteredSpan;

/// The target of the spans in which layers run.
pub const LAYER_SPANS: &str = "zoo::layer";

/// A span, at level trace, from here until it is dropped. Costs nothing while nobody listens.
pub fn layer_span(name: &str) -> EnteredSpan {
    tracing::trace_span!(target: "zoo::layer", "layer", name).entered()
}
