//! What holds for every component that is registered, whichever it is.

use schemars::SchemaGenerator;
use serde_json::{Value, json};

/// The schemas of all components, by the name under which they stand in `spec`.
fn schemas() -> Vec<(&'static str, Value)> {
    let mut generator = SchemaGenerator::default();
    let mut schemas = Vec::new();
    schemas.extend(waypost_sources::SOURCES.iter().map(|row| (row.name, (row.schema)(&mut generator))));
    schemas.extend(waypost_sinks::SINKS.iter().map(|row| (row.name, (row.schema)(&mut generator))));
    schemas.extend(
        waypost_transformations::TRANSFORMATIONS.iter().map(|row| (row.name, (row.schema)(&mut generator))),
    );
    // What the schemas refer to stands in the definitions, and is held to the same.
    let definitions = generator.take_definitions(true);
    let mut all: Vec<_> = schemas.into_iter().map(|(name, schema)| (name, schema.to_value())).collect();
    all.extend(definitions.into_iter().map(|(_, definition)| ("a definition", definition)));
    all
}

/// Calls `check` on every object with fields in a schema, with the path to it.
fn objects(
    path: &str,
    schema: &Value,
    check: &mut impl FnMut(&str, &serde_json::Map<String, Value>, &Value),
) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(fields)) = members.get("properties") {
                check(path, fields, schema);
            }
            for (name, member) in members {
                objects(&format!("{path}.{name}"), member, check);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| objects(path, item, check)),
        _ => {}
    }
}

#[test]
fn every_field_is_described_named_in_lower_camel_case_and_no_other_is_taken() {
    let mut seen = 0;
    for (name, schema) in schemas() {
        objects(name, &schema, &mut |path, fields, object| {
            assert_eq!(
                object["additionalProperties"],
                json!(false),
                "{path} takes fields that it does not know"
            );
            for (field, schema) in fields {
                seen += 1;
                let camel = field.starts_with(|c: char| c.is_ascii_lowercase())
                    && field.chars().all(char::is_alphanumeric);
                assert!(camel, "{path}.{field} is not in lowerCamelCase");
                // The one field of a form, such as the `file` of a secret, is described by the form.
                let form = if fields.len() == 1 { object["description"].as_str() } else { None };
                let description = schema["description"].as_str().or(form).unwrap_or_default();
                assert!(!description.is_empty(), "{path}.{field} has no description");
            }
        });
    }
    assert!(seen > 5, "the walk through the schemas sees {seen} fields");
}

#[test]
fn names_are_unique_within_each_list_and_in_lower_camel_case() {
    let lists = [
        waypost_sources::SOURCES.iter().map(|row| row.name).collect::<Vec<_>>(),
        waypost_sinks::SINKS.iter().map(|row| row.name).collect(),
        waypost_transformations::TRANSFORMATIONS.iter().map(|row| row.name).collect(),
    ];
    for names in lists {
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric())), "{names:?}");
    }
}

#[test]
fn settings_with_an_unknown_field_are_refused_with_its_name() {
    let unknown = json!({"noSuchField": 1});
    let configured = waypost_sources::SOURCES
        .iter()
        .map(|row| (row.name, (row.configure)(&unknown).map(drop)))
        .chain(waypost_sinks::SINKS.iter().map(|row| (row.name, (row.configure)(&unknown).map(drop))))
        .chain(
            waypost_transformations::TRANSFORMATIONS
                .iter()
                .map(|row| (row.name, (row.configure)(&unknown).map(drop))),
        );
    for (name, result) in configured {
        let problems = result.expect_err(name);
        assert!(
            problems.iter().any(|problem| problem.message.contains("noSuchField")),
            "{name}: {problems:?}"
        );
    }
}
