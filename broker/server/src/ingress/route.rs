//! Which addressable a path names.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The longest name or namespace of a resource, as Kubernetes has it.
const MAX_NAME_BYTES: usize = 253;

/// What a path names. Names are as they were sent, decoded; whether they exist is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) kind: Addressable,
    pub(super) namespace: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    /// What follows the URL of a source, as it was sent: empty, or from a slash on.
    pub(super) rest: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressable {
    /// `/{namespace}/{broker}`
    Broker,
    /// `/{namespace}/sinks/{name}`
    Sink,
    /// `/{namespace}/transformations/{name}`
    Transformation,
    /// `/{namespace}/sequences/{name}`
    Sequence,
    /// `/{namespace}/parallels/{name}`
    Parallel,
    /// `/{namespace}/sources/{name}`, and all below it
    Source,
}

/// Reads a path, with or without a slash at its end. None for a path that can name nothing.
pub(super) fn route(path: &str) -> Option<Route<'_>> {
    let path = path.strip_prefix('/')?;
    if let Some(route) = source(path) {
        return Some(route);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = path.split('/');
    let (namespace, second, third) = (segments.next()?, segments.next()?, segments.next());
    if segments.next().is_some() {
        return None;
    }
    let (kind, name) = match (second, third) {
        (broker, None) => (Addressable::Broker, broker),
        ("sinks", Some(name)) => (Addressable::Sink, name),
        ("transformations", Some(name)) => (Addressable::Transformation, name),
        ("sequences", Some(name)) => (Addressable::Sequence, name),
        ("parallels", Some(name)) => (Addressable::Parallel, name),
        _ => return None,
    };
    Some(Route { kind, namespace: decode(namespace)?, name: decode(name)?, rest: "" })
}

/// Reads the path of a source. What stands below it is for the source to read.
fn source(path: &str) -> Option<Route<'_>> {
    let (namespace, path) = path.split_once('/')?;
    let path = path.strip_prefix("sources/")?;
    let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let rest = if rest == "/" { "" } else { rest };
    Some(Route { kind: Addressable::Source, namespace: decode(namespace)?, name: decode(name)?, rest })
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    // Three bytes per escape; what is longer is no name.
    if segment.is_empty() || segment.len() > 3 * MAX_NAME_BYTES {
        return None;
    }
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(Addressable, String, String)> {
        route(path).map(|route| (route.kind, route.namespace.into_owned(), route.name.into_owned()))
    }

    fn named(kind: Addressable, namespace: &str, name: &str) -> Option<(Addressable, String, String)> {
        Some((kind, namespace.to_owned(), name.to_owned()))
    }

    #[test]
    fn brokers_stand_under_their_namespace() {
        assert_eq!(found("/default/orders"), named(Addressable::Broker, "default", "orders"));
        assert_eq!(found("/default/orders/"), named(Addressable::Broker, "default", "orders"));
        assert_eq!(found("/default/sinks"), named(Addressable::Broker, "default", "sinks"));
    }

    #[test]
    fn other_addressables_stand_under_their_kind() {
        assert_eq!(found("/ns/sinks/print"), named(Addressable::Sink, "ns", "print"));
        assert_eq!(found("/ns/transformations/t/"), named(Addressable::Transformation, "ns", "t"));
        assert_eq!(found("/ns/sequences/s"), named(Addressable::Sequence, "ns", "s"));
        assert_eq!(found("/ns/parallels/p"), named(Addressable::Parallel, "ns", "p"));
        assert_eq!(found("/ns/sources/hooks"), named(Addressable::Source, "ns", "hooks"));
        assert_eq!(found("/ns/sources"), named(Addressable::Broker, "ns", "sources"));
        assert_eq!(found("/ns/sources/"), named(Addressable::Broker, "ns", "sources"));
    }

    #[test]
    fn what_stands_below_a_source_is_left_to_it() {
        for (path, rest) in [
            ("/ns/sources/hooks", ""),
            ("/ns/sources/hooks/", ""),
            ("/ns/sources/hooks/a%2Fb/c/", "/a%2Fb/c/"),
        ] {
            assert_eq!(route(path).unwrap().rest, rest, "{path}");
        }
    }

    #[test]
    fn names_are_percent_decoded_once() {
        assert_eq!(found("/d%65fault/a%2Fb"), named(Addressable::Broker, "default", "a/b"));
        assert_eq!(found("/default/%2541"), named(Addressable::Broker, "default", "%41"));
        assert_eq!(found("/default/%ff"), None);
    }

    #[test]
    fn other_paths_name_nothing() {
        let long = format!("/default/{}", "a".repeat(3 * MAX_NAME_BYTES + 1));
        for path in
            ["", "/", "*", "//", "/default", "/default/", "//orders", "/a/b/c", "/a/sinks/b/c", "/a//", &long]
        {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
