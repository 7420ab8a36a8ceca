//! One file per outside system: how to reach it, and what its failures mean.

#[cfg(feature = "aws")]
pub mod aws;
pub mod elasticsearch;
pub mod google;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod nats;
mod problem;
mod tls;

pub use problem::{Problem, ProblemKind};
