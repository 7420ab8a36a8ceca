//! Every error code, one row each. A code is stable: programs match on it, metrics carry it as a label, and
//! operators search for it.
//!
//! | range | speaks of |
//! |---|---|
//! | `E01xx` | reading manifests: documents, kinds, fields |
//! | `E02xx` | planning: references, names, filters, component settings |
//! | `E03xx` | sources |
//! | `E04xx` | deliveries, subscribers and sinks |
//! | `E05xx` | the log |
//! | `E06xx` | events and ingress |
//! | `E07xx` | the process: ports, files, rights |
//! | `E08xx` | the admin API |

use std::fmt;

/// A stable error code with the title under which it is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    id: &'static str,
    title: &'static str,
}

impl Code {
    const fn new(id: &'static str, title: &'static str) -> Self {
        Self { id, title }
    }

    /// The code itself, such as `E0204`.
    pub const fn id(self) -> &'static str {
        self.id
    }

    /// What the code means, in a few words, the same for every occurrence.
    pub const fn title(self) -> &'static str {
        self.title
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id)
    }
}

/// Declares each code as a documented constant and lists them all, so that no code can be left out of [`ALL`].
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $id:literal, $title:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: Code = Code::new($id, $title);)*

        /// Every code, in the order of this file.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // --- E01xx manifests: documents, kinds, fields ---

    // --- E02xx plan ------------------------------------------------------------------------------------

    // --- E03xx sources ---------------------------------------------------------------------------------

    // --- E04xx deliveries ------------------------------------------------------------------------------
    /// The subscriber answered with a status that the retry table lists as worth another attempt.
    SUBSCRIBER_STATUS_RETRYABLE = "E0401", "the subscriber answered with a retryable status";
    /// The subscriber answered with a status that no further attempt will change.
    SUBSCRIBER_STATUS_PERMANENT = "E0402", "the subscriber refused the event";
    /// No connection to the subscriber could be made, or it broke before an answer came.
    SUBSCRIBER_UNREACHABLE = "E0403", "the subscriber could not be reached";
    /// The subscriber did not answer within the timeout of the attempt.
    SUBSCRIBER_TIMEOUT = "E0404", "the subscriber did not answer in time";
    /// The subscriber's reply claims to be a CloudEvent and is none.
    REPLY_MALFORMED = "E0405", "the reply is not a valid CloudEvent";
    /// The subscriber's reply is larger than an event may be.
    REPLY_TOO_LARGE = "E0406", "the reply is larger than an event may be";
    /// The reply has no hops left: the events go round in a loop.
    REPLY_HOPS_SPENT = "E0407", "the reply has gone through too many hops";
    /// The log did not take the reply.
    REPLY_NOT_APPENDED = "E0408", "the reply could not be stored";
    /// The trigger has nowhere to send: its subscriber is not resolved.
    SUBSCRIBER_NOT_RESOLVED = "E0409", "the subscriber is not resolved";
    /// A transformation of the trigger failed on this event.
    TRANSFORMATION_FAILED = "E0410", "a transformation failed on the event";
    /// The broker insists on replies that are events or empty.
    REPLY_NOT_AN_EVENT = "E0411", "the reply is not a CloudEvent and the broker is strict";
    /// The sink failed for a reason that may pass.
    SINK_UNAVAILABLE = "E0420", "the sink is not available";
    /// The sink will never accept this event.
    SINK_REFUSED = "E0421", "the sink refused the event";
    /// The sink accepts nothing until its configuration is changed.
    SINK_MISCONFIGURED = "E0422", "the sink is misconfigured";

    // --- E05xx log -------------------------------------------------------------------------------------

    // --- E06xx events and ingress ----------------------------------------------------------------------

    // --- E07xx process ---------------------------------------------------------------------------------

    // --- E08xx admin API -------------------------------------------------------------------------------
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_sorted() {
        for pair in ALL.windows(2) {
            assert!(pair[0].id() < pair[1].id(), "{} does not come before {}", pair[0], pair[1]);
        }
    }
}
