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
    Document, ManifestFile, Manifests, Mark, NATIVE, Resource, ResourceId, ResourceName, Spec, StoredDocument,
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
    resources: BTreeMap<String, StoredResource<Box<RawValue>>>,
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
struct StoredResource<D> {
    file: Arc<str>,
    line: u32,
    /// The plan that first took the declaration.
    version: u64,
    document: D,
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
        let mut resources = Vec::with_capacity(kept.len());
        for (name, value) in kept {
            let unreadable =
                |error: serde_json::Error| UnreadablePlan { row: name.clone(), reason: error.to_string() };
            if name == PLAN {
                stored.version = serde_json::from_slice::<StoredVersion>(&value).map_err(unreadable)?.version;
            } else if let Some(key) = name.strip_prefix(RESOURCE) {
                let resource = serde_json::from_slice(&value).map_err(unreadable)?;
                resources.push((key.to_owned(), resource));
            } else if let Some(key) = name.strip_prefix(DETACHED) {
                let detached = serde_json::from_slice::<StoredDetached>(&value).map_err(unreadable)?;
                stored.detached.insert(key.to_owned(), detached.since);
            }
        }
        stored.resources = resources.into_iter().collect();
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

    /// The next plan where the files say word for word what is stored, nothing is detached and nothing is wrong: then it
    /// is the plan that was in force, and making that one first, as [`StoredPlan::previous`] does, would change nothing
    /// in it. Only its version is to be stored, see [`StoredPlan::next_version`].
    pub fn still_in_force(
        &self,
        files: &Manifests,
        registry: &Registry,
        logs: &[ResourceName],
    ) -> Option<Plan> {
        let documents = files.files.iter().flat_map(|file| &file.resources);
        let declared = documents.filter(|resource| resource.document.is_some()).count();
        let complete = files.files.iter().all(|file| file.complete);
        if self.is_empty() || !complete || !self.detached.is_empty() || declared != self.resources.len() {
            return None;
        }
        let mut versions = Vec::with_capacity(declared);
        for file in &files.files {
            for resource in file.resources.iter().filter(|resource| resource.document.is_some()) {
                let key = ResourceKey::of(&resource.id);
                let (_, stored) =
                    self.as_stored(&key, resource).filter(|(_, stored)| stored.file == file.path)?;
                versions.push((key, stored.version));
            }
        }
        let mut next = plan(files, registry, None, self.version + 1);
        if !next.is_free_of_errors() || logs.iter().any(|name| !next.brokers.contains_key(name)) {
            return None;
        }
        for (key, version) in versions {
            next.origins.get_mut(&key)?.version = version;
        }
        Some(next)
    }

    /// What is to be kept of a plan that is [still in force](StoredPlan::still_in_force).
    pub fn next_version(&self) -> StoredChange {
        (PLAN.to_owned(), Some(json(&StoredVersion { version: self.version + 1 })))
    }

    /// The row of a resource that is declared word for word as it is stored, with the row's name.
    fn as_stored(
        &self,
        key: &ResourceKey,
        resource: &Resource,
    ) -> Option<(&str, &StoredResource<Box<RawValue>>)> {
        let document = resource.document.as_ref()?;
        let (name, stored) = self.resources.get_key_value(&name_of(key))?;
        (stored.document.get() == &*document.text).then_some((name.as_str(), stored))
    }

    /// The plan that was in force when the earlier process ended. Secrets and ConfigMaps are those of `files`, the
    /// manifests as they are now. `logs` are the brokers whose logs were found: one that nobody knows is detached.
    ///
    /// What this version finds wrong with a stored declaration is in [`Plan::problems`]; it is then as if there never
    /// had been one.
    pub fn previous(&self, files: &Manifests, registry: &Registry, logs: &[ResourceName]) -> Plan {
        let unchanged = self.unchanged(files);
        let everything = plan(&self.manifests(files, &unchanged, |_| true), registry, None, self.version);
        let attached = |key: &str| !self.detached.contains_key(key);
        let mut previous = if self.resources.keys().all(|key| attached(key)) {
            everything
        } else {
            // What was detached is known, and was not declared by the last files.
            let problems = everything.problems.clone();
            let declared = self.manifests(files, &unchanged, attached);
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

    /// What `files` declare word for word as it is stored, by the names of the rows: it need not be read once more.
    fn unchanged<'m>(&self, files: &'m Manifests) -> HashMap<&str, &'m Resource> {
        let resources = files.files.iter().flat_map(|file| &file.resources);
        let unchanged = resources.filter_map(|resource| {
            let (name, _) = self.as_stored(&ResourceKey::of(&resource.id), resource)?;
            Some((name, resource))
        });
        unchanged.collect()
    }

