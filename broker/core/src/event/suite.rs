//! Tests of the envelope, and the random events that the suites of the codecs share.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::codes;

fn sample() -> Event {
    Event::builder("1", "/orders", "order.created")
        .subject("42")
        .time("2018-04-26T14:48:09.1200+02:00")
        .attribute("count", 3)
        .attribute("paid", true)
        .attribute("digest", AttributeValue::binary(b"Ma"))
        .json_data(r#"{"a": 12345678901234567890123, "a": 1e2}"#)
        .build()
        .expect("a valid event")
}

#[test]
fn events_are_identical_exactly_where_id_and_source_are() {
    let event = |id: &str, source: &str, version| {
        let event = Event::builder(id, source, "t").spec_version(version).subject(id);
        event.build().expect("a valid event")
    };
    let (one, old) = (SpecVersion::V1, SpecVersion::V03);
    let events = [event("1", "/a", one), event("1/", "a", one), event("1", "/b", one), event("2", "/a", one)];
    for (place, event) in events.iter().enumerate() {
        for (other_place, other) in events.iter().enumerate() {
            assert_eq!(event.identity() == other.identity(), place == other_place);
        }
    }
    let changed = |name: &str, value: &str| {
        let mut document = crate::transformation::Document::new(&events[0]);
        document.set_attribute(name, value);
        document.to_event().expect("a valid event")
    };
    assert_eq!(changed("id", "1").identity(), events[0].identity());
    assert_eq!(changed("count", "1").identity(), events[0].identity());
    assert_eq!(event("1", "/a", old).identity(), events[0].identity());
}

#[test]
fn an_event_says_what_it_was_built_from() {
    let event = sample();
    assert_eq!(event.spec_version(), SpecVersion::V1);
    assert_eq!((event.id(), event.source(), event.event_type()), ("1", "/orders", "order.created"));
    assert_eq!(event.subject(), Some("42"));
    assert_eq!(event.time(), Some("2018-04-26T14:48:09.1200+02:00"));
    assert_eq!(event.data_content_type(), Some("application/json"));
    assert_eq!(event.data_schema(), None);
    assert_eq!(event.data_form(), DataForm::Json);
    assert_eq!(event.data_bytes(), Some(&br#"{"a": 12345678901234567890123, "a": 1e2}"#[..]));
    assert_eq!(event.data().as_deref(), event.data_bytes());
    assert_eq!(event.size(), event.packed().len());
    let names: Vec<_> = event.attributes().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["id", "source", "type", "subject", "time", "count", "paid", "digest", "datacontenttype"]
    );
    assert_eq!(event.attribute_count(), names.len());
    for (name, text, attribute_type) in [
        ("specversion", "1.0", AttributeType::String),
        ("source", "/orders", AttributeType::UriReference),
        ("time", "2018-04-26T14:48:09.1200+02:00", AttributeType::Timestamp),
        ("count", "3", AttributeType::Integer),
        ("paid", "true", AttributeType::Boolean),
        ("digest", "TWE=", AttributeType::Binary),
    ] {
        assert_eq!(event.attribute(name), Some(Value { text, attribute_type }), "{name}");
    }
    assert_eq!(event.attribute("absent"), None);
}

#[test]
fn attributes_are_replaced_added_and_removed() {
    let event = sample();
    let changed = event.with_attribute("subject", "43").and_then(|event| event.with_attribute("new", "x"));
    let changed = changed.expect("valid attributes");
    assert_eq!(changed.subject(), Some("43"));
    assert_eq!(changed.attribute("new").map(|value| value.text), Some("x"));
    assert_eq!(changed.data(), event.data());
    assert_ne!(changed, event);
    let restored = changed.with_attribute("subject", "42").and_then(|event| event.without_attribute("new"));
    assert_eq!(restored.as_ref(), Ok(&event));
    assert_eq!(event.with_attribute("id", "2").map(|event| event.id().to_owned()).as_deref(), Ok("2"));
    assert_eq!(event.without_attribute("absent").as_ref(), Ok(&event));

    let code = |result: Result<Event, InvalidEvent>| result.expect_err("a rule is broken").code;
    assert_eq!(code(event.with_attribute("my-name", "x")), codes::ATTRIBUTE_NAME_INVALID);
    assert_eq!(code(event.with_attribute("data", "x")), codes::ATTRIBUTE_NAME_INVALID);
    assert_eq!(code(event.with_attribute("subject", "")), codes::ATTRIBUTE_EMPTY);
    assert_eq!(code(event.with_attribute("specversion", "1.1")), codes::SPEC_VERSION_UNKNOWN);
    assert_eq!(code(event.without_attribute("source")), codes::ATTRIBUTE_MISSING);
    assert_eq!(code(event.without_attribute("specversion")), codes::ATTRIBUTE_MISSING);
}

#[test]
fn every_required_attribute_is_required() {
    for (id, source, event_type, missing) in
        [("", "/s", "t", "id"), ("i", "", "t", "source"), ("i", "/s", "", "type")]
    {
        let error = Event::builder(id, source, event_type).build().expect_err("an attribute is empty");
        assert_eq!((error.code, error.attribute.as_deref()), (codes::ATTRIBUTE_EMPTY, Some(missing)));
    }
}

#[test]
fn the_form_of_the_data_follows_the_content_type() {
    let event = Event::builder("1", "/s", "t");
    let form = |builder: EventBuilder| {
        let event = builder.build().expect("a valid event");
        (event.data_form(), event.data_content_type().map(str::to_owned))
    };
    let json = event.clone().json_data("{}");
    assert_eq!(form(json.clone()), (DataForm::Json, Some("application/json".to_owned())));
    assert_eq!(form(json.clone().data_content_type("a/b+json")).0, DataForm::Json);
    assert_eq!(form(json.clone().data_content_type("text/plain")).0, DataForm::Raw);
    let text = event.clone().text_data("{}");
    assert_eq!(form(text.clone()), (DataForm::Raw, None));
    assert_eq!(form(text.clone().data_content_type("text/plain")).0, DataForm::Text);
    assert_eq!(form(text.data_content_type("text/json")).0, DataForm::Raw);

    let json = json.build().expect("a valid event");
    let bare = json.without_attribute("datacontenttype").expect("it is optional");
    assert_eq!((bare.data_form(), bare.data_content_type()), (DataForm::Raw, None));
    assert_eq!(bare.data(), json.data());

    for bad in ["", "{", "{} {}", "nul", "\u{feff}{}"] {
        assert_eq!(event.clone().json_data(bad).build().unwrap_err().code, codes::DATA_INVALID, "{bad}");
    }
    assert_eq!(event.json_data(&b"\"\xff\""[..]).build().unwrap_err().code, codes::DATA_INVALID);
}

#[test]
fn no_data_and_empty_data_and_null_are_three_things() {
    let event = Event::builder("1", "/s", "t").data_content_type("application/json");
    let none = event.build().expect("a valid event");
    let empty = event.clone().data("").build().expect("a valid event");
    let null = event.json_data("null").build().expect("a valid event");
    assert_eq!(none.data(), None);
    assert_eq!(empty.data().as_deref(), Some(&b""[..]));
    assert_eq!(null.data().as_deref(), Some(&b"null"[..]));
    assert!(none != empty && empty != null && none != null);
    assert_eq!(Event::from_packed(empty.packed().clone()).as_ref(), Ok(&empty));
}

#[test]
fn the_schema_has_its_name_by_version() {
    let event = Event::builder("1", "/s", "t").data_schema("http://Example.com");
    let one = event.build().expect("a valid event");
    let old = event.spec_version(SpecVersion::V03).build().expect("a valid event");
    assert_eq!((one.data_schema(), one.attribute("schemaurl")), (Some("http://Example.com"), None));
    assert_eq!((old.data_schema(), old.attribute("dataschema")), (Some("http://Example.com"), None));
    assert_eq!(old.attribute("specversion").map(|value| value.text), Some("0.3"));
}

#[test]
fn equality_is_about_what_is_said() {
    let one = Event::builder("1", "/s", "t").attribute("a", true).attribute("b", "x").build();
    let two = Event::builder("1", "/s", "t").attribute("b", "x").attribute("a", "true").build();
    assert_eq!(one, two);
    let base = Event::builder("1", "/s", "t");
    let base_event = base.build().expect("a valid event");
    for other in [
        base.clone().spec_version(SpecVersion::V03),
        base.clone().attribute("a", "x"),
        base.clone().attribute("id", "2"),
        base.data("x"),
    ] {
        assert_ne!(base_event, other.build().expect("a valid event"));
    }
}

#[test]
fn debug_shows_attributes_and_never_data() {
    let shown = format!("{:?}", Event::builder("7", "/s", "t").data("secret").build());
    assert!(shown.contains("\"7\"") && shown.contains("6 bytes"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn the_limits_hold() {
    let mut builder = Event::builder("1", "/s", "t");
    for number in 0..MAX_ATTRIBUTES - 3 {
        builder = builder.attribute(format!("a{number}"), "x");
    }
    let full = builder.build().expect("as many as allowed");
    assert_eq!(Event::from_packed(full.packed().clone()).as_ref(), Ok(&full));
    for over in [
        builder.attribute("onemore", "x"),
        Event::builder("1", "/s", "t").attribute("long", "x".repeat(MAX_ATTRIBUTE_BYTES)),
    ] {
        assert_eq!(over.build().unwrap_err().code, codes::ATTRIBUTES_TOO_LARGE);
    }
}

#[test]
fn damage_to_the_structure_is_seen() {
    let packed = sample().packed().to_vec();
    let accepted = |bytes: &[u8]| Event::from_packed(Bytes::copy_from_slice(bytes)).is_ok();
    assert!(accepted(&packed));
    let block = packed.len() - sample().data_bytes().expect("it has data").len();
    for end in 0..block {
        assert!(!accepted(&packed[..end]), "cut at {end}");
    }
    let damaged = |at: usize, byte: u8| {
        let mut damaged = packed.clone();
        damaged[at] = byte;
        accepted(&damaged)
    };
    assert!(!damaged(0, 2), "format");
    assert!(!damaged(1, 2), "version");
    assert!(!damaged(2, 4), "form");
    assert!(!damaged(2, 0), "data where there should be none");
    assert!(!damaged(3, 8), "fewer attributes");
    assert!(!damaged(3, 10), "more attributes");
    assert!(!damaged(10, 8), "attribute type");
    assert!(!damaged(15, b'I'), "name");
    assert!(!damaged(16, b'e'), "another name than id at the first place");
    assert!(!damaged(17, b'\n'), "control character in a text");
    assert!(!damaged(17, 0xff), "text that is not UTF-8");
    let error = Event::from_packed(Bytes::new()).expect_err("nothing is no event");
    assert_eq!(error.code(), codes::EVENT_CORRUPT);
    assert!(error.to_string().contains("corrupt"));
}

/// Characters that an attribute may hold.
fn allowed_character() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::char::range(' ', '~'),
        1 => any::<char>().prop_filter("allowed by the norm", |character| {
            validate::is_allowed_text(character.encode_utf8(&mut [0; 4]))
        }),
    ]
}

pub(super) fn allowed_text() -> impl Strategy<Value = String> {
    vec(allowed_character(), 1..24).prop_map(String::from_iter)
}

fn uri() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9+.-]{0,6}:(//[a-z0-9.-]{1,9}(:[0-9]{1,4})?)?(/[a-zA-Z0-9._~!$&'()*+,;=:@-]{1,8}){0,3}([?][a-z=&/?]{0,6})?"
}

fn uri_reference() -> impl Strategy<Value = String> {
    prop_oneof![
        uri(),
        "#[a-z]{1,5}",
        "/[a-zA-Z0-9._~%]{0,0}[a-z/]{1,9}(%[0-9A-F]{2}){0,2}",
        "//authority/[a-z]{1,4}"
    ]
}

fn timestamp() -> impl Strategy<Value = String> {
    "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
}

fn extension_value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        any::<bool>().prop_map(AttributeValue::from),
        any::<i32>().prop_map(AttributeValue::from),
        allowed_text().prop_map(AttributeValue::from),
        Just(AttributeValue::from("")),
        any::<Vec<u8>>().prop_map(|bytes| AttributeValue::binary(&bytes)),
        timestamp().prop_map(AttributeValue::timestamp),
        uri().prop_map(AttributeValue::uri),
        uri_reference().prop_map(AttributeValue::uri_reference),
    ]
}

