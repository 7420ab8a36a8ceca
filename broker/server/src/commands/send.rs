//! `waypost send`: one event, or what stdin holds, to any receiver of CloudEvents.

use std::io::IsTerminal;
use std::process::ExitCode;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use waypost_core::event::http::{
    BATCH_JSON, DecodeOptions, Decoded, STRUCTURED_JSON, decode, encode_binary, encode_structured,
    fits_binary,
};
use waypost_core::{Event, codes};

use crate::call::{self, Answer};
use crate::cli::{Attributes, Mode, Output, Send};
use crate::failure::Failure;
use crate::input;
use crate::present;

/// The source of an event whose sender names none.
const DEFAULT_SOURCE: &str = "/waypost/send";

/// Sends, and prints the answer. The exit code is 1 if the receiver refused.
pub(crate) fn send(arguments: &Send) -> Result<ExitCode, Failure> {
    let outgoing = match &arguments.event_type {
        Some(event_type) => {
            let event = described_event(event_type, &arguments.attributes)?;
            of_event(&event, arguments.mode.unwrap_or(Mode::Binary))
        }
        None => from_stdin(arguments.mode)?,
    };
    let Outgoing { headers, body, what } = outgoing;
    let answer = call::call(Method::POST, &arguments.url, headers, body, arguments.timeout)?;
    let report = Report::of(&answer, what);
    present::print(&match arguments.output {
        Output::Text => report.text(),
        Output::Json => serde_json::to_string(&report).expect("a report is strings and numbers") + "\n",
    })?;
    Ok(if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A request's headers and body, and what it is in words.
#[derive(Debug)]
struct Outgoing {
    headers: HeaderMap,
    body: Bytes,
    what: String,
}

fn of_event(event: &Event, mode: Mode) -> Outgoing {
    let what = format!("event {} from {}", event.id(), event.source());
    let mut headers = HeaderMap::new();
    if mode == Mode::Binary && fits_binary(event) {
        encode_binary(event, &mut headers);
        return Outgoing { headers, body: event.data().unwrap_or_default(), what };
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_JSON));
    Outgoing { headers, body: encode_structured(event), what }
}

/// The event that the flags describe.
fn described_event(event_type: &str, attributes: &Attributes) -> Result<Event, Failure> {
    let id = attributes.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let source = attributes.source.as_deref().unwrap_or(DEFAULT_SOURCE);
    let mut builder = Event::builder(id, source, event_type);
    let data = match (&attributes.data, &attributes.data_file) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(path)) => Some(input::read_file(path)?),
        (None, None) => None,
    };
    let content_type = attributes.datacontenttype.as_deref().or_else(|| {
        let is_json = |data: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        data.as_ref().filter(|data| is_json(data)).map(|_| "application/json")
    });
    if let Some(content_type) = content_type {
        builder = builder.data_content_type(content_type);
    }
    if let Some(subject) = &attributes.subject {
        builder = builder.subject(subject);
    }
    if let Some(time) = &attributes.time {
        builder = builder.time(time);
    }
    for (index, (name, value)) in attributes.extension.iter().enumerate() {
        if attributes.extension[..index].iter().any(|(before, _)| before == name) {
            let detail = format!("the extension `{name}` is given twice: give each attribute once");
            return Err(Failure::new(codes::ATTRIBUTE_REPEATED, detail));
        }
        builder = builder.attribute(name, value.as_str());
    }
    if let Some(data) = data {
        builder = builder.data(data);
    }
    builder.build().map_err(|invalid| Failure::new(invalid.code, invalid.detail))
}

/// What stdin holds: as it is, or as one event in binary mode. A receiver judges it, so it is not judged here.
fn from_stdin(mode: Option<Mode>) -> Result<Outgoing, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::new(
            codes::INPUT_UNREADABLE,
            "there is no event: describe one with --type and further flags, or pipe one in structured JSON to stdin",
        ));
    }
    let body = Bytes::from(input::read_stdin()?);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(
            codes::INPUT_UNREADABLE,
            "stdin is empty: describe an event with --type and further flags, or pipe one in structured JSON",
        ));
    }
    document(body, mode)
}

fn document(body: Bytes, mode: Option<Mode>) -> Result<Outgoing, Failure> {
    let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let (content_type, what) =
        if is_batch { (BATCH_JSON, "the batch") } else { (STRUCTURED_JSON, "the event") };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if mode != Some(Mode::Binary) {
        return Ok(Outgoing { headers, body, what: what.to_owned() });
    }
    match decode(&headers, &body, &DecodeOptions::default()) {
        Ok(Decoded::Event(event)) => Ok(of_event(&event, Mode::Binary)),
        Ok(Decoded::Batch(_)) => Err(Failure::new(
            codes::FORMAT_UNSUPPORTED,
            "a batch has no binary mode: leave --mode out, or send the events one by one",
        )),
        Err(error) => Err(Failure::new(error.code, error.to_string())),
    }
}

