//! The source components: where events come from. One file each, one line in [`SOURCES`].

use waypost_core::source::SourceType;

mod schedule;

pub use schedule::ScheduleConfig;

/// What the `spec` of a `kind: Source` may hold, by key.
pub const SOURCES: &[SourceType] = &[SourceType::of::<ScheduleConfig>()];
