//! The manifests of these tests. They are written as JSON: every JSON document is a YAML document.

use serde_json::{Value, json};

/// Deliveries that are tried again at once, and often.
pub(crate) fn quick() -> Value {
    json!({"retry": 100_000, "backoffPolicy": "constant", "backoffDelay": "PT0.2S"})
}

/// Deliveries whose next attempt is so far away that it is kept in the schedule.
pub(crate) fn slow() -> Value {
    json!({"retry": 20, "backoffPolicy": "constant", "backoffDelay": "PT1.2S"})
}

/// A trigger: its name, the URL that it delivers to, its delivery, and whether it is paused.
#[derive(Debug)]
pub(crate) struct Trigger<'a> {
    pub(crate) name: &'a str,
    pub(crate) url: String,
    pub(crate) delivery: Value,
    pub(crate) paused: bool,
}

/// The broker `default/default` with these triggers.
pub(crate) fn broker(triggers: &[Trigger<'_>]) -> String {
    let broker =
        json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "default"}});
    let triggers = triggers.iter().map(|trigger| {
        json!({
            "apiVersion": "waypost.dev/v1alpha1", "kind": "Trigger", "metadata": {"name": trigger.name},
            "spec": {
                "broker": "default", "subscriber": {"uri": trigger.url},
                "delivery": trigger.delivery, "paused": trigger.paused
            }
        })
    });
    std::iter::once(broker).chain(triggers).map(|document| format!("---\n{document:#}\n")).collect()
}
