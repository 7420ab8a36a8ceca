//! The annotations of a resource. Those of our own group are extras for kinds that are not ours, and a typing
//! error in one is an error; all others are tolerated.

use super::Mark;
use super::document::{Map, Node};
use super::reader::{Path, Reader, nearest};
use crate::codes;

/// What our annotations begin with.
const PREFIX: &str = "waypost.dev/";

/// The annotations of a resource, checked to be text.
#[derive(Debug, Default)]
pub(super) struct Annotations<'n>(Vec<(&'n str, &'n str, Mark)>);

impl<'n> Annotations<'n> {
    /// Reads `metadata.annotations`.
    pub(super) fn read(reader: &mut Reader<'_>, metadata: &'n Map) -> Self {
        let root = Path::Root;
        let path = root.field("metadata");
        let read = |reader: &mut Reader<'_>, node: &'n Node, path: &Path<'_>| {
            let map = reader.map(node, path)?;
            let texts = map
                .iter()
                .filter_map(|(name, node)| Some((name, reader.string(node, &path.field(name))?, node.mark)));
            Some(Self(texts.collect()))
        };
        reader.optional(metadata, &path, "annotations", read).unwrap_or_default()
    }

    /// The text of an annotation, and its place.
    pub(super) fn get(&self, name: &str) -> Option<(&'n str, Mark)> {
        self.0.iter().find(|(known, _, _)| *known == name).map(|(_, text, mark)| (*text, *mark))
    }

    /// Reads one of our annotations.
    pub(super) fn own<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        read: impl FnOnce(&mut Reader<'_>, &'n str, Mark, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        let (key, text, mark) = *self.0.iter().find(|(key, _, _)| key.strip_prefix(PREFIX) == Some(name))?;
        with_path(key, |path| read(reader, text, mark, path))
    }

    /// Refuses annotations of our group that the kind does not have. `planned` are those that it will have.
    pub(super) fn only(&self, reader: &mut Reader<'_>, known: &[&str], planned: &[&str]) {
        for (key, _, mark) in &self.0 {
            let Some(name) = key.strip_prefix(PREFIX).filter(|name| !known.contains(name)) else { continue };
            with_path(key, |path| {
                if planned.contains(&name) {
                    reader.not_supported(*mark, path);
                    return;
                }
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{PREFIX}{near}`?"),
                    None if reader.strict => "write it as a field of `spec`".to_owned(),
                    None if known.is_empty() => format!("this kind has no annotations of {PREFIX}"),
                    None => format!("after `{PREFIX}` comes one of {}", known.join(", ")),
                };
                let message = format!("there is no annotation `{key}` on this kind");
                reader.error(codes::FIELD_UNKNOWN, *mark, path, message, help);
            });
        }
    }
}

/// Calls back with the path of an annotation.
pub(super) fn with_path<T>(key: &str, call: impl FnOnce(&Path<'_>) -> T) -> T {
    let root = Path::Root;
    let metadata = root.field("metadata");
    let annotations = metadata.field("annotations");
    call(&annotations.field(key))
}
