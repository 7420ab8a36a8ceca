//! The vocabulary of Waypost: events and their codecs, filters, manifests, delivery policy, and the traits
//! that sources, sinks and transformations implement.
//!
//! Nothing in this package opens a socket or a file, reads a clock or spawns a task.

pub mod aside;
pub mod codes;
pub mod delivery;
pub mod duration;
pub mod error;
pub mod event;
pub mod filter;
pub mod manifest;
pub mod prefetch;
pub mod receive;
pub mod secret;
pub mod sink;
pub mod size;
pub mod source;
pub mod template;
pub mod transformation;

pub use codes::Code;
pub use error::{Class, DeliveryError};
pub use event::Event;
