//! The JSON schema of the native kinds, component types included.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use waypost_core::manifest::NATIVE;
use waypost_core::manifest::native::{BrokerSpec, Destination, ReplaySpec, TestSpec, TriggerSpec};

use super::Registry;

/// The JSON schema (2020-12) of every native kind, with the settings of the registry's component types.
pub fn schema(registry: &Registry) -> Value {
    let mut generator = SchemaGenerator::default();
    let sinks: Vec<_> =
        registry.sinks.iter().map(|kind| (kind.name, (kind.schema)(&mut generator))).collect();
    let sources: Vec<_> =
        registry.sources.iter().map(|kind| (kind.name, (kind.schema)(&mut generator))).collect();
    let transformations: Vec<_> =
        registry.transformations.iter().map(|kind| (kind.name, (kind.schema)(&mut generator))).collect();
    let destination = generator.subschema_for::<Destination>();
    let sink = |required: bool| Some((&destination, required));
    let mut trigger = TriggerSpec::json_schema(&mut generator);
    inline_transformations(&mut trigger, &transformations);
    let kinds = [
        resource("Broker", &BrokerSpec::json_schema(&mut generator), false),
        resource("Trigger", &trigger, true),
        resource(
            "Source",
            &components("Where events come from, and the sink that takes them.", &sources, sink(true)),
            true,
        ),
        resource("Sink", &components("Somewhere outside that accepts events.", &sinks, None), true),
        resource(
            "Transformation",
            &components("Turns one event into none, one or several.", &transformations, sink(false)),
            true,
        ),
        resource("Replay", &ReplaySpec::json_schema(&mut generator), true),
        resource("Test", &TestSpec::json_schema(&mut generator), true),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Waypost manifests",
        "description": format!("A resource of {NATIVE}."),
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

fn resource(kind: &str, spec: &Schema, spec_required: bool) -> Value {
    let mut required = vec!["apiVersion", "kind", "metadata"];
    if spec_required {
        required.push("spec");
    }
    json!({
        "title": kind,
        "description": spec.get("description").cloned().unwrap_or_default(),
        "type": "object",
        "properties": {
            "apiVersion": {"description": "The group and version.", "const": NATIVE},
            "kind": {"description": "The kind.", "const": kind},
            "metadata": {
                "description": "The identity of the resource, as in Kubernetes.",
                "type": "object",
                "properties": {
                    "name": {"description": "The name, unique among the resources of its kind.", "type": "string"},
                    "namespace": {"description": "The namespace, `default` where it is absent.", "type": "string"},
                    "labels": {"description": "Labels, as in Kubernetes.", "type": "object"},
                    "annotations": {"description": "Annotations, as in Kubernetes.", "type": "object"},
                },
                "required": ["name"],
            },
            "spec": spec,
        },
        "required": required,
    })
}

/// A spec that holds exactly one of the types, and a sink where the kind has one.
fn components(description: &str, types: &[(&str, Schema)], sink: Option<(&Schema, bool)>) -> Schema {
    let choices: Vec<Value> = types
        .iter()
        .map(|(name, schema)| {
            let mut properties = Map::new();
            properties.insert((*name).to_owned(), schema.clone().to_value());
            let mut required = vec![*name];
            if let Some((destination, is_required)) = sink {
                properties.insert("sink".to_owned(), destination.clone().to_value());
                if is_required {
                    required.push("sink");
                }
            }
            json!({
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            })
        })
        .collect();
    schemars::json_schema!({"description": description, "oneOf": choices})
}

/// Beside transformations by name, a trigger takes them written out.
fn inline_transformations(trigger: &mut Schema, types: &[(&str, Schema)]) {
    let inline = components("A transformation written out.", types, None).to_value();
    let by_name = trigger.pointer("/properties/transformations/items").cloned().unwrap_or_default();
    if let Some(items) = trigger.pointer_mut("/properties/transformations/items") {
        *items = json!({"anyOf": [by_name, inline]});
    }
}
