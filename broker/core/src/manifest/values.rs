//! The keys and values of Secrets and ConfigMaps. No message holds a value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::{Map, Node};
use super::reader::{Path, Reader};
use crate::codes;
use crate::secret::KeyValues;

/// Reads a Secret: `data` in base64, and `stringData`, which wins.
pub(super) fn secret(reader: &mut Reader<'_>, root: &Map) -> KeyValues {
    let mut values = KeyValues::new();
    read(reader, root, "data", &mut values, base64);
    read(reader, root, "stringData", &mut values, text);
    values
}

/// Reads a ConfigMap: `data`, and `binaryData` in base64.
pub(super) fn config_map(reader: &mut Reader<'_>, root: &Map) -> KeyValues {
    let mut values = KeyValues::new();
    read(reader, root, "data", &mut values, text);
    read(reader, root, "binaryData", &mut values, base64);
    values
}

fn read(
    reader: &mut Reader<'_>,
    root: &Map,
    field: &str,
    values: &mut KeyValues,
    decode: fn(&mut Reader<'_>, &Node, &Path<'_>) -> Option<Vec<u8>>,
) {
    let root_path = Path::Root;
    let path = root_path.field(field);
    let Some(node) = root.get(field) else { return };
    let Some(map) = reader.map(node, &path) else { return };
    for (key, node) in map.iter() {
        if let Some(value) = decode(reader, node, &path.field(key)) {
            values.insert(key.to_owned(), value);
        }
    }
}

fn text(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Vec<u8>> {
    reader.string(node, path).map(|text| text.as_bytes().to_vec())
}

fn base64(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Vec<u8>> {
    let encoded: String = reader.string(node, path)?.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(encoded).ok();
    if decoded.is_none() {
        let message = format!("`{path}` is not valid base64");
        let help = "encode the value, or write it as it is under `stringData` (Secret) or `data` (ConfigMap)";
        reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
    }
    decoded
}
