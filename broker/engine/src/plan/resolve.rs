//! Destinations to subscribers.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

use waypost_core::Code;
use waypost_core::codes;
use waypost_core::manifest::{
    Destination, KNATIVE_EVENTING, KNATIVE_FLOWS, KNATIVE_SERVING, Mark, NATIVE, Reference, ResourceName,
    Target, nearest, resolve_relative,
};

use super::flows::entrance;
use super::index::{Family, Index, ResourceKey};
use super::{HttpDestination, Subscriber};

/// The most existing names that a message lists.
const LISTED_NAMES: usize = 8;

/// How many problems of one plan list the names that exist nearby, so that planning stays linear.
const LISTING_PROBLEMS: u32 = 100;

/// The most existing names that are compared with a mistyped one.
const COMPARED_NAMES: usize = 1_000;

/// What is wrong with a field, without the place of its resource.
#[derive(Debug, Clone)]
pub(super) struct Issue {
    pub(super) code: Code,
    pub(super) mark: Mark,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: String,
}

/// The resources that destinations resolve to.
#[derive(Debug, Default)]
pub(super) struct Addressables {
    /// The names of what events can be sent to in this process, as far as this plan will have it.
    brokers: BTreeSet<ResourceName>,
    sinks: BTreeSet<ResourceName>,
    transformations: BTreeSet<ResourceName>,
    sequences: BTreeSet<ResourceName>,
    parallels: BTreeSet<ResourceName>,
    /// The Services, with their URLs where they have one.
    pub(super) services: HashMap<ResourceKey, Option<String>>,
    /// The most requests at one time that Services take, of those that say so.
    pub(super) capacities: HashMap<ResourceKey, u32>,
    listed: Cell<u32>,
}

impl Addressables {
    pub(super) fn of(&self, family: &Family) -> Option<&BTreeSet<ResourceName>> {
        match family {
            Family::Broker => Some(&self.brokers),
            Family::Sink => Some(&self.sinks),
            Family::Transformation => Some(&self.transformations),
            Family::Sequence => Some(&self.sequences),
            Family::Parallel => Some(&self.parallels),
            _ => None,
        }
    }

