//! One file per outside system: how to reach it, and what its failures mean.

#[cfg(feature = "aws")]
pub mod aws;
pub mod elasticsearch;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
mod problem;

pub use problem::{Problem, ProblemKind};
