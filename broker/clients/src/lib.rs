//! One file per outside system: how to reach it, and what its failures mean.

pub mod http;
