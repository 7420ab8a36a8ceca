//! Externally tagged components, in resources of their own and inline in a Trigger.

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{Component, Mark, SourceSpec, TransformationSpec, TransformationUse, destination::destination};
use crate::codes;

/// The most transformations of one trigger.
pub(super) const MAX_TRANSFORMATIONS: usize = 64;

fn component(map: &Map, mark: Mark, fields: &[&str]) -> Component {
    let candidates = map
        .iter()
        .filter(|(name, _)| !fields.contains(name))
        .map(|(name, node)| (name.to_owned(), node.clone()))
        .collect();
    Component { candidates, mark }
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
    TransformationSpec { component: component(map, mark, &["sink"]), sink }
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
    let Some(name_node) = map.get("name") else {
        return Some(TransformationUse::Inline(component(map, node.mark, &[])));
    };
    let name_path = path.field("name");
    let name = reader.text(name_node, &name_path)?;
    if let Some((other, node)) = map.iter().find(|(key, node)| *key != "name" && node.value != Value::Null) {
        let message = format!("`{path}` has both `name` and `{other}`");
        let help = "write the name of a Transformation, or a transformation itself";
        reader.error(codes::FIELD_CONFLICT, node.mark, &path.field(other), message, help);
        return None;
    }
    Some(TransformationUse::Named { name: name.to_owned(), mark: name_node.mark })
}
