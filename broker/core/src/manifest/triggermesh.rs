//! TriggerMesh's kinds of transformations as native ones: a pure function for each kind.
//!
//! Their adapter lets an event go on where a transformation fails, so that `onError` is `skip`.

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{Component, Mark, TransformationSpec, destination::destination};
use crate::codes;
use crate::transformation::OnError;

/// The group and version of TriggerMesh's transformations.
pub(super) const FLOW: &str = "flow.triggermesh.io/v1alpha1";
/// The group and version of TriggerMesh's Splitter.
pub(super) const ROUTING: &str = "routing.triggermesh.io/v1alpha1";

/// Whether the kind becomes a native Transformation.
pub fn is_transformation(api_version: &str, kind: &str) -> bool {
    matches!(
        (api_version, kind),
        (FLOW, "Transformation" | "JQTransformation" | "XMLToJSONTransformation")
            | (ROUTING, "Splitter" | "Filter")
    )
}

/// Reads the spec of one of the kinds.
pub(super) fn transformation(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
    kind: &str,
) -> Option<TransformationSpec> {
    let sink =
        reader.optional(map, path, "sink", |reader, node, path| destination(reader, node, path, namespace));
    let (type_name, settings, known): (_, _, &[&str]) = match kind {
        "Transformation" => ("fields", fields(map, mark), &["context", "data"]),
        "JQTransformation" => ("jq", jq(reader, (map, mark), path)?, &["query"]),
        "XMLToJSONTransformation" => ("xmlToJson", Vec::new(), &[]),
        "Filter" => ("filter", filter(reader, (map, mark), path)?, &["expression"]),
        _ => ("jsonpath", splitter(reader, (map, mark), path)?, &["path", "ceContext"]),
    };
    tell_of_others(reader, map, path, known);
    let node = Node { value: Value::Map(Map::of(settings)), mark };
    // Fields that are taken over as they are stand directly below `spec`, and so do problems with them.
    let component =
        Component { candidates: vec![(type_name.to_owned(), node)], mark, flat: kind == "Transformation" };
    Some(TransformationSpec { component, sink, on_error: OnError::Skip })
}

/// Nothing is dropped in silence: a field that has no counterpart is named.
fn tell_of_others(reader: &mut Reader<'_>, map: &Map, path: &Path<'_>, known: &[&str]) {
    for (name, node) in map.iter().filter(|(name, _)| *name != "sink" && !known.contains(name)) {
        let path = path.field(name);
        let message = format!("`{path}` has no effect here");
        let help = "leave it out to silence this; what fails here is passed over, and `explain` tells why";
        reader.warning(codes::FIELD_NOT_SUPPORTED, node.mark, &path, message, help);
    }
}

type Settings = Vec<(String, Node)>;

fn plain(name: &str, value: Value, mark: Mark) -> (String, Node) {
    (name.to_owned(), Node { value, mark })
}

fn fields(map: &Map, mark: Mark) -> Settings {
    let lists = ["context", "data"];
    let mut settings: Settings =
        lists.iter().filter_map(|name| Some(((*name).to_owned(), map.get(name)?.clone()))).collect();
    settings.push(plain("lenient", Value::Bool(true), mark));
    settings
}

fn jq(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let query = reader.required(own, path, "query", "write the program", |_, node, _| Some(node.clone()))?;
    Some(vec![("query".to_owned(), query), plain("outputs", Value::String("last".to_owned()), own.1)])
}

fn filter(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let help = "write the expression";
    let cel = reader.required(own, path, "expression", help, |reader, node, path| {
        let text = reader.text(node, path)?;
        let cel = filter_expression(text);
        if cel.is_none() {
            let message = format!("`{path}` is an expression that cannot be translated: `{text}`");
            let help = "values are written `$path.(type)`, with names in the path and the types bool, int64, uint64, \
                        double and string; for all else write a native Transformation of type `filter`";
            reader.error(codes::FIELD_NOT_SUPPORTED, node.mark, path, message, help);
        }
        Some(Node { value: Value::String(cel?), mark: node.mark })
    })?;
    let mark = cel.mark;
    let item = Node { value: Value::Map(Map::of(vec![("cel".to_owned(), cel)])), mark };
    Some(vec![plain("filters", Value::List(vec![item]), mark)])
}

