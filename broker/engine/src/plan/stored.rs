//! The stored plan: what a process keeps of its plan for the one after it.
//!
//! ```text
//! plan                               the version of the newest plan
//! resource/FAMILY/NAMESPACE/NAME     the last valid declaration: the document as JSON, where it stood, since which plan
//! detached/FAMILY/NAMESPACE/NAME     since when no manifest has declared it
//! ```
//!
//! Secrets and ConfigMaps are not among them: those come from their files alone. Pure: the caller keeps and loads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use waypost_core::manifest::{
    Document, ManifestFile, Manifests, NATIVE, ResourceId, ResourceName, Spec, StoredDocument,
};

use super::{
    BrokerPlan, DEFAULT_ACCEPTED_STATUS, DEFAULT_RETENTION, Declared, DeclaredState, Family, LogKind, Origin,
    Plan, Registry, ResourceKey, plan,
};

const PLAN: &str = "plan";
const RESOURCE: &str = "resource/";
const DETACHED: &str = "detached/";

/// A value to be kept under a name, or the name to be taken out.
pub type StoredChange = (String, Option<Vec<u8>>);

/// What an earlier process kept.
#[derive(Debug, Default)]
pub struct StoredPlan {
    version: u64,
    resources: BTreeMap<String, StoredResource>,
    /// Nanoseconds since 1970.
    detached: HashMap<String, i64>,
}

