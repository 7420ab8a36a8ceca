//! Dead letters: what a dead-letter sink is sent, and what operators are told.

mod told;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use waypost_core::Event;
use waypost_core::event::AttributeValue;
use waypost_log::{DeadLetter, DeadLetterReason};

pub(crate) use self::told::KeptQuery;
pub use self::told::{
    InvalidLetterName, LetterAttempt, LetterChoice, LetterDetails, LetterEvent, LetterForwarding, LetterLine,
    LetterName, LetterOutputs, LetterQuery, MAX_NAMED_LETTERS,
};

/// Where the event could not be sent.
const DESTINATION: &str = "knativeerrordest";
/// The last status, or [`UNREACHED`].
const STATUS: &str = "knativeerrorcode";
/// What the subscriber answered, or why there was no answer, in base64.
const DATA: &str = "knativeerrordata";

/// The status that tells of a subscriber that was not reached, as Knative's broker does.
const UNREACHED: u16 = 500;

/// The most bytes that are told: 1,024 characters of base64.
const DATA_LIMIT: usize = 768;

/// The event of a dead letter with Knative's extensions, which replace attributes of the same names. An extension that
/// would break a limit of events is left out: the event itself matters more.
pub(crate) fn dead_letter_event(letter: &DeadLetter, event: &Event) -> Event {
    with_reason(event, &letter.reason)
}

fn with_reason(event: &Event, reason: &DeadLetterReason) -> Event {
    let event = set(event.clone(), DESTINATION, Some(reason.destination.as_str().into()));
    let status = i32::from(reason.status.unwrap_or(UNREACHED));
    let event = set(event, STATUS, Some(status.into()));
    let data = match (&reason.body_excerpt, reason.status) {
        (Some(body), _) => &body[..body.len().min(DATA_LIMIT)],
        (None, Some(_)) => &[],
        (None, None) => &reason.detail.as_bytes()[..reason.detail.floor_char_boundary(DATA_LIMIT)],
    };
    set(event, DATA, (!data.is_empty()).then(|| STANDARD.encode(data).into()))
}

fn set(event: Event, name: &str, value: Option<AttributeValue>) -> Event {
    let changed = match value {
        Some(value) => event.with_attribute(name, value),
        None if event.attribute(name).is_none() => return event,
        None => event.without_attribute(name),
    };
    changed.unwrap_or(event)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use waypost_core::codes;
    use waypost_core::event::{MAX_ATTRIBUTES, SpecVersion};

    use super::*;

    fn dead_with(event: &Event, status: Option<u16>, body: Option<&[u8]>, detail: &str) -> Event {
        let reason = DeadLetterReason {
            code: codes::SUBSCRIBER_STATUS_PERMANENT,
            detail: detail.to_owned(),
            destination: "http://orders.example/".to_owned(),
            status,
            body_excerpt: body.map(Bytes::copy_from_slice),
        };
        with_reason(event, &reason)
    }

    fn event() -> Event {
        let builder = Event::builder("1", "/shop", "order").json_data(&b"{\"n\": 1.0}"[..]);
        builder.attribute("comexample", "kept").build().expect("valid")
    }

    fn text<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
        event.attribute(name).map(|value| value.text)
    }

    fn decoded(event: &Event) -> Option<Vec<u8>> {
        text(event, DATA).map(|data| STANDARD.decode(data).expect("base64"))
    }

    #[test]
    fn an_answer_is_told_with_its_body() {
        let dead = dead_with(&event(), Some(422), Some(b"<html>\n\xff"), "no");
        assert_eq!(text(&dead, DESTINATION), Some("http://orders.example/"));
        assert_eq!(text(&dead, STATUS), Some("422"));
        assert_eq!(decoded(&dead).as_deref(), Some(&b"<html>\n\xff"[..]));
        let mut rest = dead;
        for name in [DESTINATION, STATUS, DATA] {
            rest = rest.without_attribute(name).expect("optional");
        }
        assert_eq!(rest, event());
    }

    #[test]
    fn an_answer_without_a_body_has_no_data() {
        for body in [None, Some(&b""[..])] {
            let dead = dead_with(&event(), Some(404), body, "no");
            assert_eq!((text(&dead, STATUS), text(&dead, DATA)), (Some("404"), None));
        }
    }

    #[test]
    fn without_an_answer_the_sentence_is_told_under_500() {
        let dead = dead_with(&event(), None, None, "nothing listens there");
        assert_eq!(text(&dead, STATUS), Some("500"));
        assert_eq!(decoded(&dead).as_deref(), Some(&b"nothing listens there"[..]));
    }

    #[test]
    fn long_data_is_cut_before_it_is_encoded() {
        let long = vec![b'x'; 4096];
        let dead = dead_with(&event(), Some(500), Some(&long), "no");
        assert_eq!(text(&dead, DATA).map(str::len), Some(1024));
        assert_eq!(decoded(&dead), Some(vec![b'x'; DATA_LIMIT]));

        let sentence = format!("x{}", "ä".repeat(600));
        let dead = dead_with(&event(), None, None, &sentence);
        let told = String::from_utf8(decoded(&dead).expect("data")).expect("whole characters");
        assert!(told.len() <= DATA_LIMIT && told.len() > DATA_LIMIT - 2 && sentence.starts_with(&told));
    }

    #[test]
    fn extensions_of_an_earlier_failure_are_replaced() {
        let earlier = event()
            .to_builder()
            .attribute(DESTINATION, "http://elsewhere/")
            .attribute(STATUS, 503)
            .attribute(DATA, "b2xk")
            .build()
            .expect("valid");
        let dead = dead_with(&earlier, Some(400), None, "no");
        assert_eq!(text(&dead, DESTINATION), Some("http://orders.example/"));
        assert_eq!((text(&dead, STATUS), text(&dead, DATA)), (Some("400"), None));
        assert_eq!(dead.attributes().count(), earlier.attributes().count() - 1);
    }

    #[test]
    fn an_event_of_version_0_3_stays_one() {
        let old = event().to_builder().spec_version(SpecVersion::V03).build().expect("valid");
        let dead = dead_with(&old, Some(400), None, "no");
        assert_eq!(dead.spec_version(), SpecVersion::V03);
        assert_eq!(text(&dead, STATUS), Some("400"));
    }

    #[test]
    fn an_event_that_is_full_goes_as_it_is() {
        let mut full = Event::builder("1", "/shop", "order");
        for number in 3..MAX_ATTRIBUTES {
            full = full.attribute(format!("a{number}"), "x");
        }
        let full = full.build().expect("as many attributes as may be");
        assert_eq!(dead_with(&full, Some(400), None, "no"), full);
    }
}
