//! What is written: the object of one event, or of many.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;
use sha2::{Digest as _, Sha256};
use waypost_core::event::http::{encode_binary, encode_structured};
use waypost_core::{DeliveryError, Event, codes};

use super::{Compression, Content, NOT_PLAIN, S3Config, WRITTEN_BY};
use crate::json_lines::push_line;

/// The level of Zstandard: its own default.
const ZSTD_LEVEL: i32 = 3;

/// An object that is ready to be written.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    /// By which events: the same for the same events in the same order.
    pub(super) written_by: String,
}

impl Object {
    /// The object of one event, or of as many as a batch holds. Takes its time: not for a thread of the runtime.
    ///
    /// # Errors
    /// Where the first event lacks what the metadata need.
    pub(super) fn of(config: &S3Config, key: String, events: &[Event]) -> Result<Self, DeliveryError> {
        let written_by = digest(events);
        let (key, content_type, body, of_event) = match (&config.batch, events) {
            (None, [event]) => {
                let (content_type, body, headers) = single(config, event);
                (key, content_type, body, headers)
            }
            _ => {
                let compression = config.batch.as_ref().map_or(Compression::None, |batch| batch.compression);
                let (suffix, content_type) = match compression {
                    Compression::None => ("jsonl", "application/x-ndjson"),
                    Compression::Gzip => ("jsonl.gz", "application/gzip"),
                    Compression::Zstd => ("jsonl.zst", "application/zstd"),
                };
                let body = lines(events, compression).map_err(|error| {
                    let detail = format!("the object cannot be compressed: {error}");
                    DeliveryError::retryable(codes::SINK_UNAVAILABLE, detail)
                })?;
                let folder = key.trim_end_matches('/');
                let key = format!("{folder}/{written_by}.{suffix}");
                (key, Some(content_type.to_owned()), body, Vec::new())
            }
        };
        let mut headers = config.constant_headers();
        headers.extend(of_event);
        let content_type = config.content_type.clone().or(content_type);
        let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        headers.extend(value(&content_type).map(|value| (http::header::CONTENT_TYPE, value)));
        if let Some(first) = events.first() {
            headers.extend(metadata(config, first)?);
        }
        if !config.overwrite {
            headers.extend(value(&written_by).map(|value| (WRITTEN_BY, value)));
        }
        let checksum = STANDARD.encode(crc32c::crc32c(&body).to_be_bytes());
        headers
            .extend(value(&checksum).map(|value| (HeaderName::from_static("x-amz-checksum-crc32c"), value)));
        Ok(Self { key, headers, body, written_by })
    }
}

type Single = (Option<String>, Bytes, Vec<(HeaderName, HeaderValue)>);

fn single(config: &S3Config, event: &Event) -> Single {
    if config.is_data_alone(event) {
        let content_type = event.data_content_type().map(str::to_owned);
        return (content_type, event.data().unwrap_or_default(), Vec::new());
    }
    match config.content {
        Content::Structured | Content::Data => {
            let content_type = "application/cloudevents+json; charset=utf-8".to_owned();
            (Some(content_type), Bytes::from(encode_structured(event).to_vec()), Vec::new())
        }
        Content::Binary => {
            let mut encoded = HeaderMap::new();
            encode_binary(event, &mut encoded);
            let content_type = event.data_content_type().map(str::to_owned);
            let attributes = encoded.iter().filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix("ce-")?;
                Some((HeaderName::try_from(format!("x-amz-meta-ce-{name}")).ok()?, value.clone()))
            });
            (content_type, event.data().unwrap_or_default(), attributes.collect())
        }
    }
}

fn lines(events: &[Event], compression: Compression) -> io::Result<Bytes> {
    let mut text = Vec::with_capacity(events.iter().map(Event::size).sum::<usize>() + events.len() * 64);
    for event in events {
        push_line(&mut text, event);
    }
    let written = match compression {
        Compression::None => text,
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&text)?;
            encoder.finish()?
        }
        Compression::Zstd => zstd::encode_all(&*text, ZSTD_LEVEL)?,
    };
    Ok(Bytes::from(written))
}

/// The metadata that the settings ask for.
fn metadata(config: &S3Config, event: &Event) -> Result<Vec<(HeaderName, HeaderValue)>, DeliveryError> {
    let mut headers = Vec::new();
    for (name, template) in &config.metadata {
        let text = template
            .render(event)
            .map_err(|error| DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, error.to_string()))?;
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let text = if plain { text } else { utf8_percent_encode(&text, NOT_PLAIN).to_string() };
        let name = HeaderName::try_from(format!("x-amz-meta-{}", name.to_ascii_lowercase())).ok();
        headers.extend(name.zip(value(&text)));
    }
    Ok(headers)
}

/// A text as the value of a header; none where it cannot be one.
pub(super) fn value(text: &str) -> Option<HeaderValue> {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        .then(|| HeaderValue::from_str(text).ok())?
}

/// What names these events in this order.
fn digest(events: &[Event]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        for part in [event.source(), event.id()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
