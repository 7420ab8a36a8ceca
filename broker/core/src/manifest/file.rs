//! A file of manifests to resources and problems.

mod pieces;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub use self::pieces::Piece;
use super::annotations::Annotations;
use super::document::{self, Map, Node, Value};
use super::kind::{self, Class, Names};
use super::reader::{Path, Reader};
use super::spec::{Destination, Spec};
use super::test_case::{self, TestCase};
use super::translated::{self, Translated};
use super::{Location, Mark, NATIVE, Problem, ResourceId, ResourceName, Severity};
use super::{broker, component, flow, replay, service, trigger, triggermesh, values};
use crate::Code;
use crate::codes;

/// The most bytes of one file.
pub const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

/// The namespace of a resource that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// The fields of Kubernetes' object metadata; native kinds refuse any other.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

/// All that was read, file by file, in the order in which it counts: of two declarations of a resource the
/// first one holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// What one file declares.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestFile {
    /// The path, as problems name it.
    pub path: Arc<str>,
    /// The resources, valid or not, in the order of the file. None where the file could not be parsed.
    pub resources: Vec<Resource>,
    /// The problems that belong to no resource.
    pub problems: Vec<Problem>,
    /// The valid tests, in the order of the file: `waypost test` runs them, nothing else looks at them.
    pub tests: Vec<TestCase>,
    /// What is wrong with its tests: no reason not to run its resources.
    pub test_problems: Vec<Problem>,
    /// Whether everything in the file could be told apart. Where it could not, a resource that an earlier
    /// version of the file declared may still be meant.
    pub complete: bool,
}

/// A resource of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its identity.
    pub id: ResourceId,
    /// The place of its name.
    pub mark: Mark,
    /// What it declares; `None` if one of the problems is an error.
    pub spec: Option<Spec>,
    /// Where there is no spec: the destinations that could be read all the same, each with its field, so that all
    /// problems can be told at once.
    pub destinations: Vec<(String, Destination)>,
    /// What is wrong with it by itself.
    pub problems: Vec<Problem>,
    /// What was declared, for a later process: where there is a spec. None of Secrets and ConfigMaps, which are only
    /// ever read from their files.
    pub document: Option<Document>,
}

/// A valid declaration as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub text: Box<str>,
    /// Tells two texts apart.
    pub digest: u64,
}

/// A document that an earlier process kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredDocument<'d> {
    /// The line of its file on which the resource was declared.
    pub line: u32,
    /// The text, as [`Document`] had it.
    pub text: &'d str,
}

impl Document {
    fn of(node: &Node) -> Self {
        let text = serde_json::to_string(node).expect("a tree of strings, numbers and names is JSON");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { text: text.into(), digest: hasher.finish() }
    }
}

impl ManifestFile {
    /// Reads the content of a file. Never fails: what cannot be read is a problem of the file.
    pub fn read(path: impl Into<Arc<str>>, content: &[u8]) -> Self {
        let whole = Piece::divide(content, 1);
        let (Ok(file) | Err(file)) = Self::read_piece(path, whole[0]);
        file
    }

    fn empty(path: Arc<str>) -> Self {
        Self {
            path,
            resources: Vec::new(),
            problems: Vec::new(),
            tests: Vec::new(),
            test_problems: Vec::new(),
            complete: true,
        }
    }

