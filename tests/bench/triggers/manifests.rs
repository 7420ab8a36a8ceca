//! One file with a broker and many triggers, as a program would write it for its tenants.

use std::fmt::Write as _;

use crate::request::{SOURCE, event_type};

/// A broker and this many triggers, each for a type of its own, whose subscribers have these URLs. About 360 bytes each.
pub(super) fn manifests(triggers: u32, url: impl Fn(u32) -> String) -> String {
    let mut text = String::from(
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {namespace: bench, name: default}\n",
    );
    for number in 0..triggers {
        let _ = write!(
            text,
            "---\n\
             apiVersion: waypost.dev/v1alpha1\n\
             kind: Trigger\n\
             metadata:\n  \
               namespace: bench\n  \
               name: trigger-{number:08}\n  \
               labels:\n    \
                 app.kubernetes.io/part-of: bench\n    \
                 example.com/tenant: tenant-{tenant:05}\n\
             spec:\n  \
               broker: default\n  \
               filters:\n  \
               - exact:\n      \
                   type: {kind}\n      \
                   source: {SOURCE}\n  \
               subscriber:\n    \
                 uri: {url}\n",
            tenant = number / 10,
            kind = event_type(number.into()),
            url = url(number),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use waypost_core::manifest::ManifestFile;

    use super::*;

    #[test]
    fn the_file_is_valid_and_as_large_as_it_says() {
        let text = manifests(100, |number| format!("http://127.0.0.1:40000/{number}"));
        let file = ManifestFile::read("many.yaml", text.as_bytes());
        assert_eq!(file.resources.len(), 101);
        let problems: Vec<_> = file.resources.iter().flat_map(|resource| &resource.problems).collect();
        assert!(problems.is_empty(), "{problems:?}");
        let each = text.len() / 100;
        assert!((340..=380).contains(&each), "{each}");
    }
}
