//! Records in binary mode that follow each other and differ in few headers.

use smallvec::SmallVec;

use super::{CONTENT_TYPE, Header, PREFIX, structured, utf8};
use crate::event::{AttributeType, Event, Unfilled};

/// The most attributes by which an event may differ from the one before.
const MOST_CHANGES: usize = 6;

/// An attribute that is another than in the event before.
type Change<'c> = (&'c str, Option<(&'c str, AttributeType)>);

/// A record in binary mode and its event. A record behind it that differs from it in the values of few headers becomes its
/// event without all of it being read and checked again.
#[derive(Debug)]
pub struct Precedent {
    headers: Vec<(String, Option<Vec<u8>>)>,
    event: Event,
}

impl Precedent {
    /// `event` is what a record with these headers was decoded to; none where that was not in binary mode.
    pub fn of(headers: &[Header<'_>], event: Event) -> Option<Self> {
        if structured(headers).is_some() {
            return None;
        }
        let owned = |(name, value): &Header<'_>| ((*name).to_owned(), value.map(<[u8]>::to_vec));
        Some(Self { headers: headers.iter().map(owned).collect(), event })
    }

    /// The event of another record, with the attribute `more` where its headers have none of that name: the same as
    /// [`decode`](super::decode) and [`Event::with_attribute`] make. None where the record is not like this one, or
    /// is no event.
    pub fn decode<'v>(
        &self,
        headers: &[Header<'_>],
        value: Option<&'v [u8]>,
        more: Option<(&str, (&str, AttributeType))>,
    ) -> Option<Unfilled<'v>> {
        if headers.len() != self.headers.len() {
            return None;
        }
        let mut changes: SmallVec<[Change<'_>; MOST_CHANGES]> = SmallVec::new();
        for ((known, before), (name, now)) in self.headers.iter().zip(headers) {
            if known != name {
                return None;
            }
            if before.as_deref() == *now {
                continue;
            }
            let attribute = match name.strip_prefix(PREFIX) {
                // What no event is made of.
                Some("datacontenttype") => continue,
                None if !name.eq_ignore_ascii_case(CONTENT_TYPE) => continue,
                Some("specversion") | None => return None,
                Some(attribute) => attribute,
            };
            let (Some(_), Some(now)) = (before, now) else { return None };
            changes.push((attribute, Some((utf8(name, now).ok()?, AttributeType::Untyped))));
        }
        if let Some((name, value)) = more
            && self.event.attribute(name).is_none()
        {
            changes.push((name, Some(value)));
        }
        if changes.len() > MOST_CHANGES {
            return None;
        }
        self.event.like(&changes, value).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::decode;
    use super::*;

    type Owned = (&'static str, Option<&'static [u8]>);

    fn headers(id: &'static str, more: &[Owned]) -> Vec<Owned> {
        let required: [Owned; 4] = [
            ("ce_specversion", Some(b"1.0")),
            ("ce_id", Some(id.as_bytes())),
            ("ce_source", Some(b"/s")),
            ("ce_type", Some(b"t")),
        ];
        [&required[..], more].concat()
    }

    fn precedent(headers: &[Owned]) -> Precedent {
        let event = decode(headers, Some(b"before")).expect("it is valid").expect("it is an event");
        Precedent::of(headers, event).expect("it is in binary mode")
    }

    const KEY: Option<(&str, (&str, AttributeType))> = Some(("partitionkey", ("k", AttributeType::String)));

    #[test]
    fn a_record_with_another_id_subject_key_or_value_is_made_of_the_one_before() {
        let more = |subject: &'static [u8]| -> [Owned; 3] {
            [("ce_subject", Some(subject)), ("x", Some(subject)), ("content-type", Some(b"a/b"))]
        };
        let known = precedent(&headers("1", &more(b"one")));
        for value in [None, Some(&b""[..]), Some(&b"after"[..])] {
            let after = headers("2", &more(b"two"));
            let event = Event::from(known.decode(&after, value, KEY).expect("it is like the one before"));
            let alone = decode(&after, value).unwrap().unwrap().with_attribute("partitionkey", "k").unwrap();
            assert_eq!(event.packed(), alone.packed());
        }
        let own = headers("2", &[("ce_partitionkey", Some(b"own"))]);
        let event = Event::from(precedent(&own).decode(&own, None, KEY).expect("it is the same"));
        assert_eq!(event.attribute("partitionkey").map(|value| value.text), Some("own"));
    }

    #[test]
    fn what_is_not_like_the_one_before_is_left_to_be_read_in_full() {
        let known = precedent(&headers("1", &[("content-type", Some(b"a/b")), ("ce_n", Some(b"1"))]));
        for unlike in [
            headers("2", &[]),
            headers("2", &[("content-type", Some(b"a/c")), ("ce_n", Some(b"1"))]),
            headers("2", &[("content-type", Some(b"a/b")), ("ce_n", None)]),
            headers("2", &[("content-type", Some(b"a/b")), ("ce_m", Some(b"1"))]),
            headers("2", &[("ce_n", Some(b"1")), ("content-type", Some(b"a/b"))]),
            headers("", &[("content-type", Some(b"a/b")), ("ce_n", Some(b"1"))]),
            headers("2", &[("content-type", Some(b"a/b")), ("ce_n", Some(b"\xff"))]),
        ] {
            assert!(known.decode(&unlike, None, None).is_none(), "{unlike:?}");
        }
        let structured = [("content-type", Some(&b"application/cloudevents+json"[..]))];
        let event = known.event;
        assert!(Precedent::of(&structured, event).is_none());
    }

    fn header() -> impl Strategy<Value = Owned> {
        let names = [
            "ce_subject",
            "ce_time",
            "ce_n",
            "ce_Bad",
            "ce_datacontenttype",
            "ce_partitionkey",
            "content-type",
            "Content-Type",
            "x",
            "ce_id",
            "ce_specversion",
        ];
        (select(names.to_vec()), value())
    }

    fn value() -> impl Strategy<Value = Option<&'static [u8]>> {
        let values: [Option<&'static [u8]>; 10] = [
            None,
            Some(b""),
            Some(b"a"),
            Some(b"/s"),
            Some(b"text/plain"),
            Some(b"application/json"),
            Some(b"application/cloudevents+json"),
            Some(b"\xff"),
            Some(b"\n"),
            Some(b"2020-01-01T00:00:00Z"),
        ];
        select(values.to_vec())
    }

    proptest! {
        /// What is made of the record before is what is read in full.
        #[test]
        fn a_precedent_changes_nothing(
            more in vec(header(), 0..4),
            changes in vec((any::<prop::sample::Index>(), value()), 0..8),
            data in select(vec![None, Some(&b""[..]), Some(&b"{}"[..])]),
            key: bool,
        ) {
            let before = headers("1", &more);
            let Ok(Some(event)) = decode(&before, Some(b"x")) else { return Ok(()) };
            let Some(known) = Precedent::of(&before, event) else { return Ok(()) };
            let mut after = before;
            for (index, value) in changes {
                let at = index.index(after.len());
                after[at].1 = value;
            }
            if let Some(event) = known.decode(&after, data, KEY.filter(|_| key)).map(Event::from) {
                let alone = decode(&after, data).expect("it is valid").expect("it is an event");
                let alone = match alone.attribute("partitionkey") {
                    None if key => alone.with_attribute("partitionkey", "k").expect("it is valid"),
                    _ => alone,
                };
                prop_assert_eq!(event.packed(), alone.packed());
            }
        }
    }
}