    /// What an earlier process kept of a file, read as the file itself is read.
    pub fn stored<'d>(
        path: impl Into<Arc<str>>,
        documents: impl IntoIterator<Item = StoredDocument<'d>>,
    ) -> Self {
        let mut file = Self::empty(path.into());
        let path = Arc::clone(&file.path);
        for StoredDocument { line, text } in documents {
            let mark = Mark { line, column: 1 };
            match serde_json::from_str(text) {
                Ok(value) => file.resource(&path, &Node::from_json(value, mark)),
                Err(error) => {
                    let message = format!("a stored document of {path} cannot be read: {error}");
                    let help = "declare the resource again".to_owned();
                    file.problems.push(Problem {
                        code: codes::MANIFEST_SYNTAX,
                        severity: Severity::Error,
                        message,
                        help,
                        location: Some(Location { file: Arc::clone(&path), mark }),
                        path: String::new(),
                        resource: None,
                    });
                }
            }
        }
        file
    }

    /// A file whose content could not be had.
    pub fn unreadable(path: impl Into<Arc<str>>, reason: &str) -> Self {
        let mut file = Self::empty(path.into());
        let help = "check the path and the rights".to_owned();
        let message = format!("{} cannot be read: {reason}", file.path);
        file.fail(codes::MANIFEST_UNREADABLE, message, help, Mark::START);
        file
    }

    fn read_documents(
        &mut self,
        content: &[u8],
        first_line: u32,
    ) -> Result<(), (Code, String, &'static str, Mark)> {
        if content.len() > MAX_FILE_BYTES {
            let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES / 1024 / 1024);
            return Err((codes::MANIFEST_TOO_LARGE, message, "split the file", Mark::START));
        }
        let text = std::str::from_utf8(content).map_err(|error| {
            let before = &content[..error.valid_up_to()];
            let lines = before.iter().filter(|byte| **byte == b'\n').count();
            let line = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(first_line);
            let mark = Mark { line, column: 1 };
            let message = "the file is not text in UTF-8".to_owned();
            (codes::MANIFEST_SYNTAX, message, "save it as UTF-8", mark)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let path = Arc::clone(&self.path);
        document::parse(text, first_line, |node| self.document(&path, node)).map_err(|problem| {
            let message = match problem.code {
                codes::MANIFEST_SYNTAX => format!("the file is not valid YAML or JSON: {problem}"),
                _ => problem.to_string(),
            };
            (
                problem.code,
                message,
                "correct the file; until then what it declared last keeps running",
                problem.mark,
            )
        })
    }

    /// Drops what was read before the error: half of a file is not what its author meant.
    fn fail(&mut self, code: Code, message: String, help: String, mark: Mark) {
        let location = Some(Location { file: Arc::clone(&self.path), mark });
        self.resources.clear();
        self.tests.clear();
        self.test_problems.clear();
        self.complete = false;
        self.problems = vec![Problem {
            code,
            severity: Severity::Error,
            message,
            help,
            location,
            path: String::new(),
            resource: None,
        }];
    }

    fn document(&mut self, path: &Arc<str>, node: Node) {
        if let Some(items) = list_items(&node) {
            for item in items.iter().filter(|item| item.value != Value::Null) {
                self.resource(path, item);
            }
        } else {
            self.resource(path, &node);
        }
        // The tree of each document is dropped here, before the next one is read.
        drop(node);
    }

    fn resource(&mut self, path: &Arc<str>, node: &Node) {
        let mut reader = Reader::new(path);
        match read(&mut reader, node) {
            Read::Resource(read) => {
                let (id, mark, spec) = *read;
                let spec = spec.filter(|_| !reader.failed());
                let destinations = if spec.is_some() { Vec::new() } else { reader.destinations };
                let document = match &spec {
                    None | Some(Spec::Secret(_) | Spec::ConfigMap(_)) => None,
                    Some(_) => Some(Document::of(node)),
                };
                let problems = reader.problems;
                self.resources.push(Resource { id, mark, spec, destinations, problems, document });
            }
            Read::Test(case) => {
                self.tests.extend(case.map(|case| *case).filter(|_| !reader.failed()));
                self.test_problems.append(&mut reader.problems);
            }
            Read::Ignored => self.problems.append(&mut reader.problems),
            Read::Unidentified => {
                self.complete = false;
                self.problems.append(&mut reader.problems);
            }
        }
    }
}

/// The items of kubectl's `List`.
fn list_items(node: &Node) -> Option<&[Node]> {
    let Value::Map(map) = &node.value else { return None };
    let is = |field, text: &str| {
        map.get(field).is_some_and(|node| matches!(&node.value, Value::String(value) if value == text))
    };
    if !is("apiVersion", kind::CORE) || !is("kind", "List") {
        return None;
    }
    match map.get("items").map(|node| &node.value) {
        Some(Value::List(items)) => Some(items),
        None => Some(&[]),
        Some(_) => None,
    }
}

/// What a document turned out to be.
enum Read {
    Resource(Box<(ResourceId, Mark, Option<Spec>)>),
    /// A test, where it has a name and an event.
    Test(Option<Box<TestCase>>),
    Ignored,
    Unidentified,
}

