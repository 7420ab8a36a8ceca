//! What happens to an event between the log and its subscribers.
//!
//! A [`plan::Plan`] says what should run; the [`Engine`] runs it: brokers with their shared readers,
//! subscriptions with their windows and workers, forwarders of dead letters, sources and sinks.
//!
//! Calls go one way: supervisor → broker → reader → subscription → delivery → subscriber. Nothing calls back up.

mod alarm;
mod broker;
mod budget;
mod congestion;
mod context;
mod dead_letter;
mod deduplication;
mod delivery;
mod engine;
pub mod explain;
mod forwarder;
mod housekeeper;
mod logs;
mod matching;
mod metrics;
pub mod plan;
mod rate;
mod redrive;
mod replay;
mod sinks;
mod sources;
mod status;
mod subscriber;
mod subscription;
#[cfg(test)]
mod suite;
mod supervisor;
pub mod tail;
mod tasks;

pub use broker::{Broker, PublishError};
pub use budget::{Budget, Share};
pub use dead_letter::{
    InvalidLetterName, LetterAttempt, LetterChoice, LetterDetails, LetterEvent, LetterForwarding, LetterLine,
    LetterName, LetterOutputs, LetterQuery, MAX_NAMED_LETTERS,
};
pub use engine::{
    DEFAULT_DELIVERY_BUDGET_BYTES, DEFAULT_DETACHED_RETENTION, DEFAULT_INGEST_BUDGET_BYTES,
    DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_REQUEST_BYTES, Engine, EngineOptions, Limits, RecountLine,
};
pub use redrive::{RedriveError, RedrivePreview, RedriveRequest, RedriveState, RedriveStatus};
pub use replay::{MAX_REPLAYS, ReplayError, ReplayEstimate, ReplayRange, ReplayRequest, ReplayStatus};
pub use sinks::RunningSink;
pub use sources::{Receiving, RunningSource};
pub use status::{
    DEFAULT_STATUS_LIMIT, LogStatus, PlanStatus, ResourceStatus, Status, StatusQuery, TriggerStatus,
};
pub use subscriber::{is_passed_header, take_hops};
pub use subscription::{OperateError, SeekTo};
