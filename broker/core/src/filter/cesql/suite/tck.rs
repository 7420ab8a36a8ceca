//! The conformance suite of the norm.

use super::*;
use crate::event::json;
use crate::manifest::document::{self, Node};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/cesql-tck/", $name, ".yaml"
        )))),*]
    };
}

const FILES: [(&str, &str); 18] = files![
    "binary_comparison_operators",
    "binary_logical_operators",
    "binary_math_operators",
    "case_sensitivity",
    "casting_functions",
    "context_attributes_access",
    "exists_expression",
    "in_expression",
    "integer_builtin_functions",
    "like_expression",
    "literals",
    "negate_operator",
    "not_operator",
    "parse_errors",
    "spec_examples",
    "string_builtin_functions",
    "sub_expression",
    "subscriptions_api_recreations",
];

const VARIANT: [(&str, &str); 1] = files!["not_operator.sdk-go"];

/// The case that contradicts section 3.7.
const CONTRADICTION: (&str, &str) = ("not_operator", "Invalid int cast");

struct Case {
    file: &'static str,
    name: String,
    expression: String,
    event: Event,
    result: Option<serde_json::Value>,
    error: Option<String>,
}

fn cases(file: &'static str, source: &'static str) -> Vec<Case> {
    let mut documents = Vec::new();
    document::parse(source, 1, |node| documents.push(node)).unwrap();
    let document::Value::Map(root) = &documents[0].value else { panic!("{file} is a map") };
    let Some(Node { value: document::Value::List(tests), .. }) = root.get("tests") else {
        panic!("{file} has tests")
    };
    tests.iter().map(|test| case(file, source, test)).collect()
}

fn case(file: &'static str, source: &str, test: &Node) -> Case {
    let document::Value::Map(fields) = &test.value else { panic!("{file}: a case is a map") };
    // Numbers and Booleans without quotes are meant as text.
    let text = |name: &str| {
        fields.get(name).map(|node| match &node.value {
            document::Value::String(text) => text.clone(),
            _ => {
                let line = source.lines().nth(node.mark.line as usize - 1).unwrap();
                line.split_once(": ").unwrap().1.trim().to_owned()
            }
        })
    };
    let mut event =
        serde_json::json!({"specversion": "1.0", "id": "id", "source": "/source", "type": "type"});
    for whole_or_part in ["event", "eventOverrides"] {
        if let Some(node) = fields.get(whole_or_part)
            && let serde_json::Value::Object(attributes) = node.to_json()
        {
            event.as_object_mut().unwrap().extend(attributes);
        }
    }
    Case {
        file,
        name: text("name").unwrap(),
        expression: text("expression").unwrap(),
        event: json::decode(event.to_string().as_bytes()).unwrap(),
        result: fields.get("result").map(Node::to_json),
        error: text("error"),
    }
}

fn check(case: &Case) {
    let place = format!("{}: {} ({})", case.file, case.name, case.expression);
    let expression = match Expression::parse(&case.expression) {
        Ok(expression) => expression,
        Err(error) => {
            assert_eq!(case.error.as_deref(), Some("parse"), "{place}: {error}");
            return;
        }
    };
    let candidate = Candidate::new(&case.event);
    let evaluation = expression.evaluate(&candidate).unwrap();
    let classes: Vec<_> = evaluation
        .errors
        .iter()
        .map(|error| match error.class() {
            ErrorClass::Math => "math",
            ErrorClass::Cast => "cast",
            ErrorClass::MissingAttribute => "missingAttribute",
            ErrorClass::MissingFunction => "missingFunction",
            ErrorClass::FunctionEvaluation => "functionEvaluation",
        })
        .collect();
    assert_eq!(classes, Vec::from_iter(case.error.as_deref()), "{place}: {evaluation:?}");
    if let Some(result) = &case.result {
        assert_eq!(&serde_json::to_value(&evaluation.value).unwrap(), result, "{place}");
    }
    assert_eq!(expression.holds(&candidate), Ok(evaluation.passes()), "{place}");
}

#[test]
fn every_case_is_as_the_suite_wants_it() {
    let all: Vec<_> = FILES.into_iter().flat_map(|(file, source)| cases(file, source)).collect();
    assert_eq!(all.len(), 275);
    let contradicts = |case: &&Case| (case.file, case.name.as_str()) == CONTRADICTION;
    assert_eq!(all.iter().filter(contradicts).count(), 1);
    all.iter().filter(|case| !contradicts(case)).for_each(check);
}

#[test]
fn the_case_that_contradicts_the_text_is_replaced() {
    let [(file, source)] = VARIANT;
    let variant: Vec<_> = cases(file, source);
    assert!(variant.iter().any(|case| case.expression == "NOT 10" && case.error.is_none()));
    variant.iter().for_each(check);
}
