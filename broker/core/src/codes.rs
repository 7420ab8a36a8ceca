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
//! | `E09xx` | transformations |

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
    // --- E01xx manifests: documents, kinds, fields -----------------------------------------------------
    /// The text is neither YAML nor JSON, or not UTF-8.
    MANIFEST_SYNTAX = "E0101", "the file is not valid YAML or JSON";
    /// The text is larger, deeper or expands to more than a manifest may.
    MANIFEST_TOO_LARGE = "E0102", "the file goes beyond a limit of manifests";
    /// The document is valid YAML, but not a map of fields.
    DOCUMENT_NOT_A_RESOURCE = "E0103", "the document is not a resource";
    /// No kind is known under this apiVersion.
    API_VERSION_UNKNOWN = "E0104", "the apiVersion is not known";
    /// The apiVersion is known, and has no such kind.
    KIND_UNKNOWN = "E0105", "the kind is not known";
    /// The kind is known, would move events, and cannot be honoured yet.
    KIND_NOT_SUPPORTED = "E0106", "the kind is not supported by this version";
    /// The kind is known, is not ours to run, and moves no events.
    KIND_IGNORED = "E0107", "the resource is ignored";
    /// A field that must be there is not.
    FIELD_MISSING = "E0108", "a required field is missing";
    /// The kind has no such field.
    FIELD_UNKNOWN = "E0109", "the field is not known";
    /// The field holds a value of another type, such as a list instead of a string.
    FIELD_TYPE = "E0110", "the field has the wrong type";
    /// The field holds a value that is not allowed.
    FIELD_VALUE = "E0111", "the value is not allowed";
    /// The field is known and cannot be honoured yet.
    FIELD_NOT_SUPPORTED = "E0112", "the field is not supported by this version";
    /// Two fields of which only one may be given are both given.
    FIELD_CONFLICT = "E0113", "the fields exclude each other";
    /// The text is not an ISO 8601 duration.
    DURATION_INVALID = "E0114", "the duration is not valid";
    /// The text holds no PEM certificate.
    CERTIFICATES_INVALID = "E0115", "the certificates are not valid";
    /// The annotation asks for something that this version does not do.
    ANNOTATION_IGNORED = "E0116", "the annotation is ignored";
    /// The file or directory is not there, or may not be read.
    MANIFEST_UNREADABLE = "E0117", "the manifest cannot be read";

    // --- E02xx plan ------------------------------------------------------------------------------------
    /// The name or namespace is not one that Kubernetes would accept.
    NAME_INVALID = "E0201", "the name is not valid";
    /// Two manifests declare the same resource.
    RESOURCE_DUPLICATE = "E0202", "the resource is declared twice";
    /// The reference names a resource that no manifest declares.
    REFERENCE_DANGLING = "E0203", "the reference does not resolve";
    /// The filter can never be evaluated.
    FILTER_INVALID = "E0204", "the filter is not valid";
    /// The reference names a kind that cannot receive events.
    REFERENCE_NOT_ADDRESSABLE = "E0205", "the referenced kind does not accept events";
    /// The reference names a resource that is declared with an error and has no valid version.
    REFERENCE_INVALID = "E0206", "the referenced resource has an error";
    /// No manifest declares the trigger's broker (yet).
    BROKER_ABSENT = "E0207", "the broker does not exist";
    /// The trigger's broker is no longer declared.
    BROKER_DETACHED = "E0208", "the broker is detached";
    /// The Service is not declared with a URL.
    SERVICE_NOT_MAPPED = "E0209", "the Service has no URL";
    /// The URL is not an absolute `http` or `https` URL.
    URL_INVALID = "E0210", "the URL is not valid";
    /// The sinks of transformations lead back to where they started.
    TRANSFORMATION_CYCLE = "E0211", "the transformations form a cycle";
    /// A field that is fixed for the life of a resource was changed.
    FIELD_IMMUTABLE = "E0212", "the field cannot be changed";
    /// No component type of that name is built in.
    COMPONENT_TYPE_UNKNOWN = "E0213", "the component type is not known";
    /// The component refused its settings.
    COMPONENT_SETTINGS_INVALID = "E0214", "the settings are not valid";
    /// The Secret, or the key in it, does not exist.
    SECRET_DANGLING = "E0215", "the Secret does not resolve";
    /// The text is no expression of its dialect.
    EXPRESSION_INVALID = "E0216", "the expression is not valid";
    /// The expression is valid, and most likely not what was meant.
    EXPRESSION_DOUBTFUL = "E0217", "the expression may not mean what it says";
    /// No event can match the filter.
    FILTER_NEVER_MATCHES = "E0218", "the filter can never match";
    /// An event can make the evaluation of the filter use up its steps.
    FILTER_UNBOUNDED = "E0219", "the cost of the filter cannot be bounded";
    /// Event after event used up the steps that the evaluation of the filter may take, so that the trigger matches nothing.
    FILTER_BUDGET_SPENT = "E0220", "the filter takes more steps than it may";

    // --- E03xx sources ---------------------------------------------------------------------------------

    /// A source panicked.
    SOURCE_PANICKED = "E0301", "the source panicked";
    /// The system that a source reads from cannot be reached, or does not serve it for now.
    SOURCE_UNAVAILABLE = "E0302", "upstream is not available";
    /// The system that a source reads from refuses its credentials or rights, or is not trusted.
    SOURCE_UNAUTHORIZED = "E0303", "upstream refuses the credentials";
    /// What a source names is not there: a topic, a queue, a bucket.
    SOURCE_UPSTREAM_ABSENT = "E0304", "upstream does not have what the source names";
    /// The settings of a source cannot work, or a secret that they name is not there.
    SOURCE_MISCONFIGURED = "E0305", "the source is misconfigured";
    /// The request to a source lacks its signature or credentials, or they are wrong.
    REQUEST_UNVERIFIED = "E0306", "the request is not from whom the source takes events";
    /// The signed time of a request to a source is too far from now: it may be a replay.
    REQUEST_EXPIRED = "E0307", "the signed time of the request is too far from now";
    /// The request to a source lacks what a template of the source needs, or makes no valid event.
    REQUEST_NOT_AN_EVENT = "E0308", "the request makes no event";
    /// More requests come to a source in a second than it takes.
    REQUESTS_TOO_MANY = "E0309", "the source takes fewer requests";

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
    /// The event has no hops left: events go round in a loop.
    REPLY_HOPS_SPENT = "E0407", "the event has gone through too many hops";
    /// The log did not take the reply.
    REPLY_NOT_APPENDED = "E0408", "the reply could not be stored";
    /// The trigger has nowhere to send: its subscriber is not resolved.
    SUBSCRIBER_NOT_RESOLVED = "E0409", "the subscriber is not resolved";
    /// A transformation of the trigger failed on this event.
    TRANSFORMATION_FAILED = "E0410", "a transformation failed on the event";
    /// The broker insists on replies that are events or empty.
    REPLY_NOT_AN_EVENT = "E0411", "the reply is not a CloudEvent and the broker is strict";
    /// The subscriber's certificate is not trusted, or it does not speak TLS.
    SUBSCRIBER_NOT_TRUSTED = "E0412", "no trusted connection to the subscriber could be made";
    /// What the subscriber answered is not HTTP/1.1.
    SUBSCRIBER_NOT_HTTP = "E0413", "the answer of the subscriber is not valid HTTP";
    /// A component panicked during the attempt.
    ATTEMPT_PANICKED = "E0414", "the attempt ended in a panic";
    /// The process ended without a clean stop, at several starts in a row, while the subscriber had the event.
    DELIVERY_CRASHED = "E0415", "the process ended during the delivery, again and again";
    /// The sink failed for a reason that may pass.
    SINK_UNAVAILABLE = "E0420", "the sink is not available";
    /// The sink will never accept this event.
    SINK_REFUSED = "E0421", "the sink refused the event";
    /// The sink accepts nothing until its configuration is changed.
    SINK_MISCONFIGURED = "E0422", "the sink is misconfigured";
    /// The target of a sink refuses its credentials or rights, or is not trusted.
    SINK_UNAUTHORIZED = "E0423", "the target refuses the credentials";
    /// What a sink names is not there: a topic, a bucket, an index.
    SINK_TARGET_ABSENT = "E0424", "the target does not have what the sink names";
    /// The event lacks what a template of the sink needs.
    TEMPLATE_NOT_RENDERED = "E0425", "the event does not fill in a template";
    /// As many keys of the trigger as may be wait for the next attempt of their first event.
    KEYS_CLOSED = "E0430", "too many keys wait";
    /// As many deliveries of the trigger as may wait for their next attempt, or behind another of their key.
    DELIVERIES_WAITING = "E0431", "too many deliveries wait";

    // --- E05xx log -------------------------------------------------------------------------------------
    /// The size limit is reached, and everything that is held is owed to triggers.
    LOG_FULL = "E0501", "the log is full";
    /// The log is closed, or closing: the process is stopping.
    LOG_CLOSED = "E0502", "the log is closed";
    /// A write, a read or a sync failed; nothing is acknowledged any more.
    LOG_FAILED = "E0503", "the log stopped after a storage error";
    /// Retention gave the record up.
    LOG_TRIMMED = "E0504", "the record is no longer in the log";
    /// Nothing was written there yet.
    LOG_BEYOND_END = "E0505", "the position is beyond the end of the log";
    /// What is stored is not what was written.
    LOG_CORRUPT = "E0506", "the log is corrupt";
    /// Another process holds the partition now.
    LOG_FENCED = "E0507", "the partition is held by another process";
    /// The data directory was written by a later version.
    LOG_VERSION_UNKNOWN = "E0508", "the data is of a later version";
    /// More batches wait for the disk than may.
    LOG_BUSY = "E0509", "too many batches wait for the disk";
    /// A trigger is owed more than its `maxBacklog`.
    BACKLOG_EXCEEDED = "E0510", "a trigger is owed more than it may be";

    // --- E06xx events and ingress ----------------------------------------------------------------------
    /// The request claims to be no CloudEvent at all.
    NOT_AN_EVENT = "E0601", "the request carries no CloudEvent";
    /// One of the four attributes that every event has is not there.
    ATTRIBUTE_MISSING = "E0602", "a required attribute is missing";
    /// An attribute that must not be empty is.
    ATTRIBUTE_EMPTY = "E0603", "an attribute is empty";
    /// The name is not made of a-z and 0-9, is too long, or is reserved.
    ATTRIBUTE_NAME_INVALID = "E0604", "an attribute name is not allowed";
    /// One attribute stands in the event more than once.
    ATTRIBUTE_REPEATED = "E0605", "an attribute is given twice";
    /// The value is not of the type that the attribute has.
    ATTRIBUTE_TYPE_INVALID = "E0606", "an attribute has the wrong type";
    /// The text of a value holds what its type does not allow.
    ATTRIBUTE_VALUE_INVALID = "E0607", "an attribute value is not allowed";
    /// The version of the norm is neither 1.0 nor 0.3.
    SPEC_VERSION_UNKNOWN = "E0608", "the specversion is not supported";
    /// `source` is no URI-reference.
    SOURCE_INVALID = "E0609", "the source is not a URI-reference";
    /// `time` is no RFC 3339 timestamp.
    TIME_INVALID = "E0610", "the time is not an RFC 3339 timestamp";
    /// `dataschema` is no absolute URI.
    DATA_SCHEMA_INVALID = "E0611", "the data schema is not a URI";
    /// `datacontenttype` is no media type.
    DATA_CONTENT_TYPE_INVALID = "E0612", "the data content type is not a media type";
    /// The data is given twice, is not base64, or is not what its content type says.
    DATA_INVALID = "E0613", "the data is not valid";
    /// The event has more attributes, or longer ones, than it may.
    ATTRIBUTES_TOO_LARGE = "E0614", "the event has too many or too long attributes";
    /// The body of a structured or batch request is not the JSON that it should be.
    JSON_MALFORMED = "E0615", "the JSON is malformed";
    /// The event format of a structured or batch request is not JSON in UTF-8.
    FORMAT_UNSUPPORTED = "E0616", "the event format is not supported";
    /// The value of a header cannot be decoded to text.
    HEADER_VALUE_INVALID = "E0617", "a header value cannot be decoded";
    /// A batch holds more events than it may.
    BATCH_TOO_LONG = "E0618", "the batch has too many events";
    /// The events of a batch are not all of one version of the norm.
    BATCH_VERSIONS_MIXED = "E0619", "the batch mixes versions of CloudEvents";
    /// A stored event is damaged.
    EVENT_CORRUPT = "E0620", "a stored event is corrupt";
    /// No broker, sink or transformation of that name takes events under the path of the request.
    INGRESS_PATH_UNKNOWN = "E0650", "nothing takes events under this path";
    /// Events are posted; nothing else is done at a path of ingress.
    INGRESS_METHOD_NOT_ALLOWED = "E0651", "the method is not allowed";
    /// The body of the request is larger than a request may be.
    REQUEST_TOO_LARGE = "E0652", "the request is too large";
    /// The event, or one event of a batch, is larger than an event may be.
    EVENT_TOO_LARGE = "E0653", "the event is too large";
    /// As many bytes as may be are on their way into the log.
    INGEST_OVER_BUDGET = "E0654", "too much is on its way into the log";
    /// The process is starting, shutting down, or has no storage to write to.
    INGRESS_NOT_READY = "E0655", "no events are taken now";
    /// The body of the request ended early.
    BODY_INCOMPLETE = "E0656", "the request body is incomplete";
    /// The body of the request did not arrive in time.
    BODY_TIMEOUT = "E0657", "the request body did not arrive in time";
    /// The body of the request is compressed.
    CONTENT_ENCODING_UNSUPPORTED = "E0658", "the content encoding is not supported";

    // --- E07xx process ---------------------------------------------------------------------------------
    /// Another process listens on the address.
    ADDRESS_IN_USE = "E0701", "the address is in use";
    /// The address cannot be listened on.
    ADDRESS_UNUSABLE = "E0702", "the address cannot be listened on";
    /// Another process uses the data directory.
    DATA_DIRECTORY_LOCKED = "E0703", "the data directory is locked";
    /// The data directory cannot be created, or not be written to.
    DATA_DIRECTORY_UNUSABLE = "E0704", "the data directory cannot be used";
    /// The admin listener is reachable from outside and nothing guards it.
    ADMIN_TOKEN_MISSING = "E0705", "the admin listener needs a token";
    /// The file with the admin token cannot be read, or is empty.
    ADMIN_TOKEN_UNUSABLE = "E0706", "the admin token cannot be read";
    /// The URL given to a command is not one that it can call.
    CALL_URL_INVALID = "E0707", "the URL cannot be called";
    /// The other side of a command could not be reached, or did not answer in time.
    CALL_FAILED = "E0708", "the call failed";
    /// A file or stream that a command reads cannot be read.
    INPUT_UNREADABLE = "E0709", "the input cannot be read";
    /// What a command prints cannot be written.
    OUTPUT_UNWRITABLE = "E0710", "the output cannot be written";
    /// The operating system does not give what the process needs.
    PROCESS_RESOURCE_MISSING = "E0711", "the operating system refused a resource";
    /// Changes of the manifest files cannot be watched.
    MANIFESTS_NOT_WATCHED = "E0712", "the manifests cannot be watched";
    /// `waypost test` found no test.
    TESTS_ABSENT = "E0713", "there is no test";

    // --- E08xx admin API -------------------------------------------------------------------------------
    /// The request has no bearer token, or a wrong one.
    ADMIN_UNAUTHORIZED = "E0801", "the admin token is missing or wrong";
    /// The admin API has no such path.
    ADMIN_PATH_UNKNOWN = "E0802", "the admin API has no such path";
    /// The path of the admin API does not know the method.
    ADMIN_METHOD_NOT_ALLOWED = "E0803", "the method is not allowed";
    /// A parameter of the query is not known or has no valid value.
    ADMIN_QUERY_INVALID = "E0804", "the query is not valid";
    /// The plan is not applied yet, or the process is shutting down.
    ADMIN_NOT_READY = "E0805", "the process is not ready";
    /// The admin API answered with something that the command does not understand.
    ADMIN_ANSWER_UNKNOWN = "E0806", "the answer is not one of the admin API";
    /// The path names a resource that does not run.
    ADMIN_RESOURCE_UNKNOWN = "E0807", "the admin API knows no such resource";
    /// As many events are being explained as may be at one time.
    ADMIN_EXPLAIN_BUSY = "E0808", "too many events are being explained";
    /// No record of the broker has the source and id that are asked for.
    ADMIN_EVENT_UNKNOWN = "E0809", "the broker has no such event";
    /// As many look at events as may at one time.
    ADMIN_TAIL_BUSY = "E0810", "too many are looking at events";
    /// The trigger is not owed what stands at the position.
    EVENT_NOT_PENDING = "E0820", "the trigger is not owed the event";
    /// The trigger has not come to the event, so that it cannot be skipped alone.
    EVENT_NOT_TAKEN = "E0821", "the trigger has not come to the event";
    /// The trigger is beyond the place that it should be moved to.
    SEEK_BACKWARDS = "E0822", "the trigger does not go back";
    /// No dead letter has the id.
    DEAD_LETTER_UNKNOWN = "E0830", "there is no such dead letter";
    /// More dead letters are named in one request than may be.
    DEAD_LETTERS_TOO_MANY = "E0831", "too many dead letters are named";
    /// All dead letters would be deleted, and nothing says that this is meant.
    PURGE_UNCONFIRMED = "E0832", "the purge of all dead letters is not confirmed";
    /// No redrive has the id.
    REDRIVE_UNKNOWN = "E0833", "there is no such redrive";
    /// As many redrives run as may at one time.
    REDRIVES_TOO_MANY = "E0834", "too many redrives run";
    /// Dead letters whose trigger is not declared have no subscriber.
    REDRIVE_DESTINATION_MISSING = "E0835", "the dead letters need a destination";
    /// A replay of the name exists already: each runs once.
    REPLAY_EXISTS = "E0850", "a replay of that name exists";
    /// No replay has the name.
    REPLAY_UNKNOWN = "E0851", "there is no such replay";
    /// The replay is completed or cancelled, and cannot be changed any more.
    REPLAY_ENDED = "E0852", "the replay has ended";
    /// What is asked for cannot be replayed.
    REPLAY_INVALID = "E0853", "the replay is not valid";
    /// The manifest of the replay says that it is paused.
    REPLAY_PAUSED_BY_MANIFEST = "E0854", "the replay is paused by its manifest";
    /// There are as many replays as may be.
    REPLAYS_TOO_MANY = "E0855", "there are too many replays";
    /// The trigger of a replay takes the events of another broker.
    REPLAY_TRIGGER_ELSEWHERE = "E0856", "the trigger is of another broker";
    /// The broker of a replay does not run.
    REPLAY_BROKER_STOPPED = "E0857", "the broker of the replay does not run";

    // --- E09xx transformations -------------------------------------------------------------------------
    /// A transformation went beyond a limit of steps, memory, depth or number of events.
    TRANSFORMATION_LIMIT = "E0901", "a transformation went beyond a limit";
    /// Two events that a chain makes of one have the same source and id.
    TRANSFORMATION_OUTPUT_REPEATED = "E0902", "a transformation made two events with one source and id";
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
