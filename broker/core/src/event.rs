//! Stub.
/// Stub.
pub struct Event;