const RESERVED: [&str; 11] = [
    "id",
    "source",
    "type",
    "specversion",
    "data",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "schemaurl",
    "datacontentencoding",
];

/// JSON text in odd but valid forms, without blanks around it.
pub(super) fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,24})([.][0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
        any::<String>().prop_map(|text| serde_json::Value::String(text).to_string()),
        Just("\"\\ud800 \\u0041\\/\"".to_owned()),
    ];
    let blank = || select(&["", " ", "\n\t", "  \r\n"][..]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), blank())
                .prop_map(|(items, blank)| format!("[{blank}{}{blank}]", items.join(&format!("{blank},")))),
            (vec(("[a-c]{1,2}", inner), 0..4), blank()).prop_map(|(members, blank)| {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("\"{name}\"{blank}:{blank}{value}")).collect();
                format!("{{{blank}{}}}", members.join(","))
            }),
        ]
    })
}

/// Content type and data that belong together, and some that do not.
fn data() -> impl Strategy<Value = (Option<&'static str>, Option<(Bytes, DataForm)>)> {
    let json_types = select(&["application/json", "Text/JSON; charset=utf-8", "application/vnd.x+json"][..]);
    let other_types = select(
        &[
            "text/plain",
            "application/xml",
            "text/html; charset=iso-8859-1",
            "application/octet-stream",
            "image/svg+xml; q=\"a;b\"",
        ][..],
    );
    let json = json_text().prop_map(|json| (Bytes::from(json), DataForm::Json));
    let text = any::<String>().prop_map(|text| (Bytes::from(text), DataForm::Text));
    // No valid JSON begins so: blanks around JSON are not part of the value and would be lost.
    let bytes = vec(any::<u8>(), 0..40).prop_map(|mut bytes| {
        bytes.insert(0, 0xff);
        (Bytes::from(bytes), DataForm::Raw)
    });
    prop_oneof![
        Just((None, None)),
        other_types.clone().prop_map(|content_type| (Some(content_type), None)),
        (option::of(json_types.clone()), json).prop_map(|(content_type, data)| (content_type, Some(data))),
        (other_types.clone(), text).prop_map(|(content_type, data)| (Some(content_type), Some(data))),
        (option::of(prop_oneof![json_types, other_types]), bytes)
            .prop_map(|(content_type, data)| (content_type, Some(data))),
    ]
}

