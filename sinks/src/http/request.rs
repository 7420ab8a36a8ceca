//! Events as requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use waypost_clients::http::Site;
use waypost_core::event::http::{STRUCTURED_JSON, encode_binary, encode_structured, fits_binary};
use waypost_core::{DeliveryError, Event, codes};

use super::{HttpConfig, HttpFormat, OWN_HEADERS};

/// A request, but for what says who we are.
#[derive(Debug, PartialEq)]
pub(super) struct Written {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The data of an event that describes a request.
#[derive(Default, Deserialize)]
struct Described {
    #[serde(default)]
    query_string: String,
    #[serde(default)]
    path_suffix: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Box<RawValue>>,
}

impl HttpConfig {
    /// Writes an event as a request. What it lacks, or has wrong, is a matter of this event alone.
    pub(super) fn write(&self, event: &Event, site: &Site) -> Result<Written, DeliveryError> {
        let unrendered = |detail: String| DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, detail);
        let suffix = match &self.path {
            Some(path) => path.render(event).map_err(|error| unrendered(error.to_string()))?,
            None => String::new(),
        };
        let described = match &self.request_events {
            Some(described) if described == event.event_type() => Some(describe(event)?),
            _ => None,
        };
        let (mut headers, body) = match &described {
            Some(described) => {
                let body = described.body.as_ref().map(|body| Bytes::copy_from_slice(body.get().as_bytes()));
                (HeaderMap::new(), body.unwrap_or_default())
            }
            None => self.content(event),
        };
        for (name, template) in &self.headers {
            let value = template.render(event).map_err(|error| unrendered(error.to_string()))?;
            insert(&mut headers, name, &value).map_err(unrendered)?;
        }
        let described = described.unwrap_or_default();
        for (name, value) in &described.headers {
            if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                continue;
            }
            insert(&mut headers, name, value).map_err(refused)?;
        }
        let uri = uri(site.target().uri(), [&suffix, &described.path_suffix], &described.query_string);
        Ok(Written { uri: uri.map_err(refused)?, headers, body })
    }

    fn content(&self, event: &Event) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        let body = match self.format {
            HttpFormat::Binary if fits_binary(event) => {
                encode_binary(event, &mut headers);
                event.data().unwrap_or_default()
            }
            HttpFormat::Binary | HttpFormat::Structured => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_JSON));
                encode_structured(event)
            }
            HttpFormat::Data => {
                let content_type = event.data_content_type();
                if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
                    headers.insert(CONTENT_TYPE, value);
                }
                event.data().unwrap_or_default()
            }
        };
        (headers, body)
    }
}

fn refused(detail: String) -> DeliveryError {
    DeliveryError::permanent(codes::SINK_REFUSED, detail)
}

fn describe(event: &Event) -> Result<Described, DeliveryError> {
    let undescribed = |why: String| {
        refused(format!(
            "the data describes no request ({why}); write an object with `query_string`, `path_suffix`, `headers` and \
             `body`"
        ))
    };
    let data = event.data_bytes().unwrap_or_default();
    // A list would be taken for the fields in their order.
    if !data.trim_ascii_start().starts_with(b"{") {
        return Err(undescribed("it is no object".to_owned()));
    }
    serde_json::from_slice(data).map_err(|error| undescribed(error.to_string()))
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{}` is no name of a header", name.escape_debug()))?;
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| format!("the value of the header `{name}` has characters that no header can hold"))?;
    headers.insert(header, value);
    Ok(())
}

/// The path and query of a URL with what events add to them. They never lead out of the path of the URL, and a name that
/// the query of the URL has keeps its value.
fn uri(base: &Uri, suffixes: [&str; 2], query: &str) -> Result<Uri, String> {
    let mut path = base.path().to_owned();
    for suffix in suffixes.iter().filter(|suffix| !suffix.is_empty()) {
        let suffix = suffix.trim_start_matches('/');
        if suffix.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(format!("the path `{}` leads out of that of the URL", suffix.escape_debug()));
        }
        if !path.ends_with('/') {
            path.push('/');
        }
        path.extend(suffix.bytes().map(|byte| encoded(byte, b"-._~!$&'()*+,;=:@/")));
    }
    let fixed = base.query().unwrap_or_default();
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let is_fixed = |pair: &str| fixed.split('&').any(|known| name(known) == name(pair));
    let mut pairs: Vec<String> =
        fixed.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty() && !is_fixed(pair)) {
        // Escapes that are there stay.
        pairs.push(pair.bytes().map(|byte| encoded(byte, b"-._~!$'()*+,;:@/?=%")).collect());
    }
    let query = pairs.join("&");
    let whole = if query.is_empty() { path } else { format!("{path}?{query}") };
    whole.parse().map_err(|_| format!("`{}` cannot stand in a URL", whole.escape_debug()))
}

fn encoded(byte: u8, plain: &[u8]) -> String {
    if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_added_and_never_lead_out() {
        let made = |base: &str, suffixes, query| {
            uri(&base.parse().unwrap(), suffixes, query).map(|uri| uri.to_string())
        };
        for (base, suffixes, query, expected) in [
            ("/", ["", ""], "", "/"),
            ("/hook?k=1", ["", ""], "", "/hook?k=1"),
            ("/a", ["b", ""], "", "/a/b"),
            ("/a/", ["/b", "c/"], "", "/a/b/c/"),
            ("/a?k=1", ["b c/ü?#", ""], "k=2&l=3 4&m=%20", "/a/b%20c/%C3%BC%3F%23?k=1&l=3%204&m=%20"),
            ("/", ["", "x"], "?q=1", "/x?q=1"),
        ] {
            assert_eq!(made(base, suffixes, query).as_deref(), Ok(expected), "{base} {suffixes:?}");
        }
        for suffix in ["..", "a/../b", "./a", "../../admin"] {
            assert!(made("/a", [suffix, ""], "").is_err(), "{suffix}");
        }
        // An escape is encoded itself, so that it does not become a way out.
        assert_eq!(made("/a", ["%2e%2e/b", ""], "").as_deref(), Ok("/a/%252e%252e/b"));
    }
}
