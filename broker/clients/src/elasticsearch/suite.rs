use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::manifest::{ResourceName, Secrets};

use super::*;

const FIXED: BulkTerms<'static> =
    BulkTerms { is_create: false, index_is_fixed: true, pipeline: Some("clean") };

fn answered(status: u16, body: &str) -> Answered {
    let status = StatusCode::from_u16(status).unwrap();
    Answered {
        status,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        is_cut: false,
    }
}

fn items(told: &Value, terms: BulkTerms<'_>) -> Vec<Result<(), ProblemKind>> {
    let body = json!({"errors": true, "items": told}).to_string();
    match bulk_of(&answered(200, &body), told.as_array().unwrap().len(), terms) {
        Bulk::Items(items) => items.into_iter().map(|item| item.map_err(|problem| problem.kind)).collect(),
        other => panic!("{other:?}"),
    }
}

fn item(action: &str, status: u16, name: &str, reason: &str) -> Value {
    match name {
        "" => json!({action: {"status": status}}),
        name => json!({action: {"status": status, "error": {"type": name, "reason": reason}}}),
    }
}

#[test]
fn each_item_has_a_class_of_its_own() {
    use ProblemKind::{Absent, Overloaded, Refused, Settings, Unauthorized, Unavailable};
    let pipeline = "pipeline with id [clean] does not exist";
    let shards =
        "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum shards open";
    let stream = "only write ops with an op_type of create are allowed in data streams";
    // Status, type and reason as the servers say it; the meaning where the index is fixed, and where the event names it.
    for (status, name, reason, fixed, named) in [
        (201, "", "", None, None),
        (200, "", "", None, None),
        (429, "es_rejected_execution_exception", "queue", Some(Overloaded), Some(Overloaded)),
        (429, "rejected_execution_exception", "queue", Some(Overloaded), Some(Overloaded)),
        (429, "cluster_block_exception", "disk", Some(Overloaded), Some(Overloaded)),
        (403, "cluster_block_exception", "disk", Some(Unavailable), Some(Unavailable)),
        (403, "security_exception", "no permissions", Some(Unauthorized), Some(Refused)),
        (400, "mapper_parsing_exception", "failed to parse", Some(Refused), Some(Refused)),
        (400, "document_parsing_exception", "failed to parse", Some(Refused), Some(Refused)),
        (400, "illegal_argument_exception", pipeline, Some(Absent), Some(Absent)),
        (400, "validation_exception", shards, Some(Unavailable), Some(Unavailable)),
        (400, "illegal_argument_exception", stream, Some(Settings), Some(Refused)),
        (404, "index_not_found_exception", "no such index", Some(Absent), Some(Refused)),
        (400, "invalid_index_name_exception", "Invalid", Some(Settings), Some(Refused)),
        (400, "index_closed_exception", "closed", Some(Absent), Some(Refused)),
        (503, "unavailable_shards_exception", "primary", Some(Unavailable), Some(Unavailable)),
        (409, "version_conflict_engine_exception", "conflict", Some(Unavailable), Some(Unavailable)),
        (500, "", "", Some(Unavailable), Some(Unavailable)),
    ] {
        let told = json!([item("index", status, name, reason)]);
        assert_eq!(items(&told, FIXED), [fixed.map_or(Ok(()), Err)], "{status} {name}");
        let terms = BulkTerms { index_is_fixed: false, ..FIXED };
        assert_eq!(items(&told, terms), [named.map_or(Ok(()), Err)], "{status} {name}");
    }
}

#[test]
fn a_document_that_is_there_already_was_written_before() {
    let conflict =
        json!([item("create", 409, "version_conflict_engine_exception", "document already exists")]);
    assert_eq!(items(&conflict, BulkTerms { is_create: true, ..FIXED }), [Ok(())]);
}