/// Why the stored plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stored plan cannot be read by this version ({row}: {reason}); use the version that wrote it, or a later one"
)]
pub struct UnreadablePlan {
    /// What cannot be read.
    pub row: String,
    /// Why.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredVersion {
    version: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredResource {
    file: Arc<str>,
    line: u32,
    /// The plan that first took the declaration.
    version: u64,
    document: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredDetached {
    since: i64,
}

impl StoredPlan {
    /// Reads what was kept. What is not the plan's is passed over.
    pub fn read(kept: Vec<(String, Vec<u8>)>) -> Result<Self, UnreadablePlan> {
        let mut stored = Self::default();
        for (name, value) in kept {
            let unreadable =
                |error: serde_json::Error| UnreadablePlan { row: name.clone(), reason: error.to_string() };
            if name == PLAN {
                stored.version = serde_json::from_slice::<StoredVersion>(&value).map_err(unreadable)?.version;
            } else if let Some(key) = name.strip_prefix(RESOURCE) {
                let resource = serde_json::from_slice(&value).map_err(unreadable)?;
                stored.resources.insert(key.to_owned(), resource);
            } else if let Some(key) = name.strip_prefix(DETACHED) {
                let detached = serde_json::from_slice::<StoredDetached>(&value).map_err(unreadable)?;
                stored.detached.insert(key.to_owned(), detached.since);
            }
        }
        Ok(stored)
    }

    /// Whether there never was a plan: a first start.
    pub fn is_empty(&self) -> bool {
        self.version == 0
    }

    /// The version of the newest plan that was applied, or was about to be.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The plan that was in force when the earlier process ended. Secrets and ConfigMaps are those of `files`, the
    /// manifests as they are now. `logs` are the brokers whose logs were found: one that nobody knows is detached.
    ///
    /// What this version finds wrong with a stored declaration is in [`Plan::problems`]; it is then as if there never
    /// had been one.
    pub fn previous(&self, files: &Manifests, registry: &Registry, logs: &[ResourceName]) -> Plan {
        let everything = plan(&self.manifests(files, |_| true), registry, None, self.version);
        let attached = |key: &str| !self.detached.contains_key(key);
        let mut previous = if self.resources.keys().all(|key| attached(key)) {
            everything
        } else {
            // What was detached is known, and was not declared by the last files.
            let problems = everything.problems.clone();
            let declared = self.manifests(files, attached);
            Plan { problems, ..plan(&declared, registry, Some(&everything), self.version) }
        };
        for (key, origin) in &mut previous.origins {
            if let Some(resource) = self.resources.get(&name_of(key)) {
                origin.version = resource.version;
            }
        }
        for name in logs {
            previous.adopt(name);
        }
        let detached = previous.declared.iter().filter(|declared| declared.state == DeclaredState::Detached);
        let since = detached.filter_map(|declared| {
            let key = ResourceKey::of(&declared.id);
            self.detached.get(&name_of(&key)).map(|since| (key, *since))
        });
        previous.detached.since = since.collect();
        previous
    }

    /// The stored documents of some resources as manifests, with the values of `files` that they may refer to.
    fn manifests(&self, files: &Manifests, wanted: impl Fn(&str) -> bool) -> Manifests {
        let mut by_file: BTreeMap<&Arc<str>, Vec<StoredDocument<'_>>> = BTreeMap::new();
        for (_, resource) in self.resources.iter().filter(|(key, _)| wanted(key)) {
            let document = StoredDocument { line: resource.line, text: resource.document.get() };
            by_file.entry(&resource.file).or_default().push(document);
        }
        let values = files.files.iter().map(|file| ManifestFile {
            path: Arc::clone(&file.path),
            resources: file.resources.iter().filter(|resource| is_value(&resource.spec)).cloned().collect(),
            problems: Vec::new(),
            tests: Vec::new(),
            test_problems: Vec::new(),
            complete: true,
        });
        let stored =
            by_file.into_iter().map(|(path, documents)| ManifestFile::stored(Arc::clone(path), documents));
        Manifests { files: values.chain(stored).collect() }
    }
}

fn is_value(spec: &Option<Spec>) -> bool {
    matches!(spec, Some(Spec::Secret(_) | Spec::ConfigMap(_)))
}

impl Plan {
    /// Takes in a log that no declaration is known of: its broker is detached.
    fn adopt(&mut self, name: &ResourceName) {
        if self.brokers.contains_key(name) || self.detached.brokers.contains_key(name) {
            return;
        }
        let id = ResourceId::new(NATIVE, "Broker", name.clone());
        let broker = BrokerPlan {
            id: id.clone(),
            log: LogKind::Embedded,
            retention: DEFAULT_RETENTION,
            retention_bytes: None,
            strict_replies: false,
            accepted_status: DEFAULT_ACCEPTED_STATUS,
            implicit: false,
            delivery: None,
            dead_letter_sink: None,
            class: None,
            config: None,
            deduplication: None,
        };
        self.detached.brokers.insert(name.clone(), Arc::new(broker));
        self.declared.push(Declared { id, state: DeclaredState::Detached });
    }

    /// What has to be kept for a later process, before this plan is applied: what differs from `previous`, for which
    /// the same was done. `manifests` are those that the plan was made of.
    pub fn to_store(
        &self,
        manifests: &Manifests,
        previous: Option<&Self>,
        version: u64,
    ) -> Vec<StoredChange> {
        let before = |key: &ResourceKey| previous.and_then(|previous| previous.origins.get(key));
        let mut changes = vec![(PLAN.to_owned(), Some(json(&StoredVersion { version })))];
        let mut documents: HashMap<ResourceKey, &Document> = HashMap::new();
        for resource in manifests.files.iter().flat_map(|file| &file.resources) {
            if let Some(document) = &resource.document {
                // Of two declarations the first one holds.
                documents.entry(ResourceKey::of(&resource.id)).or_insert(document);
            }
        }
        for (key, origin) in &self.origins {
            let known = before(key).is_some_and(|was| was.digest == origin.digest && was.file == origin.file);
            if origin.digest != 0
                && !known
                && let Some(document) = documents.get(key).filter(|document| document.digest == origin.digest)
            {
                changes.push((format!("{RESOURCE}{}", name_of(key)), Some(stored(origin, document))));
            }
        }
        for (key, since) in &self.detached.since {
            if previous.is_none_or(|previous| previous.detached.since.get(key) != Some(since)) {
                let value = json(&StoredDetached { since: *since });
                changes.push((format!("{DETACHED}{}", name_of(key)), Some(value)));
            }
        }
        let Some(previous) = previous else { return changes };
        for key in previous.detached.since.keys().filter(|key| !self.detached.since.contains_key(*key)) {
            changes.push((format!("{DETACHED}{}", name_of(key)), None));
        }
        // What is neither declared nor detached any more: forgotten, or never with anything to keep.
        let known = previous.origins.keys().chain(previous.detached.since.keys()).collect::<HashSet<_>>();
        for key in known {
            if !self.origins.contains_key(key) && !self.detached.since.contains_key(key) {
                changes.push((format!("{RESOURCE}{}", name_of(key)), None));
            }
        }
        changes
    }
}

/// The names under which a broker or trigger that is forgotten was kept.
pub(crate) fn stored_names(key: &ResourceKey) -> [String; 2] {
    let name = name_of(key);
    [format!("{RESOURCE}{name}"), format!("{DETACHED}{name}")]
}

fn stored(origin: &Origin, document: &Document) -> Vec<u8> {
    let raw = RawValue::from_string(document.text.to_string());
    json(&StoredResource {
        file: Arc::clone(&origin.file),
        line: origin.line,
        version: origin.version,
        document: raw.expect("a document is JSON text"),
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and JSON text can be written")
}

/// The part of a row's name that tells the resource.
fn name_of(key: &ResourceKey) -> String {
    let ResourceName { namespace, name } = &key.name;
    let family = match &key.family {
        Family::Broker => "broker",
        Family::Trigger => "trigger",
        Family::Source => "source",
        Family::Sink => "sink",
        Family::Transformation => "transformation",
        Family::CoreService => "service",
        Family::KnativeService => "knative-service",
        Family::Secret => "secret",
        Family::ConfigMap => "config-map",
        Family::Other(api_version, kind) => return format!("{api_version}/{kind}/{namespace}/{name}"),
    };
    format!("{family}/{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_COMPONENTS: Registry = Registry { sources: &[], sinks: &[], transformations: &[] };

    fn manifests(text: &str) -> Manifests {
        Manifests { files: vec![ManifestFile::read("a.yaml", text.as_bytes())] }
    }

    fn resource(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: waypost.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    }

    fn trigger(more: &str) -> String {
        resource("Trigger", "t", &format!("{{broker: b, subscriber: {{uri: 'http://x'}}{more}}}"))
    }

    /// What a store holds, changed as a process changes it.
    #[derive(Default)]
    struct Kept(BTreeMap<String, Vec<u8>>);

    impl Kept {
        fn names(&mut self, changes: Vec<StoredChange>) -> Vec<String> {
            let mut names: Vec<_> = changes.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            for (name, value) in changes {
                match value {
                    Some(value) => drop(self.0.insert(name, value)),
                    None => drop(self.0.remove(&name)),
                }
            }
            names
        }

        /// The plan of a process that starts with these files at a moment, and what it changes in the store.
        fn start(&mut self, files: &str, now: i64) -> (Plan, Vec<String>) {
            let stored = StoredPlan::read(self.0.clone().into_iter().collect()).expect("it was written so");
            let files = manifests(files);
            let previous = stored.previous(&files, &NO_COMPONENTS, &[]);
            let version = stored.version() + 1;
            let mut next = plan(&files, &NO_COMPONENTS, Some(&previous), version);
            next.date_detached(now);
            let changes = next.to_store(&files, Some(&previous), version);
            (next, self.names(changes))
        }
    }

    fn name(name: &str) -> ResourceName {
        ResourceName::new("default", name)
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut kept = Kept::default();
        let whole = [resource("Broker", "b", "{}"), trigger("")].concat();
        let (first, names) = kept.start(&whole, 1);
        assert_eq!(names, ["plan", "resource/broker/default/b", "resource/trigger/default/t"]);
        let (second, names) = kept.start(&whole, 2);
        assert_eq!(names, ["plan"]);
        assert_eq!(second.triggers[&name("t")].fingerprint, first.triggers[&name("t")].fingerprint);
        let versions = second.origins.values().map(|origin| origin.version).collect::<Vec<_>>();
        assert_eq!(versions, [1, 1], "the version that first took them");
        let (_, names) = kept.start(&[resource("Broker", "b", "{}"), trigger(", paused: true")].concat(), 3);
        assert_eq!(names, ["plan", "resource/trigger/default/t"]);
    }

    #[test]
    fn a_broken_resource_is_stored_in_its_last_valid_version() {
        let mut kept = Kept::default();
        kept.start(&[resource("Broker", "b", "{}"), trigger("")].concat(), 1);
        let broken = [resource("Broker", "b", "{}"), trigger(", pausd: true")].concat();
        for now in 2..4 {
            let (plan, names) = kept.start(&broken, now);
            assert!(plan.triggers.contains_key(&name("t")) && !plan.is_free_of_errors());
            assert_eq!(names, ["plan"]);
        }
    }

    #[test]
    fn what_is_detached_keeps_its_version_and_its_moment() {
        let mut kept = Kept::default();
        let broker = resource("Broker", "b", "{retention: {age: PT1H}}");
        kept.start(&[broker.as_str(), &trigger("")].concat(), 1);
        let (_, names) = kept.start("", 10);
        assert_eq!(names, ["detached/broker/default/b", "detached/trigger/default/t", "plan"]);
        let (plan, names) = kept.start("", 20);
        assert_eq!(names, ["plan"]);
        assert!(plan.brokers.is_empty() && plan.triggers.is_empty());
        assert_eq!(plan.detached.brokers[&name("b")].retention.as_secs(), 3_600);
        assert_eq!(plan.broker_detached_since(&name("b")), Some(10));
        assert!(plan.detached.triggers.contains_key(&name("t")));
        // A broken one that comes back is not what it was before.
        let (plan, _) = kept.start(&[broker.as_str(), &trigger(", pausd: true")].concat(), 30);
        assert!(plan.brokers.contains_key(&name("b")) && !plan.triggers.contains_key(&name("t")));
        let (plan, _) = kept.start(&[broker.as_str(), &trigger("")].concat(), 40);
        assert!(plan.triggers.contains_key(&name("t")) && plan.detached.since.is_empty());
        assert!(!kept.0.keys().any(|name| name.starts_with(DETACHED)), "{:?}", kept.0.keys());
    }

    #[test]
    fn a_log_that_nobody_knows_is_detached() {
        let stored = StoredPlan::default();
        let previous = stored.previous(&manifests(""), &NO_COMPONENTS, &[name("found")]);
        let next = plan(&manifests(""), &NO_COMPONENTS, Some(&previous), 1);
        assert!(next.detached.brokers.contains_key(&name("found")));
        assert_eq!(next.declared[0].state, DeclaredState::Detached);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let kept = vec![("resource/broker/default/b".to_owned(), b"{\"file\": 1}".to_vec())];
        let error = StoredPlan::read(kept).expect_err("it is not what this version writes");
        assert_eq!(error.row, "resource/broker/default/b");
    }
}