fn read(reader: &mut Reader<'_>, node: &Node) -> Read {
    let root = Path::Root;
    let Value::Map(map) = &node.value else {
        let message = format!(
            "a resource is a map with `apiVersion`, `kind` and `metadata`, not {}",
            node.value.describe()
        );
        let help = "write a resource, or separate documents by `---`";
        reader.error(codes::DOCUMENT_NOT_A_RESOURCE, node.mark, &root, message, help);
        return Read::Unidentified;
    };
    let own = (map, node.mark);
    let help = "every resource has an apiVersion, such as `eventing.knative.dev/v1`";
    let api_version = reader.required(own, &root, "apiVersion", help, Reader::text);
    let kind =
        reader.required(own, &root, "kind", "every resource has a kind, such as `Trigger`", Reader::text);
    let (Some(api_version), Some(kind)) = (api_version, kind) else { return Read::Unidentified };
    let (class, names) = match kind::classify(api_version, kind) {
        Ok(known) => known,
        Err(unknown) => {
            let mark = map.get(unknown.field).map_or(node.mark, |node| node.mark);
            reader.error(unknown.code, mark, &root.field(unknown.field), unknown.message, unknown.help);
            return Read::Unidentified;
        }
    };
    if class == Class::Ignored {
        ignored(reader, map, node.mark, (api_version, kind));
        return Read::Ignored;
    }
    if class == Class::List {
        let help = "write `items` as a list of resources, not of further lists";
        reader.error(codes::DOCUMENT_NOT_A_RESOURCE, node.mark, &root, "the List cannot be read", help);
        return Read::Unidentified;
    }
    reader.strict = api_version == NATIVE;
    let named = name(reader, own);
    if class == Class::Test {
        let case = named.and_then(|(name, mark)| {
            let location = Location { file: Arc::clone(reader.file()), mark };
            test_case::test_case(reader, own, name, location)
        });
        return Read::Test(case.map(Box::new));
    }
    let Some((name, mark)) = named else { return Read::Unidentified };
    let id = match names {
        Names::Known { api_version, kind } => ResourceId::new(api_version, kind, name),
        Names::AsWritten { api_version, kind } => {
            ResourceId::new(api_version.to_owned(), kind.to_owned(), name)
        }
    };
    // Problems that were found before the name was known are of the resource as well.
    for problem in &mut reader.problems {
        problem.resource = Some(id.clone());
    }
    reader.resource = Some(id.clone());
    let spec = spec(reader, own, class, &id);
    Read::Resource(Box::new((id, mark, spec)))
}

fn ignored(reader: &mut Reader<'_>, map: &Map, mark: Mark, (api_version, kind): (&str, &str)) {
    let mark = map.get("kind").map_or(mark, |node| node.mark);
    let root = Path::Root;
    let message = format!("{kind} of {api_version} is ignored: it is not for Waypost to run");
    reader.warning(codes::KIND_IGNORED, mark, &root.field("kind"), message, "leave it out to silence this");
}

/// The name, with the place where it stands, and the namespace.
fn name(reader: &mut Reader<'_>, root: (&Map, Mark)) -> Option<(ResourceName, Mark)> {
    let path = Path::Root;
    let metadata_path = path.field("metadata");
    let help = "every resource has `metadata` with a `name`";
    let node = reader.required(root, &path, "metadata", help, |_, node, _| Some(node))?;
    let metadata = reader.map(node, &metadata_path)?;
    reader.only(metadata, &metadata_path, &METADATA, &[]);
    let name_path = metadata_path.field("name");
    let Some(name_node) = metadata.get("name") else {
        let help = if metadata.get("generateName").is_some() {
            "give it a fixed `name`: a generated one would be another resource at every reading"
        } else {
            "give the resource a name"
        };
        reader.missing(node.mark, &name_path, help);
        return None;
    };
    let name = reader.text(name_node, &name_path)?;
    let mut valid = check_name(reader, name, name_node.mark, &name_path, MAX_NAME_BYTES, true);
    let namespace = match metadata.get("namespace") {
        Some(node) => {
            let path = metadata_path.field("namespace");
            let namespace = reader.text(node, &path)?;
            valid &= check_name(reader, namespace, node.mark, &path, MAX_LABEL_BYTES, false);
            namespace
        }
        None => DEFAULT_NAMESPACE,
    };
    valid.then(|| (ResourceName::new(namespace, name), name_node.mark))
}

/// The most bytes of a name (a DNS subdomain) and of a namespace or part of a name (a DNS label): RFC 1123.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

fn check_name(
    reader: &mut Reader<'_>,
    name: &str,
    mark: Mark,
    path: &Path<'_>,
    longest: usize,
    dots: bool,
) -> bool {
    let label = |label: &str| {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    };
    let valid = name.len() <= longest && if dots { name.split('.').all(label) } else { label(name) };
    if !valid {
        let shown: String = name.chars().take(80).collect();
        let more = if dots { ", `-` and `.`" } else { " and `-`" };
        let help = format!(
            "use at most {longest} lower-case letters, digits{more}, with a letter or digit at each end"
        );
        reader.error(codes::NAME_INVALID, mark, path, format!("`{shown}` is not a valid name"), help);
    }
    valid
}