/// A random valid event of either version.
pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let required =
        (select(&[SpecVersion::V1, SpecVersion::V03][..]), allowed_text(), uri_reference(), allowed_text());
    let optional =
        (option::of(allowed_text()), option::of(timestamp()), option::of(uri()), option::of(Just("Base64")));
    let extensions = btree_map(
        "[a-z0-9]{1,24}".prop_filter("not reserved", |name| !RESERVED.contains(&name.as_str())),
        extension_value(),
        0..6,
    );
    (required, optional, extensions, data()).prop_map(
        |(required, optional, extensions, (content_type, data))| {
            let (version, id, source, event_type) = required;
            let (subject, time, schema, encoding) = optional;
            let mut builder = Event::builder(id, source, event_type).spec_version(version);
            builder = subject.into_iter().fold(builder, EventBuilder::subject);
            builder = time.into_iter().fold(builder, EventBuilder::time);
            builder = schema.into_iter().fold(builder, EventBuilder::data_schema);
            builder = content_type.into_iter().fold(builder, EventBuilder::data_content_type);
            if version == SpecVersion::V03 {
                builder = encoding
                    .into_iter()
                    .fold(builder, |builder, text| builder.attribute("datacontentencoding", text));
            }
            for (name, value) in extensions {
                builder = builder.attribute(name, value);
            }
            let builder = match data {
                Some((bytes, DataForm::Raw)) => builder.data(bytes),
                Some((bytes, DataForm::Json)) => builder.json_data(bytes),
                Some((bytes, DataForm::Text)) => {
                    builder.text_data(String::from_utf8(bytes.to_vec()).expect("made of a string"))
                }
                None => builder,
            };
            builder.build().expect("a valid event")
        },
    )
}

