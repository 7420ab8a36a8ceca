//! The end-to-end tests: each starts the binary as a user does and speaks to it over its interfaces.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod architecture;
mod aws;
mod bad_input;
mod command_line;
mod conformance;
mod control;
mod crash;
mod dead_letters;
mod deduplication;
mod delivery;
mod dlq;
mod elasticsearch;
mod examples;
mod explain;
mod faults;
mod filters;
mod flows;
mod http_sink;
mod ingress;
mod kafka;
mod limits;
mod manifests;
mod passthrough;
mod processes;
mod reference;
mod registry;
mod reload;
mod replay;
mod replies;
mod restart;
mod routing;
mod shutdown;
mod tail;
mod transformations;
mod user_tests;
