//! Ingress: events come in by `POST /{namespace}/{broker}` and are answered when the log has them.
//!
//! The hot path is bare hyper: one route lookup, one decode, one append, and no body in the answer.

mod body;
mod counters;
mod direct;
mod handler;
mod metadata;
mod route;
mod source;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use waypost_engine::Engine;
use waypost_log::Clock;

use self::counters::Counters;
use crate::listener::Handle;

/// What a request is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    /// The most bytes of one event, attributes and data together.
    pub(crate) event_bytes: usize,
    /// The most bytes of a request's body, which may be a batch.
    pub(crate) request_bytes: usize,
    /// The time for a request's body to arrive.
    pub(crate) body_timeout: Duration,
}

/// Takes the requests of producers.
#[derive(Debug, Clone)]
pub(crate) struct Ingress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    clock: Clock,
    limits: RequestLimits,
    gate: Gate,
    counters: Counters,
}

impl Ingress {
    /// An ingress that answers 503 until it is opened.
    pub(crate) fn new(engine: Engine, clock: Clock, limits: RequestLimits) -> Self {
        Self(Arc::new(Inner { engine, clock, limits, gate: Gate::default(), counters: Counters::default() }))
    }

    /// Takes events from now on.
    pub(crate) fn open(&self) {
        self.0.gate.set(GateState::Open);
    }

    /// Takes no more events. Those under way are finished.
    pub(crate) fn close(&self) {
        self.0.gate.set(GateState::Closing);
    }

    /// Whether events are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.0.gate.state() == GateState::Open
    }

    /// What was answered so far, in the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        self.0.counters.text()
    }
}

impl Handle for Ingress {
    type Body = Full<Bytes>;

    // Without a future around the other, which would hold the request a second time.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send {
        handler::handle(&self.0, request)
    }
}

/// Whether ingress takes events.
#[derive(Debug, Default)]
struct Gate(AtomicU8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum GateState {
    Starting = 0,
    Open = 1,
    Closing = 2,
}

impl Gate {
    fn set(&self, state: GateState) {
        self.0.store(state as u8, Ordering::Release);
    }

    fn state(&self) -> GateState {
        match self.0.load(Ordering::Acquire) {
            0 => GateState::Starting,
            1 => GateState::Open,
            _ => GateState::Closing,
        }
    }
}

#[cfg(test)]
mod suite;