proptest! {
    #[test]
    fn packing_is_undone(event in any_event()) {
        let unpacked = Event::from_packed(event.packed().clone());
        prop_assert_eq!(unpacked.as_ref(), Ok(&event));
        let rebuilt = event.to_builder().build();
        prop_assert_eq!(rebuilt.map(|rebuilt| rebuilt.packed), Ok(event.packed));
    }

    #[test]
    fn random_bytes_are_refused_or_harmless(bytes in any::<Vec<u8>>()) {
        read_everything(Bytes::from(bytes));
    }

    #[test]
    fn damaged_events_are_refused_or_harmless(
        event in any_event(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = event.packed().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        read_everything(Bytes::from(bytes));
    }
}

/// Whatever is accepted can be read, written in every mode, changed and shown without a panic.
fn read_everything(packed: Bytes) {
    let Ok(event) = Event::from_packed(packed) else { return };
    assert_eq!(event, event.clone());
    let _ = (
        event.id(),
        event.source(),
        event.event_type(),
        event.data(),
        event.data_schema(),
        format!("{event:?}"),
    );
    let _ = event.with_attribute("subject", "x");
    let _ = event.to_builder().build();
    let _ = http::binary_head(&event);
    let _ = json::encode(&event);
}

/// Events that are changed in place are those that a check of the whole would make.
#[test]
fn changed_events_are_as_if_made_anew() {
    let builder =
        || Event::builder("i", "/s", "t").subject("u").time("2026-01-01T00:00:00Z").attribute("n", 7);
    let events = [
        builder().json_data("{}").build(),
        builder().text_data("x").data_content_type("text/plain").build(),
        builder().data("{}").data_content_type("application/json").build(),
        builder().build(),
        builder().spec_version(SpecVersion::V03).json_data("1").build(),
    ];
    let texts = ["x", "", "/y", "2026-02-01T00:00:00Z", "application/json", "text/plain", "a b", "\u{1}"];
    for event in events {
        let event = event.expect("the event is valid");
        let data = event.data_bytes().map(|bytes| (bytes, event.data_form()));
        for name in [
            "id",
            "source",
            "type",
            "subject",
            "time",
            "n",
            "m",
            "datacontenttype",
            "dataschema",
            "M",
            "data",
        ] {
            for text in texts {
                let anew = event.with_attribute(name, text).map_err(|error| error.detail);
                let changed = event.changed(&[(name, Some((text, AttributeType::String)))], 0, data);
                if let Ok(changed) = &changed {
                    let known = event.changed(&[(name, Some((text, AttributeType::String)))], 1, data);
                    assert_eq!(known.unwrap().packed(), changed.packed(), "{name} {text}");
                }
                assert_eq!(changed.map_err(|error| error.detail), anew, "{name} {text}");
            }
            if name == "M" || name == "data" {
                continue;
            }
            let data = data.map(|(bytes, form)| match name {
                "datacontenttype" => (bytes, DataForm::Raw),
                _ => (bytes, form),
            });
            let anew = event.without_attribute(name).map_err(|error| error.detail);
            let changed = event.changed(&[(name, None)], 0, data).map_err(|error| error.detail);
            assert_eq!(changed, anew, "without {name}");
        }
    }
}

#[test]
fn several_changes_are_as_if_made_one_after_the_other() {
    let event = Event::builder("i", "/s", "t").subject("u").attribute("n", 7).attribute("m", "x");
    let event = event.json_data("[1]").build().unwrap();
    let data = event.data_bytes().map(|bytes| (bytes, event.data_form()));
    let names = ["id", "source", "type", "subject", "n", "m", "time1", "new"];
    for one in names {
        for two in names.into_iter().filter(|two| *two != one) {
            let value = |text| Some((text, AttributeType::String));
            let set = event.changed(&[(one, value("long text")), (two, value("y"))], 0, data);
            let anew =
                event.with_attribute(one, "long text").and_then(|event| event.with_attribute(two, "y"));
            assert_eq!(
                set.map(|event| event.packed().clone()).map_err(|error| error.detail),
                anew.map(|event| event.packed().clone()).map_err(|error| error.detail),
                "{one} {two}"
            );
            if !names[..3].contains(&two) {
                let set = event.changed(&[(one, value("z")), (two, None)], 0, data).unwrap();
                let anew = event.with_attribute(one, "z").unwrap().without_attribute(two).unwrap();
                assert_eq!(set.packed(), anew.packed(), "{one} without {two}");
            }
        }
    }
}

#[test]
fn an_event_that_is_like_another_keeps_the_rules() {
    let event = Event::builder("i", "/s", "t").subject("u").json_data("[1]").build().unwrap();
    let string = |text| Some((text, AttributeType::String));
    let like = event.like(&[("id", string("j")), ("subject", None)], Some(b"\xff")).map(Event::from).unwrap();
    assert_eq!((like.id(), like.source(), like.subject()), ("j", "/s", None));
    assert_eq!((like.data_bytes(), like.data_form()), (Some(&b"\xff"[..]), DataForm::Raw));
    assert_eq!(event.like(&[], None).map(Event::from).unwrap().data(), None);
    for (changes, code) in [
        (vec![("n", string("1")), ("id", string("j")), ("n", string("2"))], codes::ATTRIBUTE_REPEATED),
        (vec![("n", None), ("n", string("2"))], codes::ATTRIBUTE_REPEATED),
        (vec![("source", None)], codes::ATTRIBUTE_MISSING),
        (vec![("time", string("noon"))], codes::TIME_INVALID),
        (vec![("a b", string("x"))], codes::ATTRIBUTE_NAME_INVALID),
    ] {
        let like = event.like(&changes, None).map(Event::from);
        assert_eq!(like.map_err(|error| error.code), Err(code), "{changes:?}");
    }
}
