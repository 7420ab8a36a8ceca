//! Components: which type a manifest names, and its validated settings.

use std::hash::{DefaultHasher, Hash, Hasher};

use waypost_core::codes;
use waypost_core::manifest::document::Node;
use waypost_core::manifest::{Component, FieldProblem, ResourceName, Secrets, nearest};
use waypost_core::secret::SecretKeyReference;

use super::resolve::Issue;

/// Where a component stands and what it may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    /// The field that holds the type, such as `spec`.
    pub(super) path: &'p str,
    /// `Sink`, `Source` or `Transformation`.
    pub(super) kind: &'static str,
    /// Fields that may stand beside the type, for messages.
    pub(super) beside: &'static [&'static str],
    pub(super) namespace: &'p str,
    pub(super) secrets: &'p Secrets,
}

/// A validated component.
#[derive(Debug)]
pub(super) struct Configured<C> {
    pub(super) type_name: &'static str,
    pub(super) config: C,
    /// A digest of type, settings and the Secrets that they refer to. A digest, because settings may hold a
    /// secret and the plan can be printed.
    pub(super) fingerprint: String,
}

/// A type of the registry: its name and how it reads settings.
pub(super) type Type<C> = (&'static str, fn(&serde_json::Value) -> Result<C, Vec<FieldProblem>>);

/// Finds the type that the component names and reads its settings.
pub(super) fn configure<C>(
    component: &Component,
    types: &[Type<C>],
    place: Place<'_>,
) -> Result<Configured<C>, Vec<Issue>> {
    let ((type_name, configure), node) = choose(component, types, place)?;
    let path = match component.flat {
        true => place.path.to_owned(),
        false => format!("{}.{type_name}", place.path),
    };
    let mut settings = match node.to_json() {
        serde_json::Value::Null => serde_json::Value::Object(serde_json::Map::new()),
        settings => settings,
    };
    let mut hasher = DefaultHasher::new();
    type_name.hash(&mut hasher);
    settings.to_string().hash(&mut hasher);
    let mut issues = Vec::new();
    let mut secrets = SecretReferences { place, node, path: &path, issues: &mut issues, hasher: &mut hasher };
    secrets.visit(&settings, &mut String::new());
    if place.kind == "Transformation" {
        // Without its secrets it cannot be compiled.
        if !issues.is_empty() {
            return Err(issues);
        }
        put_secrets(&mut settings, place);
    }
    let config = configure(&settings).map_err(|problems| {
        issues.extend(problems.iter().map(|problem| settings_issue(problem, node, &path)));
        std::mem::take(&mut issues)
    })?;
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(Configured { type_name, config, fingerprint: format!("{type_name} {:016x}", hasher.finish()) })
}

fn choose<'c, C>(
    component: &'c Component,
    types: &[Type<C>],
    place: Place<'_>,
) -> Result<(Type<C>, &'c Node), Vec<Issue>> {
    let names = || types.iter().map(|(name, _)| *name);
    let choices = || match types {
        [] => format!("this version has no type of {}", place.kind),
        _ => format!("the types of {} are {}", place.kind, names().collect::<Vec<_>>().join(", ")),
    };
    let issue = |code, mark, path, message, help| Issue { code, mark, path, message, help };
    let (known, unknown): (Vec<_>, Vec<_>) =
        component.candidates.iter().partition(|(name, _)| names().any(|known| known == name));
    match known.as_slice() {
        [] if unknown.is_empty() => Err(vec![issue(
            codes::FIELD_MISSING,
            component.mark,
            place.path.to_owned(),
            format!("`{}` names no type", place.path),
            choices(),
        )]),
        [] => Err(unknown
            .into_iter()
            .map(|(name, node)| {
                let message = format!("there is no {} of type `{name}`", place.kind);
                let help = match nearest(name, names().chain(place.beside.iter().copied())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => choices(),
                };
                issue(
                    codes::COMPONENT_TYPE_UNKNOWN,
                    node.mark,
                    format!("{}.{name}", place.path),
                    message,
                    help,
                )
            })
            .collect()),
        [(name, node)] if unknown.is_empty() => {
            let chosen =
                types.iter().find(|(known, _)| known == name).expect("the name was found among the types");
            Ok((*chosen, node))
        }
        [(type_name, _)] => Err(unknown
            .into_iter()
            .map(|(name, node)| {
                let path = format!("{}.{name}", place.path);
                let message = format!("there is no field `{path}`");
                let help = match nearest(name, place.beside.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("settings of the type stand below `{type_name}`"),
                };
                issue(codes::FIELD_UNKNOWN, node.mark, path, message, help)
            })
            .collect()),
        [(first, _), (second, node), ..] => Err(vec![issue(
            codes::FIELD_CONFLICT,
            node.mark,
            format!("{}.{second}", place.path),
            format!("`{}` names more than one type: `{first}` and `{second}`", place.path),
            format!("keep one, and declare another {} for the other", place.kind),
        )]),
    }
}

