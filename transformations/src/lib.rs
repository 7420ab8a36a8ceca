//! The transformation components: what turns one event into none, one or several. One file each, one line in
//! [`TRANSFORMATIONS`].
//!
//! A type is a struct with the settings that users write, which implements
//! [`waypost_core::transformation::TransformationConfig`], and what it compiles to, which implements
//! [`waypost_core::transformation::Transformation`]. Both are pure: no I/O, no clock, no randomness, so that an
//! event that is transformed again after a crash gives the same events.

use waypost_core::transformation::TransformationType;

#[cfg(test)]
mod any_text;
mod attribute;
mod cel;
#[cfg(test)]
mod examples;
mod fields;
mod filter;
mod jq;
mod jsonpath;
mod meter;
mod position;
mod redact;
mod schema;
mod template;
#[cfg(test)]
mod trial;
#[cfg(test)]
mod triggermesh;
mod xml_to_json;

pub use cel::CelConfig;
pub use jq::{JqConfig, JqOutputs};
pub use redact::RedactConfig;
pub use schema::SchemaConfig;
pub use template::TemplateConfig;
pub use xml_to_json::XmlToJsonConfig;

/// What the `spec` of a `kind: Transformation` may hold, by key.
pub const TRANSFORMATIONS: &[TransformationType] = &[
    TransformationType::of::<CelConfig>(),
    TransformationType::of::<fields::Fields>(),
    TransformationType::of::<filter::Filter>(),
    TransformationType::of::<JqConfig>(),
    TransformationType::of::<jsonpath::JsonPath>(),
    TransformationType::of::<RedactConfig>(),
    TransformationType::of::<SchemaConfig>(),
    TransformationType::of::<TemplateConfig>(),
    TransformationType::of::<XmlToJsonConfig>(),
];
