//! `kind: Test`: an event, the triggers that must match it and must not, and what must come out of transformations.
//! Nothing of it ever runs.

use serde_json::{Value as Json, json};

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{Location, Mark, Problem, ResourceName};
use crate::codes;
use crate::event::{Event, json as event_json};

/// The fields of a Test's spec.
const FIELDS: [&str; 5] = ["event", "eventFile", "matches", "misses", "emits"];

/// The fields of an item of `emits`.
const EMISSION_FIELDS: [&str; 5] = ["trigger", "transformation", "events", "dropped", "fails"];

/// A valid test of manifests: an event, and the triggers that must match it and must not.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// Its name.
    pub name: ResourceName,
    /// The place of its name.
    pub location: Location,
    /// The event.
    pub event: TestEvent,
    /// The triggers in the order of the manifest: those that must match first.
    pub expectations: Vec<Expectation>,
    /// What must come out of transformations. There is at least one of these or those.
    pub emissions: Vec<Emission>,
}

/// What must come out of transformations for the event of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Emission {
    /// Whose transformations.
    pub of: Emitter,
    /// What must come out.
    pub emitted: Emitted,
    /// The place of the item.
    pub mark: Mark,
    /// The field that holds the item.
    pub path: String,
}

/// Whose transformations a test asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emitter {
    /// Those of a trigger, whether or not its filter takes the event.
    Trigger(ResourceName),
    /// One Transformation.
    Transformation(ResourceName),
}

/// What must come out of transformations.
#[derive(Debug, Clone, PartialEq)]
pub enum Emitted {
    /// These events in this order, each as the members of structured JSON. Of `specversion`, `id`, `source` and
    /// `datacontenttype` those that are left out are not compared; every other attribute, and the data, is.
    Events(Vec<Json>),
    /// Nothing, for this reason: `filtered`, `schema` or `failed`; for any where it is not told.
    Dropped(Option<String>),
    /// A failure whose text holds this.
    Fails(String),
}

/// Where a test has its event from.
#[derive(Debug, Clone, PartialEq)]
pub enum TestEvent {
    /// It is written in the manifest.
    Inline(Event),
    /// It is in a file, in structured JSON. The path is relative to the directory of the manifest.
    File {
        /// The path.
        path: String,
        /// The place of the field `spec.eventFile`.
        mark: Mark,
    },
}

/// What one trigger must do with the event of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The trigger.
    pub trigger: ResourceName,
    /// Whether it must match.
    pub matches: bool,
    /// The place of its name.
    pub mark: Mark,
    /// The field with its name.
    pub path: String,
}

impl TestCase {
    /// A problem of this test that only its surroundings show.
    pub fn problem(&self, code: crate::Code, at: (Mark, &str), message: String, help: String) -> Problem {
        let (mark, path) = at;
        Problem {
            code,
            severity: super::Severity::Error,
            message,
            help,
            location: Some(Location { file: self.location.file.clone(), mark }),
            path: path.to_owned(),
            resource: Some(self.id()),
        }
    }

    fn id(&self) -> super::ResourceId {
        super::ResourceId::new(super::NATIVE, "Test", self.name.clone())
    }
}

/// Reads the spec of a test. `mark` is the place of its name.
pub(super) fn test_case(
    reader: &mut Reader<'_>,
    (map, whole): (&Map, Mark),
    name: ResourceName,
    location: Location,
) -> Option<TestCase> {
    let root = Path::Root;
    reader.only(map, &root, &["apiVersion", "kind", "metadata", "spec"], &[]);
    let help = "write the event of the test, and the triggers that must match it or must not";
    let node = reader.required((map, whole), &root, "spec", help, |_, node, _| Some(node))?;
    let path = root.field("spec");
    let spec = reader.map(node, &path)?;
    reader.only(spec, &path, &FIELDS, &[]);
    let event = event(reader, (spec, node.mark), &path, &name);
    let mut expectations = Vec::new();
    for (field, matches) in [("matches", true), ("misses", false)] {
        reader.optional(spec, &path, field, |reader, node, path| {
            for (index, item) in reader.list(node, path)?.iter().enumerate() {
                let path = path.item(index);
                if let Some(trigger) = trigger(reader, item, &path, &name.namespace) {
                    let path = path.to_string();
                    expectations.push(Expectation { trigger, matches, mark: item.mark, path });
                }
            }
            Some(())
        });
    }
    let emissions = emissions(reader, spec, &path, &name.namespace);
    if expectations.is_empty() && emissions.is_empty() && !reader.failed() {
        let help = "name a trigger in `matches` or in `misses`, or what comes out of one in `emits`";
        reader.error(codes::FIELD_MISSING, node.mark, &path, "the test expects nothing", help);
    }
    for (place, expectation) in expectations.iter().enumerate() {
        if expectations[..place].iter().any(|earlier| earlier.trigger == expectation.trigger) {
            let message = format!("the trigger {} is named twice", expectation.trigger);
            let help = "name each trigger once, in `matches` or in `misses`";
            reader.error(codes::FIELD_CONFLICT, expectation.mark, &path, message, help);
        }
    }
    Some(TestCase { name, location, event: event?, expectations, emissions })
}

