//! Knative's Destination and KReference.

use super::document::{Map, Node};
use super::reader::{Path, Reader};
use super::{Destination, Mark, Reference, ResourceName, Target, certificates, check_url};
use crate::codes;

const REFERENCE_HELP: &str = "write `apiVersion`, `kind` and `name` of the resource";

/// Reads a destination; `namespace` is where a reference looks when it names none.
pub(super) fn destination(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    namespace: &str,
) -> Option<Destination> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &["ref", "uri", "CACerts", "audience"], &[]);
    let audience = reader.optional(map, path, "audience", Reader::text).map(str::to_owned);
    let ca_certificates = reader.optional(map, path, "CACerts", certificates).map(str::to_owned);
    let target = target(reader, (map, node.mark), path, namespace)?;
    let destination = Destination { target, ca_certificates, audience, mark: node.mark };
    reader.destinations.push((path.to_string(), destination.clone()));
    Some(destination)
}

fn target(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<Target> {
    let uri = map.get("uri");
    let Some(reference_node) = map.get("ref") else {
        let Some(node) = uri else {
            let help = "write `ref` (apiVersion, kind, name) or `uri` (an absolute URL)";
            reader.error(codes::FIELD_MISSING, mark, path, format!("`{path}` names no destination"), help);
            return None;
        };
        let path = path.field("uri");
        let url = reader.string(node, &path)?;
        return match check_url(url) {
            Ok(()) => Some(Target::Url(url.to_owned())),
            Err(invalid) => {
                let help = "write an absolute URL such as `http://localhost:8090/`";
                reader.error(codes::URL_INVALID, node.mark, &path, invalid.to_string(), help);
                None
            }
        };
    };
    let reference = reference(reader, reference_node, &path.field("ref"), namespace);
    let relative = uri.and_then(|node| relative(reader, node, &path.field("uri")));
    Some(Target::Reference { reference: reference?, relative })
}

/// A URI beside a reference, which must be relative to it.
fn relative(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<String> {
    let uri = reader.string(node, path)?;
    if check_url(uri).is_ok() {
        let message = format!("`{path}` is absolute and stands beside a `ref`");
        let help = "leave out `ref`, or write the URI relative to it";
        reader.error(codes::FIELD_CONFLICT, node.mark, path, message, help);
        return None;
    }
    if super::resolve_relative("http://host/", uri).is_err() {
        let message = format!("`{path}` is not a relative URI");
        reader.error(codes::URL_INVALID, node.mark, path, message, "write a path such as `/events`");
        return None;
    }
    Some(uri.to_owned())
}

/// Reads a reference to a resource.
pub(super) fn reference(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    namespace: &str,
) -> Option<Reference> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &["apiVersion", "kind", "name", "namespace", "address"], &["group"]);
    let own = (map, node.mark);
    let api_version = reader.required(own, path, "apiVersion", REFERENCE_HELP, Reader::text);
    let kind = reader.required(own, path, "kind", REFERENCE_HELP, Reader::text);
    let name = reader.required(own, path, "name", REFERENCE_HELP, Reader::text);
    let namespace = match map.get("namespace") {
        Some(node) => reader.text(node, &path.field("namespace"))?,
        None => namespace,
    };
    Some(Reference {
        api_version: api_version?.to_owned(),
        kind: kind?.to_owned(),
        name: ResourceName::new(namespace, name?),
        mark: node.mark,
    })
}

fn certificates<'n>(reader: &mut Reader<'_>, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
    let pem = reader.string(node, path)?;
    match certificates::check(pem) {
        Ok(()) => Some(pem),
        Err(reason) => {
            let message = format!("`{path}` is not valid: {reason}");
            reader.error(codes::CERTIFICATES_INVALID, node.mark, path, message, "write PEM certificates");
            None
        }
    }
}
