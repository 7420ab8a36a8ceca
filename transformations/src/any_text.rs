//! Programs and data of all sorts: none panics, and what is made once is made again.
//!
//! `PROPTEST_CASES` says how many are tried.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::trial;

/// Texts of a few of these parts.
fn of(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(prop::sample::select(parts), 0..24).prop_map(|parts| parts.concat())
}

/// Data that has something for each program to find.
const DATA: &str =
    r#"{"a":[1,2.50,{"b":"x","c":null}],"b":{"a":"1","b":[]},"c":9007199254740993,"t":"{\"a\":1}"}"#;

/// Compiles the settings, and applies them twice where that can be done.
fn tried(kind: &str, settings: &Value, event: &waypost_core::Event) {
    let first = trial::events(kind, settings, event);
    assert_eq!(first, trial::events(kind, settings, event), "{kind} {settings}");
}

const JQ: &[&str] = &[
    ".",
    "..",
    ".a",
    ".b",
    "[]",
    "[0]",
    "[-1:]",
    "|",
    ",",
    " ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    "\"",
    "x",
    "$",
    "a",
    "1",
    "0.5",
    "1e3",
    "+",
    "-",
    "*",
    "/",
    "%",
    "=",
    "|=",
    "==",
    "<",
    "//",
    "?",
    "if ",
    " then ",
    " else ",
    " end",
    "reduce ",
    "foreach ",
    " as ",
    "map(",
    "select(",
    "length",
    "keys",
    "tojson",
    "fromjson",
    "test(",
    "sub(",
    "range(3)",
    "limit(2;",
    "path(",
    "del(",
    "to_entries",
    "with_entries(",
    "try ",
    " catch ",
    "error",
    "not",
    " and ",
    " or ",
    "null",
    "true",
    "@base64",
    "\\(",
    "tostring",
    "ltrimstr(",
    "splits(",
    "group_by(",
    "getpath(",
    "env",
    "$__loc__",
    "input",
    "#",
    "\n",
    "label $x|",
    "break $x",
    "recurse",
];

const PATHS: &[&str] = &[
    "$", ".", "..", "a", "b", "*", "[", "]", "0", "-1", ":", "?", "@", "'", "\"", "(", ")", "==", "!=", "<",
    "&&", "||", "!", ",", " ", "1", "true", "null", "length(", "count(", "match(", "search(", "value(", "\\",
    "é", "1e2",
];

const KEYS: &[&str] = &[
    "a",
    "b",
    ".",
    "[",
    "]",
    "0",
    "2",
    "-",
    ":",
    "$",
    "$v",
    "(",
    ")",
    "\\",
    " ",
    "99999999999",
    "é",
    "type",
    "id",
];

const XML: &[&str] = &[
    "<",
    ">",
    "/>",
    "</",
    "a",
    "b",
    "=",
    "\"",
    "'",
    "x",
    " ",
    "&",
    "&amp;",
    "&#x41;",
    "&#0;",
    "&e;",
    "<a>",
    "</a>",
    "<a b=\"c\">",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
    "?>",
    "<?xml version=\"1.0\"?>",
    "<!DOCTYPE a [",
    "<!ENTITY e \"f\">",
    "]>",
    ":",
    "xmlns:p=",
    "\u{feff}",
    "\n",
    "é",
    "\u{0}",
];

const TEMPLATES: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    " ",
    "data",
    ".a",
    ".b",
    "[0]",
    "|",
    "upper",
    "tojson",
    "length",
    "join(",
    ")",
    "(",
    "for ",
    " in ",
    "endfor",
    "if ",
    "else",
    "endif",
    "x",
    "1",
    "+",
    "~",
    "*",
    "'",
    "\"",
    "==",
    "not ",
    "loop.index",
    "range(3)",
    "default(",
    "-",
    "raw",
    "endraw",
    "set ",
    "macro ",
    "include ",
    "\n",
];

proptest! {
    #[test]
    fn any_program_of_jq(program in of(JQ)) {
        tried("jq", &json!({"query": program}), &trial::event(DATA));
    }

    #[test]
    fn any_path(path in of(PATHS)) {
        let path = format!("${path}");
        let event = trial::event(DATA);
        tried("jsonpath", &json!({"select": path}), &event);
        tried("jsonpath", &json!({"split": {"path": path}}), &event);
        tried("redact", &json!({"paths": [{"path": path}]}), &event);
    }

    #[test]
    fn any_operation_of_fields(
        operation in prop::sample::select(&["add", "delete", "shift", "store", "parse"][..]),
        key in of(KEYS),
        value in of(KEYS),
        list in prop::sample::select(&["context", "data"][..]),
    ) {
        let store = json!({"operation": "store", "paths": [{"key": "$v", "value": "b.a"}]});
        let other = json!({"operation": operation, "paths": [{"key": key, "value": value}]});
        let mut settings = json!({"data": [store], "context": []});
        settings[list].as_array_mut().expect("both are lists").push(other);
        tried("fields", &settings, &trial::event(DATA));
    }

    #[test]
    fn any_xml(data in of(XML)) {
        tried("xmlToJson", &json!({}), &trial::event_of("application/xml", &data));
    }

    #[test]
    fn any_template(text in of(TEMPLATES)) {
        tried("template", &json!({"text": text}), &trial::event(DATA));
    }

    #[test]
    fn any_data(data in of(&["{", "}", "[", "]", "\"", "a", ":", ",", "1", "-", ".", "e9", "null", " ", "\\", "\\u12", "é", "\n"])) {
        for (kind, settings) in [
            ("fields", json!({"data": [{"operation": "add", "paths": [{"key": "a", "value": "b"}]}]})),
            ("jsonpath", json!({"split": {"path": "$.a"}})),
            ("jq", json!({"query": ".[]?"})),
            ("redact", json!({"paths": [{"path": "$..a"}]})),
        ] {
            tried(kind, &settings, &trial::event(&data));
        }
    }
}