fn emissions(reader: &mut Reader<'_>, spec: &Map, path: &Path<'_>, namespace: &str) -> Vec<Emission> {
    let mut emissions = Vec::new();
    reader.optional(spec, path, "emits", |reader, node, path| {
        for (index, item) in reader.list(node, path)?.iter().enumerate() {
            emissions.extend(emission(reader, item, &path.item(index), namespace));
        }
        Some(())
    });
    emissions
}

fn emission(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>, namespace: &str) -> Option<Emission> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &EMISSION_FIELDS, &[]);
    let one_of = |reader: &mut Reader<'_>, names: &[&str]| {
        let given: Vec<&str> = names.iter().copied().filter(|name| map.get(name).is_some()).collect();
        if given.len() == 1 {
            return Some(());
        }
        let message = format!("`{path}` has not exactly one of {}", names.join(", "));
        reader.error(codes::FIELD_CONFLICT, node.mark, path, message, "write one of them");
        None
    };
    one_of(reader, &["trigger", "transformation"])?;
    one_of(reader, &["events", "dropped", "fails"])?;
    let of = |reader: &mut Reader<'_>, field| {
        reader.optional(map, path, field, |reader, node, path| trigger(reader, node, path, namespace))
    };
    let emitter = match of(reader, "trigger") {
        Some(name) => Emitter::Trigger(name),
        None => Emitter::Transformation(of(reader, "transformation")?),
    };
    let events = reader.optional(map, path, "events", |reader, node, path| {
        let items = reader.list(node, path)?;
        let read = |(index, item): (usize, &Node)| {
            reader.map(item, &path.item(index))?;
            Some(item.to_json())
        };
        items.iter().enumerate().map(read).collect::<Option<Vec<Json>>>()
    });
    let dropped = reader.optional(map, path, "dropped", |reader, node, path| match &node.value {
        Value::Bool(true) => Some(None),
        _ => match reader.text(node, path)? {
            reason @ ("filtered" | "schema" | "failed") => Some(Some(reason.to_owned())),
            other => {
                let message = format!("`{path}` is `{other}`");
                let help = "write `filtered`, `schema`, `failed`, or `true` for any reason";
                reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
                None
            }
        },
    });
    let fails = reader.optional(map, path, "fails", Reader::text).map(str::to_owned);
    let emitted = match (events, dropped, fails) {
        (Some(events), ..) => Emitted::Events(events),
        (_, Some(reason), _) => Emitted::Dropped(reason),
        (.., fails) => Emitted::Fails(fails?),
    };
    Some(Emission { of: emitter, emitted, mark: node.mark, path: path.to_string() })
}

fn event(
    reader: &mut Reader<'_>,
    (spec, mark): (&Map, Mark),
    path: &Path<'_>,
    test: &ResourceName,
) -> Option<TestEvent> {
    match (spec.get("event"), spec.get("eventFile")) {
        (Some(_), Some(node)) => {
            let path = path.field("eventFile");
            let message = "`spec.event` and `spec.eventFile` exclude each other";
            reader.error(codes::FIELD_CONFLICT, node.mark, &path, message, "leave one of them out");
            None
        }
        (Some(node), None) => inline(reader, node, &path.field("event"), test).map(TestEvent::Inline),
        (None, Some(node)) => {
            let text = reader.text(node, &path.field("eventFile"))?;
            Some(TestEvent::File { path: text.to_owned(), mark: node.mark })
        }
        (None, None) => {
            reader.missing(mark, &path.field("event"), "write the event, or name its file in `eventFile`");
            None
        }
    }
}

/// An event as the members of structured JSON. `specversion` may be left out, and `id`, which is then the test's name.
fn inline(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>, test: &ResourceName) -> Option<Event> {
    reader.map(node, path)?;
    let Json::Object(mut members) = node.to_json() else { return None };
    members.entry("specversion").or_insert_with(|| json!("1.0"));
    members.entry("id").or_insert_with(|| json!(test.name));
    let read = event_json::decode(Json::Object(members).to_string().as_bytes());
    read.map_err(|error| {
        let message = format!("`{path}` is no event: {}", error.detail);
        let help = "write it as in structured JSON: attributes, and `data` or `data_base64`";
        reader.error(error.code, node.mark, path, message, help);
    })
    .ok()
}

