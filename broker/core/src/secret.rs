//! Secret values in the settings of components: how they are written, and how they are resolved without ever
//! being shown.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::manifest::ResourceName;

/// A secret as settings name it.
// Its `Debug` prints where the secret comes from, never the secret.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretValue {
    /// The secret itself, readable by whoever reads the manifest.
    Value(String),
    /// A key of a Secret in the namespace of the resource.
    SecretKeyRef(SecretKeyReference),
    /// A file that holds the secret; one line break at its end is not part of it.
    File(String),
    /// An environment variable of the Waypost process.
    Env(String),
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("***"),
            Self::SecretKeyRef(reference) => write!(f, "secretKeyRef {}/{}", reference.name, reference.key),
            Self::File(path) => write!(f, "file {path}"),
            Self::Env(name) => write!(f, "env {name}"),
        }
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    /// Reads by way of JSON, because the messages that serde derives quote what they did not expect, which here
    /// may be the secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HELP: &str = "a secret is a map with one of `value`, `secretKeyRef`, `file` and `env`";
        let serde_json::Value::Object(map) = serde_json::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(HELP));
        };
        let mut fields = map.into_iter();
        let (Some((form, value)), None) = (fields.next(), fields.next()) else {
            return Err(D::Error::custom(HELP));
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(D::Error::custom(format!("the `{form}` of a secret is a string: put it in quotes"))),
        };
        match form.as_str() {
            "value" => text(value).map(Self::Value),
            "file" => text(value).map(Self::File),
            "env" => text(value).map(Self::Env),
            "secretKeyRef" => SecretKeyReference::deserialize(value).map(Self::SecretKeyRef).map_err(|_| {
                D::Error::custom("a `secretKeyRef` has the two strings `name` and `key` and nothing else")
            }),
            _ => Err(D::Error::custom(HELP)),
        }
    }
}

/// Names one key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyReference {
    /// The name of the Secret.
    pub name: String,
    /// The key under its `data` or `stringData`.
    pub key: String,
}

impl SecretValue {
    /// Finds the secret. `namespace` is that of the resource whose settings these are.
    pub fn resolve(&self, namespace: &str, secrets: &Secrets) -> Result<Sensitive, UnresolvedSecret> {
        let outside = || secrets.outside.as_deref().ok_or(UnresolvedSecret::NoOutside);
        match self {
            Self::Value(value) => Ok(Sensitive(value.clone())),
            Self::SecretKeyRef(reference) => {
                let bytes = secrets.secret(namespace, &reference.name, &reference.key)?;
                let text = std::str::from_utf8(bytes).map_err(|_| UnresolvedSecret::NotText {
                    origin: format!("key {} of Secret {namespace}/{}", reference.key, reference.name),
                })?;
                Ok(Sensitive(text.to_owned()))
            }
            Self::File(path) => {
                let mut text = outside()?
                    .read_file(path)
                    .map_err(|reason| UnresolvedSecret::Outside { origin: format!("file {path}"), reason })?;
                if text.ends_with('\n') {
                    text.pop();
                    if text.ends_with('\r') {
                        text.pop();
                    }
                }
                Ok(Sensitive(text))
            }
            Self::Env(name) => outside()?.read_env(name).map(Sensitive).map_err(|reason| {
                UnresolvedSecret::Outside { origin: format!("environment variable {name}"), reason }
            }),
        }
    }
}

/// A resolved secret, which prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(String);

impl Sensitive {
    /// The secret itself. For the wire only: never for a log, an error or a dump.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Sensitive {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a secret was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnresolvedSecret {
    /// No manifest declares the Secret or ConfigMap.
    #[error("no {kind} {name} is declared: declare it, or correct the name")]
    Absent {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Namespace and name.
        name: ResourceName,
    },
    /// The Secret or ConfigMap has no such key.
    #[error("{kind} {name} has no key `{key}`; its keys are {}", list(.keys))]
    NoKey {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Namespace and name.
        name: ResourceName,
        /// The key that was asked for.
        key: String,
        /// The keys that there are, values never.
        keys: Vec<String>,
    },
    /// The value is no UTF-8 text.
    #[error("{origin} is not UTF-8 text")]
    NotText {
        /// Where the value comes from.
        origin: String,
    },
    /// The file or the environment variable could not be read.
    #[error("{origin} cannot be read: {reason}")]
    Outside {
        /// Where the value should come from.
        origin: String,
        /// Why it does not.
        reason: String,
    },
    /// Files and environment variables are not read here (as in `check`, which has no effects).
    #[error("files and environment variables are read only by a running broker")]
    NoOutside,
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// Reads what lies outside the manifests. Implemented where I/O is allowed.
pub trait ReadOutside: Send + Sync {
    /// The text of a file, or a sentence that says why there is none.
    fn read_file(&self, path: &str) -> Result<String, String>;

    /// An environment variable, or a sentence that says why there is none.
    fn read_env(&self, name: &str) -> Result<String, String>;
}

/// The keys and values of one Secret or ConfigMap.
pub type KeyValues = BTreeMap<String, Vec<u8>>;

/// The Secrets and ConfigMaps of the manifests, which settings may refer to. Cheap to clone; its `Debug` shows
/// how many there are and nothing of what they hold.
#[derive(Clone, Default)]
pub struct Secrets {
    secrets: Arc<HashMap<ResourceName, Arc<KeyValues>>>,
    config_maps: Arc<HashMap<ResourceName, Arc<KeyValues>>>,
    outside: Option<Arc<dyn ReadOutside>>,
}

impl Secrets {
    /// The given Secrets and ConfigMaps, by namespace and name.
    pub fn new(
        secrets: HashMap<ResourceName, Arc<KeyValues>>,
        config_maps: HashMap<ResourceName, Arc<KeyValues>>,
    ) -> Self {
        Self { secrets: Arc::new(secrets), config_maps: Arc::new(config_maps), outside: None }
    }

