//! Externally tagged components, in resources of their own and inline in a Trigger.

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{Component, Mark, SourceSpec, TransformationSpec, TransformationUse, destination::destination};
use crate::codes;
use crate::transformation::OnError;

/// The most transformations of one trigger.
pub(super) const MAX_TRANSFORMATIONS: usize = 64;

fn component(map: &Map, mark: Mark, fields: &[&str]) -> Component {
    let candidates = map
        .iter()
        .filter(|(name, _)| !fields.contains(name))
        .map(|(name, node)| (name.to_owned(), node.clone()))
        .collect();
    Component { candidates, mark, flat: false }
}

/// Reads the spec of a Sink.
pub(super) fn sink(map: &Map, mark: Mark) -> Component {
    component(map, mark, &[])
}

/// Reads the spec of a Source.
pub(super) fn source(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<SourceSpec> {
    let help = "write the Broker or the destination that takes the events";
    let sink = reader.required((map, mark), path, "sink", help, |reader, node, path| {
        destination(reader, node, path, namespace)
    });
    Some(SourceSpec { component: component(map, mark, &["sink"]), sink: sink? })
}

/// Reads the spec of a Transformation.
pub(super) fn transformation(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> TransformationSpec {
    let sink =
        reader.optional(map, path, "sink", |reader, node, path| destination(reader, node, path, namespace));
    let on_error = reader.optional(map, path, "onError", on_error).unwrap_or_default();
    TransformationSpec { component: component(map, mark, &["sink", "onError"]), sink, on_error }
}

fn on_error(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<OnError> {
    match reader.text(node, path)? {
        "fail" => Some(OnError::Fail),
        "skip" => Some(OnError::Skip),
        "drop" => Some(OnError::Drop),
        other => {
            let message = format!("`{path}` is `{other}`");
            let help = "write `fail` (a dead letter), `skip` (the event goes on unchanged) or `drop`";
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
            None
        }
    }
}

/// Reads the transformations of a Trigger: each by `name`, or inline by its type.
pub(super) fn transformations(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
) -> Option<Vec<TransformationUse>> {
    let items = reader.list(node, path)?;
    if items.len() > MAX_TRANSFORMATIONS {
        let message = format!("`{path}` holds more than {MAX_TRANSFORMATIONS} transformations");
        reader.error(codes::FIELD_VALUE, node.mark, path, message, "combine them");
        return None;
    }
    let uses: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(index, node)| transformation_use(reader, node, &path.item(index)))
        .collect();
    uses.into_iter().collect()
}

fn transformation_use(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<TransformationUse> {
    let map = reader.map(node, path)?;
    let policy = reader.optional(map, path, "onError", on_error);
    let Some(name_node) = map.get("name") else {
        let component = component(map, node.mark, &["onError"]);
        return Some(TransformationUse::Inline { component, on_error: policy.unwrap_or_default() });
    };
    let name_path = path.field("name");
    let name = reader.text(name_node, &name_path)?;
    let beside = |key: &str| !matches!(key, "name" | "onError");
    if let Some((other, node)) = map.iter().find(|(key, node)| beside(key) && node.value != Value::Null) {
        let message = format!("`{path}` has both `name` and `{other}`");
        let help = "write the name of a Transformation, or a transformation itself";
        reader.error(codes::FIELD_CONFLICT, node.mark, &path.field(other), message, help);
        return None;
    }
    Some(TransformationUse::Named { name: name.to_owned(), mark: name_node.mark, on_error: policy })
}