/// An expression of TriggerMesh's Filter, in which values of the data stand as `$path.(type)`, in CEL as our filters have
/// it. A value that is not there is the zero of its type, as in the adapter. Nothing for paths that do more than name
/// members.
pub fn filter_expression(expression: &str) -> Option<String> {
    let mut cel = String::new();
    let mut quote = None;
    let mut rest = expression;
    while let Some(character) = rest.chars().next() {
        match (quote, character) {
            (None, '$') => {
                let (path, after) = rest[1..].split_once(".(")?;
                let (type_name, after) = after.split_once(')')?;
                cel.push_str(&filter_value(path, type_name)?);
                rest = after;
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(_), '\\') => {
                let length = rest.chars().take(2).map(char::len_utf8).sum();
                cel.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        cel.push(character);
        rest = &rest[character.len_utf8()..];
    }
    Some(cel)
}

fn filter_value(path: &str, type_name: &str) -> Option<String> {
    let mut place = "data".to_owned();
    let mut there = "has(data)".to_owned();
    for name in path.split('.') {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(plain) || name.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        there.push_str(&format!(" && '{name}' in {place}"));
        place.push_str(&format!("['{name}']"));
    }
    let (value, zero) = match type_name {
        "bool" => (format!("{place} == true"), "false"),
        "int64" => (format!("int({place})"), "0"),
        "uint64" => (format!("uint({place})"), "0u"),
        "double" => (format!("double({place})"), "0.0"),
        "string" => (format!("string({place})"), "''"),
        _ => return None,
    };
    Some(format!("({there} ? {value} : {zero})"))
}

fn splitter(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let help = "write the path of the array";
    let query = reader.required(own, path, "path", help, |reader, node, path| {
        let text = reader.string(node, path)?;
        let query = json_path_of(text);
        if query.is_none() {
            let message = format!("`{path}` is a path that cannot be translated: `{text}`");
            let help = "names and indexes, separated by dots, are; for all else write a native Transformation of type \
                        `jsonpath` with `split`";
            reader.error(codes::FIELD_NOT_SUPPORTED, node.mark, path, message, help);
        }
        Some(plain("path", Value::String(query?), node.mark))
    });
    let mut split = vec![query?];
    let context = reader.optional(own.0, path, "ceContext", |reader, node, path| {
        reader.map(node, path).map(|map| (map, path.to_string()))
    });
    for (name, node) in context.iter().flat_map(|(map, _)| map.iter()) {
        if matches!(name, "type" | "source" | "extensions") && node.value != Value::Null {
            split.push((name.to_owned(), node.clone()));
        }
    }
    split.push(plain("dropAttributes", Value::Bool(true), own.1));
    Some(vec![plain("split", Value::Map(Map::of(split)), own.1)])
}

/// A path of names and indexes as TriggerMesh writes them (by gjson: `order.items.0`, `\` before a dot within a name),
/// as a query of RFC 9535. Nothing for paths that do more.
fn json_path_of(path: &str) -> Option<String> {
    let mut query = "$".to_owned();
    let mut name = String::new();
    let mut characters = path.chars();
    loop {
        match characters.next() {
            Some('\\') => name.push(characters.next()?),
            Some('*' | '?' | '#' | '|' | '@' | '!' | '{' | '[' | '(') => return None,
            Some('.') | None if name.is_empty() => {
                // `@this`, or no path at all, is the data as a whole; an empty name within a path is an error.
                return (path.is_empty()).then_some(query);
            }
            end @ (Some('.') | None) => {
                let is_index =
                    name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
                if is_index {
                    query.push_str(&format!("[{name}]"));
                } else {
                    let escaped = name.replace('\\', "\\\\").replace('\'', "\\'");
                    query.push_str(&format!("['{escaped}']"));
                }
                name.clear();
                if end.is_none() {
                    return Some(query);
                }
            }
            Some(other) => name.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::{ManifestFile, Severity, Spec};
    use super::*;

    fn read(api_version: &str, kind: &str, spec: &str) -> ManifestFile {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: t}}\nspec: {spec}\n");
        ManifestFile::read("a.yaml", text.as_bytes())
    }

    fn translated(api_version: &str, kind: &str, spec: &str) -> (String, Json, Vec<String>) {
        let file = read(api_version, kind, spec);
        let resource = &file.resources[0];
        let Some(Spec::Transformation(spec)) = &resource.spec else { panic!("{file:?}") };
        assert_eq!((spec.on_error, &*resource.id.kind), (OnError::Skip, kind));
        let [(type_name, settings)] = spec.component.candidates.as_slice() else { panic!("{spec:?}") };
        let warnings = resource.problems.iter().map(|problem| {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            problem.path.clone()
        });
        (type_name.clone(), settings.to_json(), warnings.collect())
    }

    #[test]
    fn each_kind_becomes_a_native_transformation() {
        let (name, settings, warnings) = translated(
            FLOW,
            "Transformation",
            "{context: [{operation: add, paths: [{key: type, value: x}]}], adapterOverrides: {public: true}}",
        );
        let list = json!([{"operation": "add", "paths": [{"key": "type", "value": "x"}]}]);
        assert_eq!((&*name, settings), ("fields", json!({"context": list, "lenient": true})));
        assert_eq!(warnings, ["spec.adapterOverrides"]);
        let (name, settings, warnings) =
            translated(FLOW, "JQTransformation", "{query: .a, eventOptions: {payloadPolicy: error}}");
        assert_eq!((&*name, settings), ("jq", json!({"query": ".a", "outputs": "last"})));
        assert_eq!(warnings, ["spec.eventOptions"]);
        let (name, settings, _) = translated(FLOW, "XMLToJSONTransformation", "{}");
        assert_eq!((&*name, settings), ("xmlToJson", json!({})));
        let (name, settings, warnings) = translated(
            ROUTING,
            "Splitter",
            "{path: items, ceContext: {type: part, source: /split, extensions: {k: v}}}",
        );
        let split = json!({
            "path": "$['items']", "type": "part", "source": "/split", "extensions": {"k": "v"}, "dropAttributes": true,
        });
        assert_eq!((&*name, settings, warnings.len()), ("jsonpath", json!({"split": split}), 0));
    }

    #[test]
    fn what_cannot_be_translated_is_told_with_its_place() {
        for (api_version, kind, spec, code, path) in [
            (ROUTING, "Splitter", "{path: 'items.#.x'}", "E0112", "spec.path"),
            (ROUTING, "Splitter", "{}", "E0108", "spec.path"),
            (ROUTING, "Filter", "{expression: '$a.#.(int64) > 1'}", "E0112", "spec.expression"),
            (ROUTING, "Filter", "{expression: '$a > 1'}", "E0112", "spec.expression"),
            (FLOW, "JQTransformation", "{}", "E0108", "spec.query"),
            (FLOW, "XSLTTransformation", "{}", "E0106", "kind"),
            ("eventing.knative.dev/v1alpha1", "EventTransform", "{}", "E0106", "kind"),
        ] {
            let file = read(api_version, kind, spec);
            let problem = &file.resources[0].problems[0];
            assert_eq!((problem.code.id(), &*problem.path), (code, path), "{problem}");
            assert!(problem.message.contains(kind) || code != "E0106", "{problem}");
        }
    }

    #[test]
    fn expressions_become_cel() {
        let (name, settings, _) = translated(ROUTING, "Filter", "{expression: '$a.b.(int64) > 1'}");
        let cel = "(has(data) && 'a' in data && 'b' in data['a'] ? int(data['a']['b']) : 0) > 1";
        assert_eq!((&*name, settings), ("filter", json!({"filters": [{"cel": cel}]})));
    }

    #[test]
    fn paths_become_queries() {
        for (path, query) in [
            ("items", Some("$['items']")),
            ("order.items", Some("$['order']['items']")),
            ("a.0.b", Some("$['a'][0]['b']")),
            (r"a\.b.c", Some("$['a.b']['c']")),
            ("it's", Some(r"$['it\'s']")),
            ("", Some("$")),
            ("a..b", None),
            ("items.#", None),
            ("a|b", None),
            ("a*", None),
        ] {
            assert_eq!(json_path_of(path).as_deref(), query, "{path}");
        }
    }
}
