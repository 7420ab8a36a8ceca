//! One file per command of the command line.

pub(crate) mod check;
pub(crate) mod completions;
mod connect;
pub(crate) mod dlq;
pub(crate) mod explain;
pub(crate) mod log;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod test;
pub(crate) mod trigger;
