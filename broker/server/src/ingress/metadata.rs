//! What travels with an event and is not part of it, read from the request.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use waypost_core::{Event, codes};
use waypost_engine::{is_passed_header, take_hops};
use waypost_log::record::DEFAULT_HOPS;
use waypost_log::{Metadata, Origin, Record};

use crate::problem::Problem;

/// The most request headers that are passed on with an event; those beyond are not.
const MAX_PASSED_HEADERS: usize = 16;
/// The most bytes that the passed headers take, names and values together.
const MAX_PASSED_BYTES: usize = 8 * 1024;

/// Headers of a request that are passed on to subscribers.
pub(super) type PassedHeaders = Box<[(Bytes, Bytes)]>;

/// The headers of a request that go with its events to subscribers.
pub(super) fn passed_headers(headers: &HeaderMap) -> PassedHeaders {
    let mut passed = Vec::new();
    let mut bytes = 0;
    for (name, value) in headers {
        if !is_passed_header(name.as_str()) {
            continue;
        }
        bytes += name.as_str().len() + value.len();
        if passed.len() == MAX_PASSED_HEADERS || bytes > MAX_PASSED_BYTES {
            break;
        }
        passed.push((Bytes::copy_from_slice(name.as_str().as_bytes()), copy(value)));
    }
    passed.into()
}

/// A copy, since a slice would keep the connection's whole read buffer for as long as the log keeps the record.
fn copy(value: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

/// An event as it goes into the log: `knativebrokerttl` becomes its hops, one less than it says.
pub(super) fn record(event: Event, headers: PassedHeaders, origin: Origin) -> Result<Record, Problem> {
    let (event, given) = take_hops(event);
    let hops = given.map_or(DEFAULT_HOPS, |hops| hops.saturating_sub(1));
    if hops == 0 {
        return Err(Problem::new(
            http::StatusCode::BAD_REQUEST,
            codes::REPLY_HOPS_SPENT,
            "the event has no hops left: its `knativebrokerttl` is used up; look for subscribers that send what they \
             receive back to where it came from",
        ));
    }
    let metadata = Metadata { hops, origin, headers, ..Metadata::default() };
    Ok(Record { metadata, event })
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn passes_on_what_subscribers_may_see() {
        let passed = passed_headers(&headers(&[
            ("ce-id", "1"),
            ("x-request-id", "r"),
            ("authorization", "Bearer secret"),
            ("Knative-Activator-Num-Retries", "3"),
            ("Knative-Foo", "f"),
            ("traceparent", "00-aa-bb-01"),
        ]));
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let mut names: Vec<_> = passed.iter().map(|(name, value)| (text(name), text(value))).collect();
        names.sort();
        let expected = [("knative-foo", "f"), ("traceparent", "00-aa-bb-01"), ("x-request-id", "r")];
        assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn passed_headers_are_bounded() {
        let mut many = HeaderMap::new();
        for number in 0..100 {
            many.insert(
                HeaderName::try_from(format!("knative-{number}")).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        assert_eq!(passed_headers(&many).len(), MAX_PASSED_HEADERS);
        let large = headers(&[("knative-large", &"v".repeat(MAX_PASSED_BYTES))]);
        assert!(passed_headers(&large).is_empty());
    }

    fn hops_of(given: Option<&str>) -> Result<(u8, bool), waypost_core::Code> {
        let event = Event::builder("1", "/s", "t");
        let event = match given {
            Some(given) => event.attribute("knativebrokerttl", given),
            None => event,
        };
        record(event.build().unwrap(), PassedHeaders::default(), Origin::Ingress)
            .map(|record| (record.metadata.hops, record.event.attribute("knativebrokerttl").is_some()))
            .map_err(|problem| problem.code)
    }

    #[test]
    fn the_loop_counter_becomes_hops() {
        assert_eq!(hops_of(None), Ok((255, false)));
        assert_eq!(hops_of(Some("255")), Ok((254, false)));
        assert_eq!(hops_of(Some("2")), Ok((1, false)));
        assert_eq!(hops_of(Some("many")), Ok((255, false)));
        for spent in ["1", "0", "-7"] {
            assert_eq!(hops_of(Some(spent)), Err(codes::REPLY_HOPS_SPENT), "{spent}");
        }
    }
}