    /// The stored documents of some resources as manifests, with the values of `files` that they may refer to.
    fn manifests(
        &self,
        files: &Manifests,
        unchanged: &HashMap<&str, &Resource>,
        wanted: impl Fn(&str) -> bool,
    ) -> Manifests {
        let mut by_file: BTreeMap<&Arc<str>, (Vec<StoredDocument<'_>>, Vec<Resource>)> = BTreeMap::new();
        for (key, stored) in self.resources.iter().filter(|(key, _)| wanted(key)) {
            let (documents, read) = by_file.entry(&stored.file).or_default();
            match unchanged.get(key.as_str()) {
                // As if it had been read from its row.
                Some(resource) => {
                    let mark = Mark { line: stored.line, column: 1 };
                    read.push(Resource { mark, ..Resource::clone(resource) });
                }
                None => documents.push(StoredDocument { line: stored.line, text: stored.document.get() }),
            }
        }
        let values = files.files.iter().map(|file| ManifestFile {
            path: Arc::clone(&file.path),
            resources: file.resources.iter().filter(|resource| is_value(&resource.spec)).cloned().collect(),
            problems: Vec::new(),
            tests: Vec::new(),
            test_problems: Vec::new(),
            complete: true,
        });
        let stored = by_file.into_iter().map(|(path, (documents, read))| {
            let mut file = ManifestFile::stored(Arc::clone(path), documents);
            file.resources.extend(read);
            file
        });
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
        for resource in manifests.files.iter().flat_map(|file| &file.resources) {
            let Some(document) = &resource.document else { continue };
            let key = ResourceKey::of(&resource.id);
            // Of two declarations the first one holds, and is the origin.
            let Some(origin) = self.origins.get(&key).filter(|origin| {
                (origin.digest, origin.line) == (document.digest, resource.mark.line) && origin.digest != 0
            }) else {
                continue;
            };
            if !before(&key).is_some_and(|was| was.digest == origin.digest && was.file == origin.file) {
                changes.push((format!("{RESOURCE}{}", name_of(&key)), Some(stored(origin, document))));
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
        let known = previous.origins.keys().chain(previous.detached.since.keys());
        let forgotten = known
            .filter(|key| !self.origins.contains_key(*key) && !self.detached.since.contains_key(*key))
            .collect::<HashSet<_>>();
        for key in forgotten {
            changes.push((format!("{RESOURCE}{}", name_of(key)), None));
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
    let raw: &RawValue = serde_json::from_str(&document.text).expect("a document is JSON text");
    let (file, line, version) = (Arc::clone(&origin.file), origin.line, origin.version);
    json(&StoredResource { file, line, version, document: raw })
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
        Family::Sequence => "sequence",
        Family::Parallel => "parallel",
        Family::Replay => "replay",
        Family::CoreService => "service",
        Family::KnativeService => "knative-service",
        Family::Channel => "channel",
        Family::InMemoryChannel => "in-memory-channel",
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
            if let Some(same) = stored.still_in_force(&files, &NO_COMPONENTS, &[]) {
                assert_eq!(changes, [stored.next_version()]);
                assert_eq!((&same.declared, &same.origins), (&next.declared, &next.origins));
                assert_eq!((&same.problems, &same.brokers), (&next.problems, &next.brokers));
                assert!(same.triggers.keys().eq(next.triggers.keys()) && !same.has_detached());
            }
            (next, self.names(changes))
        }

        fn still_in_force(&self, files: &str, logs: &[ResourceName]) -> bool {
            let stored = StoredPlan::read(self.0.clone().into_iter().collect()).expect("it was written so");
            stored.still_in_force(&manifests(files), &NO_COMPONENTS, logs).is_some()
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
    fn only_the_very_same_files_are_still_in_force() {
        let mut kept = Kept::default();
        let broker = resource("Broker", "b", "{}");
        let whole = [broker.as_str(), &trigger("")].concat();
        assert!(!kept.still_in_force(&whole, &[]), "nothing was in force");
        kept.start(&whole, 1);
        assert!(kept.still_in_force(&whole, &[name("b")]));
        assert!(kept.still_in_force(&format!("# moved\n{whole}"), &[]));
        kept.start(&whole, 2);
        assert!(!kept.still_in_force(&whole, &[name("found")]), "a log that nobody knows");
        let other = resource("Broker", "other", "{}");
        for changed in [
            broker.clone(),
            [whole.as_str(), &other].concat(),
            [other.as_str(), &trigger("")].concat(),
            [broker.as_str(), &trigger(", paused: true")].concat(),
            [broker.as_str(), &trigger(", pausd: true")].concat(),
            [whole.as_str(), &trigger("")].concat(),
        ] {
            assert!(!kept.still_in_force(&changed, &[]), "{changed}");
        }
        kept.start(&broker, 3);
        assert!(!kept.still_in_force(&broker, &[]), "the trigger is detached");
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
