//! Manifests: what users declare, as they are read from files or from Kubernetes.

use std::fmt;

use serde::de::DeserializeOwned;

/// The namespace and name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ResourceName {
    /// The namespace; `default` where a manifest names none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ResourceName {
    /// The name within the namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is wrong with one field of a component's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, relative to the component's settings, such as `interval` or `tls.caCert`; empty for the whole.
    pub path: String,
    /// One sentence: what is wrong and what to write instead.
    pub message: String,
}

/// The Secrets and ConfigMaps of the manifests, which settings may refer to.
#[derive(Debug, Clone, Default)]
pub struct Secrets {}

/// Reads a component's settings, naming the field that does not fit.
pub fn decode_config<C: DeserializeOwned>(value: &serde_json::Value) -> Result<C, Vec<FieldProblem>> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        vec![FieldProblem { path, message: error.into_inner().to_string() }]
    })
}
