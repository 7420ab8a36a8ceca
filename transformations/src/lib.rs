//! The transformation components: what turns one event into none, one or several. One file each, one line in
//! [`TRANSFORMATIONS`].
//!
//! A type is a struct with the settings that users write, which implements
//! [`waypost_core::transformation::TransformationConfig`], and what it compiles to, which implements
//! [`waypost_core::transformation::Transformation`]. Both are pure: no I/O, no clock, no randomness, so that an
//! event that is transformed again after a crash gives the same events.

mod fields;
mod filter;
mod jsonpath;
#[cfg(test)]
mod triggermesh;

use waypost_core::transformation::TransformationType;

/// What the `spec` of a `kind: Transformation` may hold, by key.
pub const TRANSFORMATIONS: &[TransformationType] = &[
    TransformationType::of::<fields::Fields>(),
    TransformationType::of::<filter::Filter>(),
    TransformationType::of::<jsonpath::JsonPath>(),
];
