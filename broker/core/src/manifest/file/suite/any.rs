//! Any text at all, and any tree of what manifests are made of.

use proptest::prelude::*;

use super::*;

/// Text made of what manifests are made of, so that reading gets far.
fn any_manifest() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "annotations",
        "spec",
        "broker",
        "brokerRef",
        "filter",
        "filters",
        "attributes",
        "exact",
        "all",
        "any",
        "not",
        "subscriber",
        "ref",
        "uri",
        "delivery",
        "retry",
        "deadLetterSink",
        "transformations",
        "sink",
        "data",
        "stringData",
        "log",
        "retention",
        "items",
        "waypost.dev/transformations",
        "waypost.dev/maxInFlight",
        "waypost.dev/url",
    ]);
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        prop::sample::select(vec!["", "a", "PT1S", "http://a", "[{}]", "memory", "v1", "é\u{0}", "enabled"])
            .prop_map(Json::from),
    ];
    let tree = leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(word.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    });
    let kind = prop::sample::select(vec![
        (NATIVE, "Broker"),
        (NATIVE, "Trigger"),
        (NATIVE, "Sink"),
        (NATIVE, "Source"),
        (NATIVE, "Transformation"),
        (KNATIVE, "Broker"),
        (KNATIVE, "Trigger"),
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("v1", "Service"),
        ("v1", "List"),
        ("x", "y"),
    ]);
    (kind, tree.clone(), tree.clone(), tree).prop_map(|((api_version, kind), spec, annotations, extra)| {
        let metadata = json!({"name": "a", "annotations": annotations});
        let tree = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "data": extra, "items": extra});
        serde_json::to_string_pretty(&tree).expect("JSON")
    })
}

fn check_places(text: &str) -> Result<(), TestCaseError> {
    let lines = u32::try_from(text.lines().count().max(1)).expect("few lines");
    let file = read(text);
    for problem in problems(&file) {
        let line = problem.location.as_ref().expect("a place").mark.line;
        prop_assert!((1..=lines).contains(&line), "{problem} of {lines} lines");
        prop_assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem}");
    }
    for resource in &file.resources {
        prop_assert_eq!(resource.spec.is_none(), resource.problems.iter().any(Problem::is_error));
        let Some(document) = &resource.document else { continue };
        let stored =
            ManifestFile::stored("x", [StoredDocument { line: resource.mark.line, text: &document.text }]);
        prop_assert_eq!(stored.resources.len(), 1);
        prop_assert_eq!(&stored.resources[0].id, &resource.id);
        prop_assert_eq!(stored.resources[0].document.as_ref(), Some(document));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_in_its_place(text in "([a-c:{}\\[\\]&*!|>'\"#,?\n -]|\\PC){0,80}") {
        check_places(&text)?;
    }

    #[test]
    fn any_tree_is_read_or_refused_in_its_place(text in any_manifest()) {
        check_places(&text)?;
    }
}
