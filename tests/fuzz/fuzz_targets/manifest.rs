//! A file of manifests is read, or its problems have a place in it and say what to do. What is kept of a resource is read
//! back as the same resource, text that is JSON is read as such, and settings of transformations compile or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost_core::manifest::document::{self, Node};
use waypost_core::manifest::{ManifestFile, Problem, Spec, StoredDocument};
use waypost_fuzz::forgive_dependencies;
use waypost_transformations::TRANSFORMATIONS;

fuzz_target!(init: forgive_dependencies(), |text: &str| {
    json(text);
    let lines = u32::try_from(text.lines().count().max(1)).expect("inputs are short");
    let file = ManifestFile::read("x", text.as_bytes());
    let of_resources = file.resources.iter().flat_map(|resource| &resource.problems);
    for problem in file.problems.iter().chain(&file.test_problems).chain(of_resources) {
        let place = problem.location.as_ref().expect("a problem has a place");
        assert!((1..=lines).contains(&place.mark.line), "{problem} of {lines} lines");
        assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem}");
    }
    for resource in &file.resources {
        assert_eq!(resource.spec.is_none(), resource.problems.iter().any(Problem::is_error));
        if let Some(Spec::Transformation(spec)) = &resource.spec {
            spec.component.candidates.iter().for_each(|(name, settings)| compile(name, settings));
        }
        let Some(document) = &resource.document else { continue };
        let kept = StoredDocument { line: resource.mark.line, text: &document.text };
        let stored = ManifestFile::stored("x", [kept]);
        assert_eq!(stored.resources.len(), 1);
        let stored = &stored.resources[0];
        assert_eq!((&stored.id, stored.document.as_ref()), (&resource.id, Some(document)));
        assert_eq!(stored.spec.is_some(), resource.spec.is_some());
    }
});

fn compile(name: &str, settings: &Node) {
    let Some(row) = TRANSFORMATIONS.iter().find(|row| row.name == name) else { return };
    if let Err(problems) = (row.configure)(&settings.to_json()) {
        assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.message.is_empty()));
    }
}

/// JSON is a part of YAML: it has the same values, and is refused for its size, its depth or a repeated name only.
fn json(text: &str) {
    let Ok(expected @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let mut documents: Vec<Node> = Vec::new();
    let read = document::parse(text, 1, |node| documents.push(node));
    if read.is_ok() && documents.len() == 1 && waypost_fuzz::has_plain_numbers(text) {
        assert_eq!(documents[0].to_json(), expected);
    }
}