    /// The same, able to read files and environment variables through `outside`.
    #[must_use]
    pub fn with_outside(mut self, outside: Arc<dyn ReadOutside>) -> Self {
        self.outside = Some(outside);
        self
    }

    /// The value under a key of a Secret.
    pub fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<&[u8], UnresolvedSecret> {
        value(&self.secrets, "Secret", namespace, name, key)
    }

    /// The value under a key of a ConfigMap.
    pub fn config_map(&self, namespace: &str, name: &str, key: &str) -> Result<&[u8], UnresolvedSecret> {
        value(&self.config_maps, "ConfigMap", namespace, name, key)
    }

    /// All of one Secret.
    pub fn secret_values(&self, name: &ResourceName) -> Option<&Arc<KeyValues>> {
        self.secrets.get(name)
    }

    /// All of one ConfigMap.
    pub fn config_map_values(&self, name: &ResourceName) -> Option<&Arc<KeyValues>> {
        self.config_maps.get(name)
    }
}

fn value<'m>(
    map: &'m HashMap<ResourceName, Arc<KeyValues>>,
    kind: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<&'m [u8], UnresolvedSecret> {
    let name = ResourceName::new(namespace, name);
    let Some(values) = map.get(&name) else {
        return Err(UnresolvedSecret::Absent { kind, name });
    };
    match values.get(key) {
        Some(value) => Ok(value),
        None => Err(UnresolvedSecret::NoKey {
            kind,
            name,
            key: key.to_owned(),
            keys: values.keys().cloned().collect(),
        }),
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("secrets", &self.secrets.len())
            .field("config_maps", &self.config_maps.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed;

    impl ReadOutside for Fixed {
        fn read_file(&self, path: &str) -> Result<String, String> {
            if path == "/token" { Ok("from file\r\n".to_owned()) } else { Err("no such file".to_owned()) }
        }

        fn read_env(&self, name: &str) -> Result<String, String> {
            if name == "TOKEN" { Ok("from env".to_owned()) } else { Err("it is not set".to_owned()) }
        }
    }

    fn secrets() -> Secrets {
        let values = KeyValues::from([
            ("password".to_owned(), b"from secret".to_vec()),
            ("key".to_owned(), vec![0xff]),
        ]);
        let config = KeyValues::from([("topic".to_owned(), b"orders".to_vec())]);
        Secrets::new(
            HashMap::from([(ResourceName::new("shop", "database"), Arc::new(values))]),
            HashMap::from([(ResourceName::new("shop", "settings"), Arc::new(config))]),
        )
        .with_outside(Arc::new(Fixed))
    }

    fn read(json: &str) -> SecretValue {
        serde_json::from_str(json).expect("a secret value")
    }

    #[test]
    fn resolves_each_form() {
        for (json, expected) in [
            (r#"{"value": "plain"}"#, "plain"),
            (r#"{"secretKeyRef": {"name": "database", "key": "password"}}"#, "from secret"),
            (r#"{"file": "/token"}"#, "from file"),
            (r#"{"env": "TOKEN"}"#, "from env"),
        ] {
            let resolved = read(json).resolve("shop", &secrets()).expect("resolves");
            assert_eq!(resolved.expose(), expected, "{json}");
            assert_eq!(format!("{resolved:?}"), "***");
        }
        assert_eq!(secrets().config_map("shop", "settings", "topic"), Ok(b"orders".as_slice()));
    }

    #[test]
    fn says_why_it_does_not_resolve() {
        for (json, hint) in [
            (r#"{"secretKeyRef": {"name": "database", "key": "pasword"}}"#, "its keys are key, password"),
            (r#"{"secretKeyRef": {"name": "other", "key": "password"}}"#, "no Secret shop/other is declared"),
            (r#"{"secretKeyRef": {"name": "database", "key": "key"}}"#, "not UTF-8"),
            (r#"{"file": "/none"}"#, "file /none cannot be read: no such file"),
            (r#"{"env": "NONE"}"#, "environment variable NONE cannot be read: it is not set"),
        ] {
            let error = read(json).resolve("shop", &secrets()).expect_err(json).to_string();
            assert!(error.contains(hint), "{json}: {error}");
        }
    }

    #[test]
    fn never_quotes_what_it_did_not_expect() {
        for json in [
            r#""hunter2""#,
            r#"{"value": {"hunter2": 1}}"#,
            r#"{"value": ["hunter2"]}"#,
            r#"{"hunter2": "x"}"#,
            r#"{"value": "hunter2", "file": "x"}"#,
            r#"{"secretKeyRef": "hunter2"}"#,
            r#"{"env": ["hunter2"]}"#,
            "{}",
        ] {
            let error = serde_json::from_str::<SecretValue>(json).expect_err(json).to_string();
            assert!(error.contains("secret"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn never_shows_the_secret() {
        let value = read(r#"{"value": "hunter2"}"#);
        assert_eq!(format!("{value:?}"), "***");
        assert!(!format!("{:?}", secrets()).contains("from secret"));
    }
}
