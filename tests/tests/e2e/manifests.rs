//! Manifests as values, which are written as JSON: every JSON document is a YAML document.
#![allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of each argument")]

use serde_json::{Value, json};

/// Several documents as one file.
pub(crate) fn file(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("---\n{document:#}\n")).collect()
}

/// A file with the broker `default/default` without settings, and these triggers.
pub(crate) fn default_broker(triggers: &[Value]) -> String {
    file(&[&[broker("default", json!({}))], triggers].concat())
}

/// A Knative Broker in the namespace `default`.
pub(crate) fn broker(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": name}, "spec": spec})
}

/// A native Broker in the namespace `default`.
pub(crate) fn native_broker(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "metadata": {"name": name}, "spec": spec})
}

/// A Knative Trigger of the broker `default/default` with a URL as its subscriber; `more` is merged into the spec.
pub(crate) fn trigger(name: &str, url: &str, more: Value) -> Value {
    trigger_to(name, json!({"uri": url}), more)
}

/// As [`trigger`], with any subscriber.
pub(crate) fn trigger_to(name: &str, subscriber: Value, more: Value) -> Value {
    let mut spec = json!({"broker": "default", "subscriber": subscriber});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": spec})
}

/// As [`trigger`], of the native group.
pub(crate) fn native_trigger(name: &str, url: &str, more: Value) -> Value {
    let mut manifest = trigger(name, url, more);
    manifest["apiVersion"] = json!("waypost.dev/v1alpha1");
    manifest
}

/// A native Sink in the namespace `default`.
pub(crate) fn sink(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Sink", "metadata": {"name": name}, "spec": spec})
}

/// A reference to a native Sink.
pub(crate) fn sink_ref(name: &str) -> Value {
    json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Sink", "name": name}})
}

/// A filter for one type.
pub(crate) fn only(event_type: &str) -> Value {
    json!({"filters": [{"exact": {"type": event_type}}]})
}

/// Delivery settings with so many retries and hardly a wait between them.
pub(crate) fn retry(count: u32) -> Value {
    json!({"retry": count, "backoffPolicy": "linear", "backoffDelay": "PT0.01S"})
}