fn settings_issue(problem: &FieldProblem, node: &Node, path: &str) -> Issue {
    let full = match problem.path.as_str() {
        "" => path.to_owned(),
        field if field.starts_with('[') => format!("{path}{field}"),
        field => format!("{path}.{field}"),
    };
    Issue {
        code: codes::COMPONENT_SETTINGS_INVALID,
        mark: node.locate(&problem.path),
        message: format!("`{full}`: {}", problem.message),
        path: full,
        help: "correct the settings; `waypost schema` describes them".to_owned(),
    }
}

/// Puts the secret itself in place of each reference to one. A transformation is compiled when the plan is made and is
/// pure: unlike a Sink or a Source it has no later moment at which it could ask. The settings are not kept.
fn put_secrets(settings: &mut serde_json::Value, place: Place<'_>) {
    match settings {
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| put_secrets(item, place)),
        serde_json::Value::Object(fields) => {
            let reference = fields.get("secretKeyRef").filter(|_| fields.len() == 1);
            let reference =
                reference.and_then(|value| serde_json::from_value::<SecretKeyReference>(value.clone()).ok());
            let secret = reference.and_then(|reference| {
                let secret = place.secrets.secret(place.namespace, &reference.name, &reference.key);
                secret.ok().and_then(|secret| String::from_utf8(secret.to_vec()).ok())
            });
            match secret {
                Some(secret) => {
                    fields.clear();
                    fields.insert("value".to_owned(), secret.into());
                }
                None => fields.values_mut().for_each(|field| put_secrets(field, place)),
            }
        }
        _ => {}
    }
}

/// Follows every `secretKeyRef` in settings.
struct SecretReferences<'r> {
    place: Place<'r>,
    node: &'r Node,
    path: &'r str,
    issues: &'r mut Vec<Issue>,
    hasher: &'r mut DefaultHasher,
}

impl SecretReferences<'_> {
    /// `path` is that of `value` below the settings. Recursion is bounded by the depth of documents.
    fn visit(&mut self, value: &serde_json::Value, path: &mut String) {
        let length = path.len();
        match value {
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.visit(item, path);
                    path.truncate(length);
                }
            }
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                    if name == "secretKeyRef" {
                        self.reference(field, path);
                    } else if name == "secretRef" {
                        self.whole(field, path);
                    } else {
                        self.visit(field, path);
                    }
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }

    /// A Secret that is meant as a whole.
    fn whole(&mut self, value: &serde_json::Value, path: &str) {
        let Some(name) = value.get("name").and_then(serde_json::Value::as_str) else { return };
        let name = ResourceName::new(self.place.namespace, name);
        match self.place.secrets.secret_values(&name) {
            Some(secret) => secret.hash(self.hasher),
            None => self.issues.push(Issue {
                code: codes::SECRET_DANGLING,
                mark: self.node.locate(path),
                path: format!("{}.{path}", self.path),
                message: format!("no Secret {name} is declared"),
                help: "declare the Secret in the same namespace, or correct the reference".to_owned(),
            }),
        }
    }

    fn reference(&mut self, value: &serde_json::Value, path: &str) {
        // What is not a reference is for the component to refuse.
        let Ok(reference) = serde_json::from_value::<SecretKeyReference>(value.clone()) else { return };
        match self.place.secrets.secret(self.place.namespace, &reference.name, &reference.key) {
            Ok(secret) => secret.hash(self.hasher),
            Err(unresolved) => self.issues.push(Issue {
                code: codes::SECRET_DANGLING,
                mark: self.node.locate(path),
                path: format!("{}.{path}", self.path),
                message: unresolved.to_string(),
                help: "declare the Secret in the same namespace, or correct the reference".to_owned(),
            }),
        }
    }
}
