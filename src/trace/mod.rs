//! Traces: what a request did and how long each part of it took, told to a collector (OpenTelemetry).
//!
//! Off unless an endpoint is configured; then nothing is kept and nothing is made, for the price of
//! one look at whether it is. Names are of a closed list or the route's pattern, attributes are counts,
//! types and statuses, and never an entity's id or a value.
//!
//! What is being worked on is ambient, as the principal is: a span that is begun inside another
//! ([`Span::around`]) is its child. Work that no request waits for leaves no spans, unless it begins
//! one itself ([`root`]).

mod export;

use std::cell::RefCell;
use std::sync::OnceLock;

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use crate::domain::name::EntityType;

pub use self::export::{Exporting, TraceConfig, start};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

tokio::task_local! {
    static CURRENT: RefCell<Context>;
}

/// Whether anything is traced.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A part of a request. It ends when it is dropped.
pub struct Span(Option<Context>);

/// The request itself: a child of the caller's span, where its headers name one (`traceparent`).
pub fn request(method: &'static str, route: &str, headers: &HeaderMap) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let caller =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let span =
        SpanBuilder::from_name(format!("{method} {route}")).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
        ]);
    Span(Some(caller.with_span(tracer.build_with_context(span, &caller))))
}

/// A part of what is being worked on; nothing where no request is.
pub fn part(name: &'static str) -> Span {
    child(name, SpanKind::Internal)
}

/// Asks another server on behalf of what is being worked on.
pub fn call(name: &'static str) -> Span {
    child(name, SpanKind::Client)
}

/// Asks another server on nobody's behalf.
pub fn root(name: &'static str) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let nobody = Context::new();
    let span = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
    Span(Some(nobody.with_span(tracer.build_with_context(span, &nobody))))
}

fn child(name: &'static str, kind: SpanKind) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let Ok(parent) = CURRENT.try_with(|current| current.borrow().clone()) else { return Span(None) };
    let span = SpanBuilder::from_name(name).with_kind(kind);
    Span(Some(parent.with_span(tracer.build_with_context(span, &parent))))
}

/// A part of what is being worked on, as whose children parts are begun until this is dropped.
pub fn enter(name: &'static str) -> Entered {
    let span = part(name);
    let before = span.0.clone().and_then(|context| CURRENT.try_with(|of| of.replace(context)).ok());
    Entered { span, before }
}

/// See [`enter`].
pub struct Entered {
    span: Span,
    before: Option<Context>,
}

impl Entered {
    pub fn about(self, entity_type: &EntityType) -> Self {
        self.set("feature_store.entity_type", || entity_type.to_string());
        self
    }
}

impl std::ops::Deref for Entered {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // An error: the request was given up, and nothing is worked on.
            let _ = CURRENT.try_with(|current| current.replace(before));
        }
    }
}

impl Span {
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an attribute, which is not made where nobody keeps it.
    pub fn set<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = self.0.as_ref().filter(|context| context.span().is_recording()) {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Says that it failed; `reason` is of a closed list.
    pub fn fail(&self, reason: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", reason));
            context.span().set_status(Status::error(reason));
        }
    }

    /// What log lines call the trace.
    pub fn trace_id(&self) -> Option<String> {
        Some(self.0.as_ref()?.span().span_context().trace_id().to_string())
    }

    /// Tells whom a request goes to of what it is a part.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    }

    /// Does `work` as this part.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => CURRENT.scope(RefCell::new(context.clone()), work).await,
            None => work.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}
