//! Tests of the JSON format, the official cases among them.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::event::http::{self as binding, BATCH_JSON, DecodeOptions, Decoded, STRUCTURED_JSON};
use crate::event::suite::json_text;

macro_rules! official {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/json-format/", $file))
    };
}

#[derive(Deserialize)]
struct Official<'a> {
    #[serde(borrow)]
    tests: Vec<Case<'a>>,
}

#[derive(Deserialize)]
struct Case<'a> {
    id: &'a str,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

fn cases(file: &str) -> Vec<Case<'_>> {
    serde_json::from_str::<Official<'_>>(file).expect("an official file").tests
}

fn post(content_type: &'static str, body: &str) -> Result<Decoded, DecodeError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    binding::decode(&headers, body.as_bytes(), &DecodeOptions::default())
}

#[test]
fn the_official_valid_cases_are_taken() {
    let (events, batches) = (cases(official!("valid-events.json")), cases(official!("valid-batches.json")));
    assert_eq!((events.len(), batches.len()), (10, 5));
    for case in events {
        let event = case.event.expect("an event case").get();
        let Decoded::Event(single) = post(STRUCTURED_JSON, event).expect(case.id) else {
            panic!("{}", case.id)
        };
        assert_eq!(post(BATCH_JSON, &format!("[{event}]")), Ok(Decoded::Batch(vec![single.clone()])));
        assert_eq!(decode(&encode(&single)), Ok(single), "{}", case.id);
    }
    for case in batches {
        let batch = case.batch.expect("a batch case").get();
        let Decoded::Batch(events) = post(BATCH_JSON, batch).expect(case.id) else { panic!("{}", case.id) };
        let expected: Vec<IgnoredAny> = serde_json::from_str(batch).expect("an array");
        assert_eq!(events.len(), expected.len(), "{}", case.id);
        assert_eq!(decode_batch(&encode_batch(&events)), Ok(events), "{}", case.id);
    }
}

#[test]
fn the_official_invalid_cases_are_refused() {
    let (events, batches) =
        (cases(official!("invalid-events.json")), cases(official!("invalid-batches.json")));
    assert_eq!((events.len(), batches.len()), (25, 3));
    for case in events {
        let event = case.event.expect("an event case").get();
        assert_eq!(post(STRUCTURED_JSON, event).expect_err(case.id).status, 400, "{}", case.id);
        let valid = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        let error = post(BATCH_JSON, &format!("[{valid},{event}]")).expect_err(case.id);
        assert_eq!((error.status, error.index), (400, Some(1)), "{}", case.id);
    }
    for case in batches {
        let batch = case.batch.expect("a batch case").get();
        assert_eq!(post(BATCH_JSON, batch).expect_err(case.id).status, 400, "{}", case.id);
    }
}

#[test]
fn the_official_values_arrive() {
    let valid = cases(official!("valid-events.json"));
    let of = |id: &str| {
        let case = valid.iter().find(|case| case.id == id).expect("a case");
        decode(case.event.expect("an event case").get().as_bytes()).expect("a valid event")
    };
    let types = of("validAllExtensionTypes");
    for (name, text, attribute_type) in [
        ("extinteger", "10", AttributeType::Integer),
        ("extboolean", "true", AttributeType::Boolean),
        ("extstring", "text", AttributeType::String),
        ("exturiref", "//authority/path", AttributeType::String),
        ("extbinary", "TWE=", AttributeType::String),
    ] {
        let value = types.attribute(name).expect(name);
        assert_eq!((value.text, value.attribute_type), (text, attribute_type), "{name}");
    }
    assert_eq!(of("validMinimalWithNullForOptional").attribute_count(), 3);
    assert_eq!(of("validMinimalWithTimeUsingPositiveOffset").time(), Some("2018-04-05T18:31:00+01:00"));
    let text = of("validSimpleTextData");
    assert_eq!((text.data_form(), text.data_bytes()), (DataForm::Text, Some(&b"Simple text"[..])));
}

