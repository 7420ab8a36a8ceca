//! Which resource is which, across groups, files and versions of the plan.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use waypost_core::codes;
use waypost_core::manifest::{
    Becomes, KNATIVE_EVENTING, KNATIVE_FLOWS, KNATIVE_MESSAGING, KNATIVE_SERVING, Location, ManifestFile,
    Manifests, NATIVE, Problem, Resource, ResourceId, ResourceName, Severity, becomes, is_transformation,
};

/// What makes two resources of one name the same: their kind, whichever group declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// A Broker of Knative's group or of ours.
    Broker,
    /// A Trigger of Knative's group or of ours.
    Trigger,
    /// A Source.
    Source,
    /// A Sink.
    Sink,
    /// A Transformation.
    Transformation,
    /// Knative's Sequence.
    Sequence,
    /// Knative's Parallel.
    Parallel,
    /// A Replay.
    Replay,
    /// A Service of Kubernetes.
    CoreService,
    /// A Service of Knative.
    KnativeService,
    /// A Channel of Knative that runs elsewhere.
    Channel,
    /// An InMemoryChannel of Knative that runs elsewhere.
    InMemoryChannel,
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A kind that is known and not supported, by apiVersion and kind.
    Other(String, String),
}

impl Family {
    /// The family of an apiVersion and kind.
    pub fn of(api_version: &str, kind: &str) -> Self {
        match (api_version, kind) {
            (KNATIVE_EVENTING | NATIVE, "Broker") => Self::Broker,
            (KNATIVE_EVENTING | NATIVE, "Trigger") => Self::Trigger,
            (NATIVE, "Source") => Self::Source,
            (NATIVE, "Sink") => Self::Sink,
            (NATIVE, "Transformation") => Self::Transformation,
            _ if becomes(api_version, kind) == Some(Becomes::Source) => Self::Source,
            _ if becomes(api_version, kind) == Some(Becomes::Sink) => Self::Sink,
            _ if is_transformation(api_version, kind) => Self::Transformation,
            (KNATIVE_FLOWS, "Sequence") => Self::Sequence,
            (KNATIVE_FLOWS, "Parallel") => Self::Parallel,
            (NATIVE, "Replay") => Self::Replay,
            (KNATIVE_SERVING, "Service") => Self::KnativeService,
            (KNATIVE_MESSAGING, "Channel") => Self::Channel,
            (KNATIVE_MESSAGING, "InMemoryChannel") => Self::InMemoryChannel,
            ("v1", "Service") => Self::CoreService,
            ("v1", "Secret") => Self::Secret,
            ("v1", "ConfigMap") => Self::ConfigMap,
            _ => Self::Other(api_version.to_owned(), kind.to_owned()),
        }
    }
}

/// The identity of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// What it is.
    pub family: Family,
    /// Its namespace and name.
    pub name: ResourceName,
}

impl ResourceKey {
    /// The resource of this family and name.
    pub fn new(family: Family, name: ResourceName) -> Self {
        Self { family, name }
    }

    /// The identity of a resource as its manifest names it.
    pub fn of(id: &ResourceId) -> Self {
        Self::new(Family::of(&id.api_version, &id.kind), id.resource_name())
    }
}

/// A resource that the manifests declare, and what is known of it so far.
#[derive(Debug)]
pub(super) struct Declaration<'m> {
    pub(super) key: ResourceKey,
    pub(super) file: &'m ManifestFile,
    pub(super) resource: &'m Resource,
    /// The first error, once there is one.
    pub(super) error: Option<Problem>,
}

impl Declaration<'_> {
    pub(super) fn failed(&self) -> bool {
        self.error.is_some()
    }
}

/// The declarations in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Index<'m> {
    pub(super) declarations: Vec<Declaration<'m>>,
    by_key: HashMap<ResourceKey, usize>,
    /// Later declarations of a resource that is declared already, each with its problem.
    pub(super) duplicates: Vec<(&'m Resource, Problem)>,
}

impl<'m> Index<'m> {
    pub(super) fn new(manifests: &'m Manifests) -> Self {
        let count = manifests.files.iter().map(|file| file.resources.len()).sum();
        let mut index = Self {
            declarations: Vec::with_capacity(count),
            by_key: HashMap::with_capacity(count),
            duplicates: Vec::new(),
        };
        for file in &manifests.files {
            for resource in &file.resources {
                index.add(file, resource);
            }
        }
        index
    }

    fn add(&mut self, file: &'m ManifestFile, resource: &'m Resource) {
        let key = ResourceKey::of(&resource.id);
        match self.by_key.entry(key) {
            Entry::Occupied(first) => {
                let first = &self.declarations[*first.get()];
                self.duplicates.push((resource, duplicate(first, file, resource)));
            }
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                entry.insert(self.declarations.len());
                let error = resource.problems.iter().find(|problem| problem.is_error()).cloned();
                self.declarations.push(Declaration { key, file, resource, error });
            }
        }
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Declaration<'m>> {
        self.by_key.get(key).map(|at| &self.declarations[*at])
    }
}

fn duplicate(first: &Declaration<'_>, file: &ManifestFile, resource: &Resource) -> Problem {
    let (place, kind) = (first.resource.mark.line, &resource.id.kind);
    let first_id = &first.resource.id;
    let group = if first_id.api_version == resource.id.api_version {
        String::new()
    } else {
        format!(" as a {} of {}", first_id.kind, first_id.api_version)
    };
    Problem {
        code: codes::RESOURCE_DUPLICATE,
        severity: Severity::Error,
        message: format!(
            "{kind} {} is declared already{group} at {}:{place}",
            resource.id.resource_name(),
            first.file.path
        ),
        help: "remove one of the two, or give it another name".to_owned(),
        location: Some(Location { file: file.path.clone(), mark: resource.mark }),
        path: "metadata.name".to_owned(),
        resource: Some(resource.id.clone()),
    }
}