    pub(super) fn add(&mut self, key: &ResourceKey) {
        if let Some(names) = self.of_mut(&key.family) {
            names.insert(key.name.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) {
        if let Some(names) = self.of_mut(&key.family) {
            names.remove(&key.name);
        }
    }

    fn of_mut(&mut self, family: &Family) -> Option<&mut BTreeSet<ResourceName>> {
        match family {
            Family::Broker => Some(&mut self.brokers),
            Family::Sink => Some(&mut self.sinks),
            Family::Transformation => Some(&mut self.transformations),
            Family::Sequence => Some(&mut self.sequences),
            Family::Parallel => Some(&mut self.parallels),
            _ => None,
        }
    }

    /// Resolves a destination; `path` is the field that holds it.
    pub(super) fn resolve(
        &self,
        destination: &Destination,
        path: &str,
        index: &Index<'_>,
    ) -> Result<Subscriber, Issue> {
        let http = |url: String| {
            Subscriber::Http(HttpDestination {
                url,
                ca_certificates: destination.ca_certificates.clone(),
                audience: destination.audience.clone(),
            })
        };
        let (reference, relative) = match &destination.target {
            Target::Url(url) => return Ok(http(url.clone())),
            Target::Reference { reference, relative } => (reference, relative.as_deref()),
        };
        let family = Family::of(&reference.api_version, &reference.kind);
        let here = Reading { reference, path, family: &family, index };
        if matches!(
            family,
            Family::CoreService | Family::KnativeService | Family::Channel | Family::InMemoryChannel
        ) {
            let url = self.service(&here)?;
            return match relative {
                None => Ok(http(url)),
                Some(relative) => resolve_relative(&url, relative).map(http).map_err(|invalid| {
                    here.issue(
                        codes::URL_INVALID,
                        invalid.to_string(),
                        "correct `uri`, or the URL of the Service",
                    )
                }),
            };
        }
        let Some(names) = self.of(&family) else { return Err(not_addressable(&here)) };
        if !names.contains(&reference.name) {
            return Err(self.dangling(&here, names));
        }
        if relative.is_some() {
            let message = format!(
                "a {} of this process takes events without a URL, so that `uri` has no meaning",
                reference.kind
            );
            return Err(here.issue(codes::FIELD_CONFLICT, message, "leave `uri` out"));
        }
        let name = reference.name.clone();
        Ok(match family {
            Family::Broker => Subscriber::Broker(name),
            Family::Sink => Subscriber::Sink(name),
            Family::Sequence | Family::Parallel => Subscriber::Broker(entrance(&family, &name)),
            _ => Subscriber::Transformation(name),
        })
    }

    /// The most requests at one time that a destination takes, where it is a Service that says so.
    pub(super) fn capacity(&self, destination: &Destination) -> Option<u32> {
        let Target::Reference { reference, .. } = &destination.target else { return None };
        let family = Family::of(&reference.api_version, &reference.kind);
        self.capacities.get(&ResourceKey::new(family, reference.name.clone())).copied()
    }

    fn service(&self, here: &Reading<'_, '_>) -> Result<String, Issue> {
        let Reference { api_version, kind, name, .. } = here.reference;
        match self.services.get(&ResourceKey::new(here.family.clone(), name.clone())) {
            Some(Some(url)) => Ok(url.clone()),
            Some(None) => {
                let message = format!("the {kind} {name} of {api_version} is declared without a URL");
                let help = "give it the annotation `waypost.dev/url: http://HOST:PORT`";
                Err(here.issue(codes::SERVICE_NOT_MAPPED, message, help))
            }
            None => {
                let message = format!("no {kind} {name} of {api_version} is declared");
                let help =
                    "declare it with the annotation `waypost.dev/url: http://HOST:PORT`, or write `uri`";
                Err(here.issue(codes::SERVICE_NOT_MAPPED, message, help))
            }
        }
    }

    /// The issue of a reference to a resource that is not there.
    fn dangling(&self, here: &Reading<'_, '_>, names: &BTreeSet<ResourceName>) -> Issue {
        let Reference { kind, name, .. } = here.reference;
        let key = ResourceKey::new(here.family.clone(), name.clone());
        if let Some(declared) = here.index.get(&key) {
            let line = declared.resource.mark.line;
            let message = format!("{kind} {name} has an error itself and no earlier version that runs");
            return here.issue(
                codes::REFERENCE_INVALID,
                message,
                &format!("correct it at {}:{line}", declared.file.path),
            );
        }
        here.issue(
            codes::REFERENCE_DANGLING,
            format!("no {kind} {name} is declared"),
            &self.nearby(kind, name, names),
        )
    }

    /// A sentence on what exists near a name that does not.
    pub(super) fn nearby(&self, kind: &str, name: &ResourceName, names: &BTreeSet<ResourceName>) -> String {
        let generic = format!("declare the {kind}, or correct the reference");
        if self.listed.replace(self.listed.get().saturating_add(1)) >= LISTING_PROBLEMS {
            return generic;
        }
        let same = ResourceName::new(name.namespace.clone(), String::new());
        let in_namespace: Vec<&str> = names
            .range(same..)
            .take_while(|existing| existing.namespace == name.namespace)
            .take(COMPARED_NAMES)
            .map(|existing| existing.name.as_str())
            .collect();
        if let Some(near) = nearest(&name.name, in_namespace.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        if let Some(elsewhere) = names.iter().take(COMPARED_NAMES).find(|existing| existing.name == name.name)
        {
            return format!(
                "there is one in namespace `{}`: name it, or correct the reference",
                elsewhere.namespace
            );
        }
        match in_namespace.as_slice() {
            [] => generic,
            listed => {
                let more = if listed.len() > LISTED_NAMES { ", …" } else { "" };
                let listed = listed.iter().take(LISTED_NAMES).copied().collect::<Vec<_>>().join(", ");
                format!("namespace `{}` has {listed}{more}", name.namespace)
            }
        }
    }
}

/// A reference that is being resolved.
struct Reading<'r, 'm> {
    reference: &'r Reference,
    path: &'r str,
    family: &'r Family,
    index: &'r Index<'m>,
}

impl Reading<'_, '_> {
    fn issue(&self, code: Code, message: String, help: &str) -> Issue {
        Issue {
            code,
            mark: self.reference.mark,
            path: format!("{}.ref", self.path),
            message,
            help: help.to_owned(),
        }
    }
}

fn not_addressable(here: &Reading<'_, '_>) -> Issue {
    const ADDRESSABLE: [(&str, &str); 8] = [
        (NATIVE, "Sink"),
        (NATIVE, "Transformation"),
        (NATIVE, "Broker"),
        (KNATIVE_EVENTING, "Broker"),
        (KNATIVE_FLOWS, "Sequence"),
        (KNATIVE_FLOWS, "Parallel"),
        ("v1", "Service"),
        (KNATIVE_SERVING, "Service"),
    ];
    let Reference { api_version, kind, .. } = here.reference;
    let near = ADDRESSABLE
        .iter()
        .find(|(known, name)| known == api_version && name.eq_ignore_ascii_case(kind))
        .or_else(|| ADDRESSABLE.iter().find(|(_, name)| name == kind));
    let help = match near {
        Some((known, name)) => format!("did you mean `{name}` of `{known}`?"),
        None => "refer to a Sink, Transformation, Broker or Service, or write `uri`".to_owned(),
    };
    let message = format!("a {kind} of {api_version} cannot be sent to by this version");
    here.issue(codes::REFERENCE_NOT_ADDRESSABLE, message, &help)
}