/// What the receiver said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(skip)]
    what: String,
    status: u16,
    accepted: bool,
    /// The event of a batch that the problem is about, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    /// The code of the problem, where the receiver named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The problem's detail, or whatever else the receiver answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

impl Report {
    fn of(answer: &Answer, what: String) -> Self {
        let is_problem = answer
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/problem+json"));
        let problem: Option<serde_json::Value> =
            if is_problem { serde_json::from_slice(&answer.body).ok() } else { None };
        let member = |name| problem.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let detail = member("detail").unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
        Self {
            what,
            status: answer.status.as_u16(),
            accepted: answer.status.is_success(),
            index: problem.as_ref().and_then(|problem| problem.get("index")?.as_u64()),
            code: member("code"),
            detail,
        }
    }

    fn text(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let verdict = if self.accepted { "accepted" } else { "refused" };
        let mut text =
            format!("{} {}: {} was {verdict}\n", self.status, reason.unwrap_or_default(), self.what);
        if !self.detail.is_empty() {
            let code = self.code.as_ref().map(|code| format!("error[{code}]: ")).unwrap_or_default();
            let index = self.index.map(|index| format!("event {index} of the batch: ")).unwrap_or_default();
            text.push_str(&format!("{code}{index}{}\n", self.detail.trim_end()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a": 1.0}}"#;

    #[test]
    fn a_document_goes_out_as_it_is() {
        let outgoing = document(Bytes::from_static(EVENT.as_bytes()), None).unwrap();
        assert_eq!(outgoing.headers[CONTENT_TYPE], STRUCTURED_JSON);
        assert_eq!(outgoing.body, EVENT);
        let batch = document(Bytes::from(format!(" [{EVENT}]")), Some(Mode::Structured)).unwrap();
        assert_eq!(batch.headers[CONTENT_TYPE], BATCH_JSON);
        let broken = document(Bytes::from_static(b"{"), None).unwrap();
        assert_eq!(broken.body, "{");
    }

    #[test]
    fn a_document_can_go_out_in_binary_mode() {
        let outgoing = document(Bytes::from_static(EVENT.as_bytes()), Some(Mode::Binary)).unwrap();
        assert_eq!(outgoing.headers["ce-id"], "1");
        assert_eq!(outgoing.body, r#"{"a": 1.0}"#);
        assert!(document(Bytes::from_static(b"[]"), Some(Mode::Binary)).is_err());
        assert!(document(Bytes::from_static(b"{"), Some(Mode::Binary)).is_err());
    }

    fn attributes() -> Attributes {
        Attributes {
            id: None,
            source: None,
            subject: None,
            time: None,
            datacontenttype: None,
            data: None,
            data_file: None,
            extension: Vec::new(),
        }
    }

    #[test]
    fn flags_describe_an_event() {
        let given = Attributes {
            id: Some("7".to_owned()),
            data: Some(r#"{"a":1}"#.to_owned()),
            extension: vec![("shard".to_owned(), "blue".to_owned())],
            ..attributes()
        };
        let event = described_event("t", &given).unwrap();
        assert_eq!((event.id(), event.source(), event.event_type()), ("7", DEFAULT_SOURCE, "t"));
        assert_eq!(event.data_content_type(), Some("application/json"));
        assert_eq!(event.attribute("shard").unwrap().text, "blue");
        let text = Attributes { data: Some("plain".to_owned()), ..attributes() };
        assert_eq!(described_event("t", &text).unwrap().data_content_type(), None);
    }

    #[test]
    fn an_invalid_event_is_refused_here() {
        let given = Attributes { time: Some("yesterday".to_owned()), ..attributes() };
        assert_eq!(described_event("t", &given).unwrap_err().code, codes::TIME_INVALID);
    }

    #[test]
    fn a_problem_is_told_with_its_code() {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))]);
        let body = Bytes::from_static(br#"{"code":"E0602","detail":"the event has no `id`","index":1}"#);
        let answer = Answer { status: StatusCode::BAD_REQUEST, headers, body };
        let text = Report::of(&answer, "the event".to_owned()).text();
        assert_eq!(
            text,
            "400 Bad Request: the event was refused\nerror[E0602]: event 1 of the batch: the event has no `id`\n"
        );
    }
}