/// `name`, in the namespace of the test, or `namespace/name`.
fn trigger(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>, namespace: &str) -> Option<ResourceName> {
    let text = reader.text(node, path)?;
    match text.split_once('/') {
        None => Some(ResourceName::new(namespace, text)),
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Some(ResourceName::new(namespace, name))
        }
        Some(_) => {
            let message = format!("`{path}` names no trigger");
            let help = "write `name`, or `namespace/name`";
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ManifestFile;
    use super::*;

    const HEAD: &str =
        "apiVersion: waypost.dev/v1alpha1\nkind: Test\nmetadata: {name: gold, namespace: shop}\n";

    fn read(spec: &str) -> ManifestFile {
        ManifestFile::read("a.test.yaml", format!("{HEAD}{spec}").as_bytes())
    }

    #[test]
    fn a_test_is_read_and_is_no_resource() {
        let file = read(
            "spec:\n  event: {type: order, source: /shop, size: 12, data: {total: 5}}\n  matches:\n  - orders\n  misses: \
             [other/orders]\n",
        );
        assert!(file.resources.is_empty() && file.problems.is_empty() && file.test_problems.is_empty());
        let [case] = &file.tests[..] else { panic!("{file:?}") };
        assert_eq!((case.name.to_string(), case.location.mark.line), ("shop/gold".to_owned(), 3));
        let TestEvent::Inline(event) = &case.event else { panic!("{case:?}") };
        assert_eq!((event.id(), event.data_bytes()), ("gold", Some(&br#"{"total":5}"#[..])));
        let told = |expectation: &Expectation| {
            (expectation.trigger.to_string(), expectation.matches, expectation.mark.line)
        };
        let told: Vec<_> = case.expectations.iter().map(told).collect();
        assert_eq!(told, [("shop/orders".to_owned(), true, 7), ("other/orders".to_owned(), false, 8)]);
        assert_eq!(case.expectations[1].path, "spec.misses[0]");
        let file = read("spec: {eventFile: order.json, misses: [a]}\n");
        assert!(matches!(&file.tests[0].event, TestEvent::File { path, .. } if path == "order.json"));
    }

    #[test]
    fn what_is_wrong_with_a_test_has_its_place_and_is_no_problem_of_the_resources() {
        let event = "event: {type: t, source: /s}";
        for (spec, code, path) in [
            ("spec: {matches: [a]}\n".to_owned(), "E0108", "spec.event"),
            (format!("spec: {{{event}, eventFile: x, matches: [a]}}\n"), "E0113", "spec.eventFile"),
            (format!("spec: {{{event}}}\n"), "E0108", "spec"),
            (format!("spec: {{{event}, matches: [a], misses: [a]}}\n"), "E0113", "spec"),
            (format!("spec: {{{event}, emits: []}}\n"), "E0108", "spec"),
            (format!("spec: {{{event}, emits: [{{trigger: a}}]}}\n"), "E0113", "spec.emits[0]"),
            (format!("spec: {{{event}, emits: [{{events: []}}]}}\n"), "E0113", "spec.emits[0]"),
            (
                format!("spec: {{{event}, emits: [{{trigger: a, dropped: no}}]}}\n"),
                "E0111",
                "spec.emits[0].dropped",
            ),
            (
                format!("spec: {{{event}, emits: [{{trigger: a, events: [1]}}]}}\n"),
                "E0110",
                "spec.emits[0].events[0]",
            ),
            (format!("spec: {{{event}, match: [a]}}\n"), "E0109", "spec.match"),
            (format!("spec: {{{event}, matches: [a/b/c]}}\n"), "E0111", "spec.matches[0]"),
            ("spec: {event: {type: t}, matches: [a]}\n".to_owned(), "E0602", "spec.event"),
            (String::new(), "E0108", "spec"),
        ] {
            let file = read(&spec);
            assert!(file.tests.is_empty() && file.problems.is_empty() && file.complete, "{spec}: {file:?}");
            let problem = &file.test_problems[0];
            assert_eq!((problem.code.id(), problem.path.as_str()), (code, path), "{spec}: {problem}");
            assert!(problem.is_error() && problem.location.as_ref().is_some_and(|place| place.mark.line > 0));
        }
        let nameless = "apiVersion: waypost.dev/v1alpha1\nkind: Test\nmetadata: {}\nspec: {}\n";
        let file = ManifestFile::read("a.yaml", nameless.as_bytes());
        assert!(file.complete && file.problems.is_empty() && file.test_problems.len() == 1, "{file:?}");
    }
}