/// A document with the required attributes and more members, and what is read from it.
fn event_with(members: &str) -> Result<Event, DecodeError> {
    decode(format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t",{members}}}"#).as_bytes())
}

fn old_event_with(members: &str) -> Result<Event, DecodeError> {
    decode(format!(r#"{{"specversion":"0.3","id":"1","source":"/s","type":"t",{members}}}"#).as_bytes())
}

/// Content type, form and bytes of the data.
fn data_of_members(members: &str) -> (Option<String>, DataForm, Option<Vec<u8>>) {
    let event = event_with(members).expect(members);
    (event.data_content_type().map(str::to_owned), event.data_form(), event.data_bytes().map(<[u8]>::to_vec))
}

#[test]
fn data_is_read_by_its_content_type() {
    use DataForm::*;
    for (members, content_type, form, bytes) in [
        (
            r#""data":{"b": 1e2, "a":12345678901234567890123 ,"b":[ ]}"#,
            Some("application/json"),
            Json,
            Some(r#"{"b": 1e2, "a":12345678901234567890123 ,"b":[ ]}"#),
        ),
        (r#""data": "{\"a\":\u0031}" "#, Some("application/json"), Json, Some(r#""{\"a\":\u0031}""#)),
        (r#""data":null"#, Some("application/json"), Json, Some("null")),
        (r#""data":"\ud800""#, Some("application/json"), Json, Some(r#""\ud800""#)),
        (
            r#""data":1.0,"datacontenttype":"Text/JSON; charset=utf-8""#,
            Some("Text/JSON; charset=utf-8"),
            Json,
            Some("1.0"),
        ),
        (
            r#""datacontenttype":"application/vnd.x+json","data":[1]"#,
            Some("application/vnd.x+json"),
            Json,
            Some("[1]"),
        ),
        (r#""data":"a\u0062\n€","datacontenttype":"text/plain""#, Some("text/plain"), Text, Some("ab\n€")),
        (r#""data":"","datacontenttype":"text/plain""#, Some("text/plain"), Text, Some("")),
        (
            r#""data":"<a/>","datacontenttype":"application/octet-stream""#,
            Some("application/octet-stream"),
            Text,
            Some("<a/>"),
        ),
        (r#""data":null,"datacontenttype":"text/plain""#, Some("text/plain"), Raw, None),
        (r#""data_base64":"eyJhIjoxfQ==""#, None, Raw, Some(r#"{"a":1}"#)),
        (
            r#""data_base64":"eyJhIjoxfQ==","datacontenttype":"application/json""#,
            Some("application/json"),
            Raw,
            Some(r#"{"a":1}"#),
        ),
        (r#""data_base64":"""#, None, Raw, Some("")),
        (r#""data_base64":null"#, None, Raw, None),
        (r#""data_base64":null,"data":1"#, Some("application/json"), Json, Some("1")),
        (r#""datacontenttype":"application/json""#, Some("application/json"), Raw, None),
    ] {
        let expected = (content_type.map(str::to_owned), form, bytes.map(|bytes| bytes.as_bytes().to_vec()));
        assert_eq!(data_of_members(members), expected, "{members}");
    }
}

#[test]
fn data_is_written_by_its_content_type() {
    let event = Event::builder("1", "/s", "t");
    for (content_type, bytes, member) in [
        (Some("application/json"), "{\"b\": 1e2,\n\"a\":1}", "\"data\":{\"b\": 1e2,\n\"a\":1}"),
        (Some("Application/JSON; charset=utf-8"), "null", "\"data\":null"),
        (Some("application/json"), "I'm just a string", "\"data_base64\":\"SSdtIGp1c3QgYSBzdHJpbmc=\""),
        (Some("application/json"), "", "\"data_base64\":\"\""),
        (Some("application/json-seq"), "[]", "\"data_base64\":\"W10=\""),
        (Some("text/plain"), "a\"b\n€", "\"data\":\"a\\\"b\\n€\""),
        (Some("text/plain"), "", "\"data\":\"\""),
        (Some("application/soap+xml; charset=UTF-8"), "<a/>", "\"data\":\"<a/>\""),
        (Some("text/plain; charset=iso-8859-1"), "a", "\"data_base64\":\"YQ==\""),
        (Some("application/octet-stream"), "a", "\"data_base64\":\"YQ==\""),
        (None, "{}", "\"data_base64\":\"e30=\""),
    ] {
        let event =
            content_type.into_iter().fold(event.clone(), crate::event::EventBuilder::data_content_type);
        let document = encode(&event.data(bytes).build().expect("a valid event"));
        let document = std::str::from_utf8(&document).expect("UTF-8");
        assert!(document.ends_with(&format!(",{member}}}")), "{document} for {member}");
    }
    let binary = event.data_content_type("text/plain").data(&b"\xff"[..]).build().expect("a valid event");
    assert!(encode(&binary).ends_with(b",\"data_base64\":\"/w==\"}"));
}

#[test]
fn a_document_is_written_in_order() {
    let event = Event::builder("1", "/s", "t")
        .attribute("count", -3)
        .attribute("paid", false)
        .attribute("text", "true")
        .time("2018-04-05T17:31:00.10+02:00")
        .json_data(" [ 1 ] ")
        .build()
        .expect("a valid event");
    let document = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","count":-3,"paid":false,"text":"true","time":"2018-04-05T17:31:00.10+02:00","datacontenttype":"application/json","data": [ 1 ] }"#;
    assert_eq!(std::str::from_utf8(&encode(&event)), Ok(document));
    assert_eq!(encode_batch(&[]), "[]");
    assert_eq!(encode_batch(&[event.clone(), event]), format!("[{document},{document}]"));
}

#[test]
fn wrong_members_are_refused_by_name() {
    for (members, code) in [
        (r#""x":1.0"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""x":1e3"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""x":2147483648"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""x":{}"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""x":["a"]"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""subject":7"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""subject":true"#, codes::ATTRIBUTE_TYPE_INVALID),
        (r#""x":"\ud800""#, codes::ATTRIBUTE_VALUE_INVALID),
        (r#""x":"a\nb""#, codes::ATTRIBUTE_VALUE_INVALID),
        (r#""MyExt":"a""#, codes::ATTRIBUTE_NAME_INVALID),
        (r#""my_ext":null"#, codes::ATTRIBUTE_NAME_INVALID),
        (r#""":1"#, codes::ATTRIBUTE_NAME_INVALID),
        (r#""x":1,"x":1"#, codes::ATTRIBUTE_REPEATED),
        (r#""x":null,"x":1"#, codes::ATTRIBUTE_REPEATED),
        (r#""\u0069d":"2""#, codes::ATTRIBUTE_REPEATED),
        (r#""data":1,"data":1"#, codes::ATTRIBUTE_REPEATED),
        (r#""data":1,"data_base64":"AA==""#, codes::DATA_INVALID),
        (r#""data":null,"data_base64":"AA==""#, codes::DATA_INVALID),
        (r#""data_base64":"AA""#, codes::DATA_INVALID),
        (r#""data_base64":1"#, codes::DATA_INVALID),
        (r#""data":{},"datacontenttype":"text/plain""#, codes::DATA_INVALID),
        (r#""data":"\ud800","datacontenttype":"text/plain""#, codes::ATTRIBUTE_VALUE_INVALID),
        (r#""id":null"#, codes::ATTRIBUTE_REPEATED),
        (r#""x":01"#, codes::JSON_MALFORMED),
        (r#""x":"a"b"#, codes::JSON_MALFORMED),
        (r#""data":[1,]"#, codes::JSON_MALFORMED),
    ] {
        let error = event_with(members).expect_err(members);
        assert_eq!((error.status, error.code), (400, code), "{members}");
    }
    for (document, code) in [
        (&b""[..], codes::JSON_MALFORMED),
        (b"[]", codes::JSON_MALFORMED),
        (b"null", codes::JSON_MALFORMED),
        (b"{} {}", codes::JSON_MALFORMED),
        (b"{\"a\":\"\xff\"}", codes::JSON_MALFORMED),
        (b"{}", codes::ATTRIBUTE_MISSING),
        (br#"{"specversion":1.0}"#, codes::ATTRIBUTE_TYPE_INVALID),
        (br#"{"specversion":1}"#, codes::ATTRIBUTE_TYPE_INVALID),
        (br#"{"specversion":null,"id":"1","source":"/s","type":"t"}"#, codes::ATTRIBUTE_MISSING),
        (br#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#, codes::ATTRIBUTE_MISSING),
    ] {
        let error = decode(document).expect_err("a refusal");
        assert_eq!((error.status, error.code), (400, code), "{}", String::from_utf8_lossy(document));
    }
}

#[test]
fn names_and_values_may_be_written_with_escapes() {
    let event = event_with(r#""\u0065xt":"\u0061 \"b\"","e2":-0"#).expect("an event");
    assert_eq!(event.attribute("ext").map(|value| value.text), Some("a \"b\""));
    assert_eq!(event.attribute("e2").map(|value| value.text), Some("-0"));
}

#[test]
fn version_0_3_keeps_its_ways() {
    let event = old_event_with(
        r#""schemaurl":"/schema","datacontentencoding":"Base64","datacontenttype":"application/json","data":"eyJhIjoxfQ==""#,
    );
    let event = event.expect("an event");
    assert_eq!(event.spec_version(), SpecVersion::V03);
    assert_eq!(event.data_schema(), Some("/schema"));
    assert_eq!(event.attribute("datacontentencoding").map(|value| value.text), Some("Base64"));
    assert_eq!(event.data_bytes(), Some(&br#"{"a":1}"#[..]));
    let document = encode(&event);
    let document = std::str::from_utf8(&document).expect("UTF-8");
    assert!(document.starts_with(r#"{"specversion":"0.3","#), "{document}");
    assert!(document.ends_with(r#","data":"eyJhIjoxfQ=="}"#), "{document}");
    assert_eq!(decode(document.as_bytes()), Ok(event));

    let plain = old_event_with(r#""data":{"a": 1}"#).expect("an event");
    assert_eq!((plain.data_form(), plain.data_bytes()), (DataForm::Json, Some(&br#"{"a": 1}"#[..])));
    let schema = old_event_with(r#""dataschema":"an extension here""#).expect("an event");
    assert_eq!(schema.data_schema(), None);

    let bytes =
        plain.to_builder().data_content_type("image/png").data(&b"\xff"[..]).build().expect("a valid event");
    let document = encode(&bytes);
    assert!(document.ends_with(br#","datacontentencoding":"base64","data":"/w=="}"#), "{document:?}");
    let other = bytes.with_attribute("datacontentencoding", "binary").expect("a valid event");
    assert_eq!(decode(&encode(&other)).map(|event| event.data()), Ok(bytes.data()));

    for bad in [
        r#""data_base64":"AA==""#,
        r#""datacontentencoding":"base64","data":"A""#,
        r#""datacontentencoding":"base64","data":{}"#,
    ] {
        assert_eq!(old_event_with(bad).expect_err(bad).code, codes::DATA_INVALID, "{bad}");
    }
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let one = |version: &str| format!(r#"{{"specversion":"{version}","id":"1","source":"/s","type":"t"}}"#);
    let error = decode_batch(format!("[{},{}]", one("1.0"), one("0.3")).as_bytes()).expect_err("mixed");
    assert_eq!((error.status, error.index, error.code), (400, Some(1), codes::BATCH_VERSIONS_MIXED));
    assert_eq!(decode_batch(format!("[{0},{0}]", one("0.3")).as_bytes()).map(|events| events.len()), Ok(2));
    let error = decode_batch(format!("[{},{{}}]", one("1.0")).as_bytes()).expect_err("an empty object");
    assert_eq!((error.index, error.code), (Some(1), codes::ATTRIBUTE_MISSING));
    assert!(error.to_string().starts_with("event 1 of the batch: "), "{error}");
    for malformed in [&b"{}"[..], b"", b"[", b"[1", b"[] []", b"\"a\"", b"[,]", b"null"] {
        let error = decode_batch(malformed).expect_err("no array");
        assert_eq!((error.status, error.index, error.code), (400, None, codes::JSON_MALFORMED));
    }
    assert_eq!(decode_batch(b"[1]").expect_err("no object").index, Some(0));
    assert_eq!(decode_batch(b" [ ] "), Ok(vec![]));
}

#[test]
fn the_limits_hold() {
    let one = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let batch = |count: usize| format!("[{}]", vec![one; count].join(","));
    assert_eq!(
        decode_batch(batch(MAX_BATCH_EVENTS).as_bytes()).map(|events| events.len()),
        Ok(MAX_BATCH_EVENTS)
    );
    let error = decode_batch(batch(MAX_BATCH_EVENTS + 1).as_bytes()).expect_err("too many");
    assert_eq!((error.status, error.code), (413, codes::BATCH_TOO_LONG));

    let members = |count: usize| (0..count).map(|n| format!("\"a{n}\":1")).collect::<Vec<_>>().join(",");
    assert_eq!(event_with(&members(200)).map(|event| event.attribute_count()), Ok(203));
    assert_eq!(event_with(&members(MAX_MEMBERS)).expect_err("too many").code, codes::ATTRIBUTES_TOO_LARGE);

    let depth = 200_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let event = event_with(&format!("\"data\":{deep}")).expect("depth alone is no fault");
    assert_eq!(event.data_bytes(), Some(deep.as_bytes()));
    assert_eq!(decode(&encode(&event)), Ok(event));
    assert!(decode_batch("[".repeat(depth).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn json_data_passes_byte_for_byte(json in json_text(), before in "[ \t\r\n]{0,3}", after in "[ \t\r\n]{0,3}") {
        let event = event_with(&format!("\"data\":{before}{json}{after}")).expect("an event");
        prop_assert_eq!(event.data_bytes(), Some(json.as_bytes()));
    }

    #[test]
    fn any_document_is_read_or_refused(document in "[\\[\\]{}:,\"a-d0-9\\\\. e+-]{0,60}") {
        let _ = decode(document.as_bytes());
        let _ = decode_batch(document.as_bytes());
    }
}