fn spec(reader: &mut Reader<'_>, (map, mark): (&Map, Mark), class: Class, id: &ResourceId) -> Option<Spec> {
    let root = Path::Root;
    reader.only(map, &root, &["apiVersion", "kind", "metadata", "spec", "status"], &[]);
    let not_supported = |reader: &mut Reader<'_>, help: &str| {
        let mark = map.get("kind").map_or(mark, |node| node.mark);
        let message = format!("{} of {} is not supported by this version", id.kind, id.api_version);
        reader.error(codes::KIND_NOT_SUPPORTED, mark, &root.field("kind"), message, help);
        None
    };
    if class == Class::NotYet {
        return not_supported(reader, "leave it out: nothing it declares would be honoured");
    }
    let annotations = match map.get("metadata").map(|node| &node.value) {
        Some(Value::Map(metadata)) => Annotations::read(reader, metadata),
        _ => Annotations::default(),
    };
    let path = root.field("spec");
    let namespace = id.namespace.as_str();
    let spec = map.get("spec");
    let spec_map = match spec {
        Some(node) => Some((reader.map(node, &path)?, node.mark)),
        None => None,
    };
    let required = |reader: &mut Reader<'_>| {
        if spec_map.is_none() {
            reader.missing(mark, &path, &format!("write what the {} does", id.kind));
        }
        spec_map
    };
    match class {
        Class::Broker => {
            let spec = broker::broker(reader, spec_map.map(|(map, _)| map), &path, &annotations, namespace);
            Some(Spec::Broker(Box::new(spec)))
        }
        Class::Trigger => {
            let spec = required(reader)?;
            trigger::trigger(reader, spec, &path, &annotations, namespace).map(Box::new).map(Spec::Trigger)
        }
        Class::Source => {
            annotations.only(reader, &[], &[]);
            let spec = required(reader)?;
            component::source(reader, spec, &path, namespace).map(Spec::Source)
        }
        Class::Sink => {
            annotations.only(reader, &[], &[]);
            required(reader).map(|(map, mark)| Spec::Sink(component::sink(map, mark)))
        }
        Class::Transformation => {
            annotations.only(reader, &[], &[]);
            let spec = required(reader)?;
            Some(Spec::Transformation(component::transformation(reader, spec, &path, namespace)))
        }
        Class::TriggerMesh => {
            let spec = required(reader)?;
            triggermesh::transformation(reader, spec, &path, namespace, &id.kind).map(Spec::Transformation)
        }
        Class::Sequence => {
            let spec = required(reader)?;
            flow::sequence(reader, spec, &path, namespace).map(Spec::Sequence)
        }
        Class::Parallel => {
            let spec = required(reader)?;
            flow::parallel(reader, spec, &path, namespace).map(Spec::Parallel)
        }
        Class::Translated => {
            let spec = required(reader)?;
            match translated::translate(reader, spec, &path, id)? {
                Translated::Source(spec) => Some(Spec::Source(spec)),
                Translated::Sink(component) => Some(Spec::Sink(component)),
            }
        }
        Class::Replay => {
            annotations.only(reader, &[], &[]);
            let spec = required(reader)?;
            replay::replay(reader, spec, &path, namespace).map(Box::new).map(Spec::Replay)
        }
        Class::Service => {
            let url = service::url(reader, map, spec_map.map(|(map, _)| map), &annotations);
            let capacity = service::capacity(spec_map.map(|(map, _)| map));
            Some(Spec::Service { url, capacity })
        }
        Class::Channel => {
            let url = service::url(reader, map, None, &annotations);
            if url.is_none() {
                let help = "leave it out, or give it the annotation `waypost.dev/url` with the URL of a channel that runs \
                            elsewhere";
                return not_supported(reader, help);
            }
            Some(Spec::Service { url, capacity: None })
        }
        Class::Secret => Some(Spec::Secret(Arc::new(values::secret(reader, map)))),
        Class::ConfigMap => Some(Spec::ConfigMap(Arc::new(values::config_map(reader, map)))),
        Class::NotYet | Class::Ignored | Class::List | Class::Test => None,
    }
}

#[cfg(test)]
mod suite;
