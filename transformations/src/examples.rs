//! The examples of `deploy/examples`: each transformation in them compiles, and does what its page says.

use serde_json::json;
use waypost_core::manifest::{ManifestFile, Spec};

use crate::trial;

/// The type and the settings of the one Transformation of an example. References to Secrets are put in by the planner;
/// here it is a value.
fn transformation(example: &str) -> (String, serde_json::Value) {
    let path = format!("{}/../deploy/examples/{example}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = ManifestFile::read(example, &text);
    let problems = file.resources.iter().flat_map(|resource| &resource.problems).count();
    assert_eq!(problems, 0, "{:?}", file.resources);
    let mut declared = file.resources.iter().filter_map(|resource| match &resource.spec {
        Some(Spec::Transformation(spec)) => spec.component.candidates.first(),
        _ => None,
    });
    let (name, node) = declared.next().expect("a Transformation");
    let mut settings = node.to_json();
    if let Some(key) = settings.get_mut("key") {
        *key = json!({"value": "0123456789abcdef"});
    }
    (name.clone(), settings)
}

#[test]
fn examples_do_what_they_say() {
    let order = r#"{"id":"AB-1","total":150,"customer":{"name":"Ann","email":"bob@example.com"},"items":[{"id":1,"price":100.00},{"id":2,"price":50}],"card":{"number":"4111111111111111"},"password":"x"}"#;
    let made = |example: &str, data: &str| {
        let (name, settings) = transformation(example);
        let events = trial::events(&name, &settings, &trial::event(data))
            .unwrap_or_else(|error| panic!("{example}: {error}"));
        (events[0].event_type().to_owned(), events.iter().map(trial::text_of).collect::<Vec<_>>())
    };
    assert_eq!(
        made("transformation-jq.yaml", order).1,
        [
            r#"{"id":1,"price":100.00,"customer":"Ann","order":"1"}"#,
            r#"{"id":2,"price":50,"customer":"Ann","order":"1"}"#
        ]
    );
    assert_eq!(
        made("transformation-cel.yaml", order),
        ("order.summary".to_owned(), vec![r#"{"count":2,"id":"AB-1","large":true}"#.to_owned()])
    );
    assert_eq!(
        made("transformation-template.yaml", order).1,
        [r#"{"text":"*New order* AB-1 of Ann","items":[1,2]}"#]
    );
    assert_eq!(made("transformation-schema.yaml", order).1, [order]);
    assert_eq!(
        made("transformation-redact.yaml", order).1,
        [order
            .replace("bob@example.com", "bbc8434fd179b429f14ccaf6cb6053ca729b90169559151d0ba9f3e9770a8254")
            .replace("4111111111111111", "***1111")
            .replace(r#","password":"x""#, "")]
    );
    assert_eq!(
        made("transformation-xml-to-json.yaml", "<order><id>1</id></order>").1,
        [r#"{"order":{"id":"1"}}"#]
    );
}

#[test]
fn the_example_of_a_schema_refuses_with_the_place() {
    let (name, settings) = transformation("transformation-schema.yaml");
    let error = trial::data(&name, &settings, r#"{"id":"AB-1","total":-1}"#).expect_err("refused");
    assert!(error.ends_with("(at /total)"), "{error}");
}