#[test]
fn outcomes_stay_in_order_and_what_is_missing_is_not_taken_for_written() {
    let told = json!([
        item("create", 201, "", ""),
        item("create", 429, "es_rejected_execution_exception", "full"),
        item("create", 400, "mapper_parsing_exception", "no number"),
    ]);
    let outcomes = items(&told, FIXED);
    assert_eq!(outcomes, [Ok(()), Err(ProblemKind::Overloaded), Err(ProblemKind::Refused)]);
    let body = json!({"errors": false, "items": [item("index", 201, "", "")]}).to_string();
    let Bulk::Items(short) = bulk_of(&answered(200, &body), 2, FIXED) else { panic!("items") };
    assert_eq!((&short[0], short[1].as_ref().unwrap_err().kind), (&Ok(()), ProblemKind::Unavailable));
}

#[test]
fn each_status_of_a_request_has_its_class() {
    use ProblemKind::{Overloaded, Refused, Settings, Unauthorized, Unavailable};
    for (status, kind) in [
        (400, Refused),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, Settings),
        (405, Settings),
        (406, Settings),
        (408, Unavailable),
        (413, Refused),
        (301, Settings),
        (429, Overloaded),
        (500, Unavailable),
        (502, Unavailable),
        (503, Overloaded),
        (504, Unavailable),
    ] {
        let answer = answered(status, r#"{"error": {"type": "some_exception", "reason": "some reason."}}"#);
        let problem = match bulk_of(&answer, 3, FIXED) {
            Bulk::TooMuch(problem) => {
                assert!(matches!(status, 400 | 413), "{status}");
                problem
            }
            Bulk::Failed(problem) => problem,
            Bulk::Items(items) => panic!("{items:?}"),
        };
        assert_eq!(problem.kind, kind, "{status}");
        assert!(problem.detail.contains("some reason (some_exception)"), "{problem}");
        assert!(!problem.detail.ends_with('.'), "{problem}");
    }
}

#[test]
fn success_that_is_none_is_told_apart() {
    for body in ["<html>please log in</html>", "{}", "", "[]", r#"{"errors": false}"#] {
        let Bulk::Failed(problem) = bulk_of(&answered(200, body), 1, FIXED) else { panic!("{body}") };
        assert_eq!(problem.kind, ProblemKind::Settings, "{body}");
    }
}

#[test]
fn reasons_that_are_text_or_long_are_told_in_short() {
    let text = answered(401, "Unauthorized");
    assert!(of_status(&text).detail.contains("401: Unauthorized"), "{}", of_status(&text));
    let string = answered(503, r#"{"error": "not initialized."}"#);
    assert!(of_status(&string).detail.contains("503: not initialized;"), "{}", of_status(&string));
    let long = answered(400, &json!({"error": {"type": "t", "reason": "x".repeat(10_000)}}).to_string());
    assert!(of_status(&long).detail.len() < 500);
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    let urls = ["http://a:9200".to_owned(), "a:9200".to_owned(), "http://a/?q=1".to_owned()];
    let connection = ElasticsearchConnection { urls: &urls, auth: None, tls: None };
    let paths: Vec<_> = connection.problems().into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["urls[1]", "urls[2]"]);
    let none = ElasticsearchConnection { urls: &[], auth: None, tls: None };
    assert_eq!(none.problems()[0].path, "urls");
}

#[test]
fn credentials_become_headers() {
    let context = ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() };
    let urls = ["http://a:9200/prefix/".to_owned()];
    let open = |auth: Value| {
        let auth: ElasticsearchAuth = serde_json::from_value(auth).unwrap();
        ElasticsearchConnection { urls: &urls, auth: Some(&auth), tls: None }.open(&context)
    };
    let key = open(json!({"apiKey": {"value": "a2V5\n"}})).unwrap();
    assert_eq!(key.authorization.unwrap(), "ApiKey a2V5");
    assert_eq!(key.nodes[0].path(BULK).unwrap().path(), "/prefix/_bulk");
    let basic = json!({"basic": {"username": {"value": "u"}, "password": {"value": "p"}}});
    assert_eq!(open(basic).unwrap().authorization.unwrap(), "Basic dTpw");
    let absent = json!({"apiKey": {"file": "/none"}});
    assert_eq!(open(absent).unwrap_err().kind, ProblemKind::Settings);
    assert_eq!(in_query("a b/ü"), "a%20b%2F%C3%BC");
}
