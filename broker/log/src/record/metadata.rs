//! How metadata is stored: tagged fields, each `tag: u16, length: u32, value`, all numbers little-endian.
//!
//! | tag | field | value | absent |
//! |---|---|---|---|
//! | 1 | hops | `u8` | 255 |
//! | 2 | origin | `u8`: 0 ingress, 1 source, 2 delivery | ingress |
//! | 3 | cause | namespace, name (each `length: u32`, UTF-8), partition `u16`, offset `u64`, trigger `u32`, output `u32` | none |
//! | 4 | header, once for each | name (`length: u32`), value to the end | none |
//!
//! Any other tag is of a later version: kept, and written back after those above.

use bytes::{Buf, Bytes};

use waypost_core::Code;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;

use crate::log::TriggerNumber;
use crate::record::{Cause, DEFAULT_HOPS, Metadata, Origin, Position};

const HOPS: u16 = 1;
const ORIGIN: u16 = 2;
const CAUSE: u16 = 3;
const HEADER: u16 = 4;

/// Stored metadata is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metadata of a record is corrupt: {reason}")]
pub struct CorruptMetadata {
    reason: &'static str,
}

impl CorruptMetadata {
    /// The stable code.
    pub fn code(&self) -> Code {
        codes::LOG_CORRUPT
    }
}

impl Metadata {
    /// Appends the stored form: nothing at all for metadata that says nothing.
    pub fn encode(&self, into: &mut Vec<u8>) {
        if self.hops != DEFAULT_HOPS {
            field(into, HOPS, |value| value.push(self.hops));
        }
        if self.origin != Origin::Ingress {
            field(into, ORIGIN, |value| value.push(origin_number(self.origin)));
        }
        if let Some(cause) = &self.cause {
            field(into, CAUSE, |value| encode_cause(cause, value));
        }
        for (name, header) in &self.headers {
            field(into, HEADER, |value| {
                counted(value, name);
                value.extend_from_slice(header);
            });
        }
        for (tag, unknown) in &self.unknown {
            field(into, *tag, |value| value.extend_from_slice(unknown));
        }
    }

    /// Reads the stored form, all of `bytes`. Headers and unknown fields are slices of it.
    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptMetadata> {
        let mut metadata = Self::default();
        let mut rest = bytes.clone();
        let (mut hops, mut origin) = (None, None);
        let (mut headers, mut unknown) = (Vec::new(), Vec::new());
        while rest.has_remaining() {
            let tag = rest.try_get_u16_le().map_err(|_| cut())?;
            let mut value = take_counted(&mut rest)?;
            match tag {
                HOPS => once(&mut hops, single(&value)?)?,
                ORIGIN => once(&mut origin, origin_of(single(&value)?)?)?,
                CAUSE => once(&mut metadata.cause, Box::new(decode_cause(value)?))?,
                HEADER => {
                    let name = take_counted(&mut value)?;
                    headers.push((name, value));
                }
                _ => unknown.push((tag, value)),
            }
        }
        metadata.hops = hops.unwrap_or(metadata.hops);
        metadata.origin = origin.unwrap_or(metadata.origin);
        metadata.headers = headers.into();
        metadata.unknown = unknown.into();
        Ok(metadata)
    }
}

fn encode_cause(cause: &Cause, value: &mut Vec<u8>) {
    counted(value, cause.broker.namespace.as_bytes());
    counted(value, cause.broker.name.as_bytes());
    value.extend_from_slice(&cause.position.partition.to_le_bytes());
    value.extend_from_slice(&cause.position.offset.to_le_bytes());
    value.extend_from_slice(&cause.trigger.0.to_le_bytes());
    value.extend_from_slice(&cause.output.to_le_bytes());
}

fn decode_cause(mut value: Bytes) -> Result<Cause, CorruptMetadata> {
    let namespace = take_text(&mut value)?;
    let name = take_text(&mut value)?;
    let partition = value.try_get_u16_le().map_err(|_| cut())?;
    let offset = value.try_get_u64_le().map_err(|_| cut())?;
    let trigger = value.try_get_u32_le().map_err(|_| cut())?;
    let output = value.try_get_u32_le().map_err(|_| cut())?;
    if value.has_remaining() {
        return Err(CorruptMetadata { reason: "a cause is too long" });
    }
    Ok(Cause {
        broker: ResourceName { namespace, name },
        position: Position { partition, offset },
        trigger: TriggerNumber(trigger),
        output,
    })
}

fn origin_number(origin: Origin) -> u8 {
    match origin {
        Origin::Ingress => 0,
        Origin::Source => 1,
        Origin::Delivery => 2,
    }
}

fn origin_of(number: u8) -> Result<Origin, CorruptMetadata> {
    match number {
        0 => Ok(Origin::Ingress),
        1 => Ok(Origin::Source),
        2 => Ok(Origin::Delivery),
        _ => Err(CorruptMetadata { reason: "the origin is unknown" }),
    }
}

fn field(into: &mut Vec<u8>, tag: u16, write: impl FnOnce(&mut Vec<u8>)) {
    into.extend_from_slice(&tag.to_le_bytes());
    let length_at = into.len();
    into.extend_from_slice(&[0; 4]);
    write(into);
    let length = length_of(into.len() - length_at - 4);
    into[length_at..length_at + 4].copy_from_slice(&length);
}

fn counted(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&length_of(bytes.len()));
    into.extend_from_slice(bytes);
}

fn length_of(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("what travels with an event is smaller than a request, far below 4 GiB")
        .to_le_bytes()
}

fn take_counted(from: &mut Bytes) -> Result<Bytes, CorruptMetadata> {
    let length = from.try_get_u32_le().map_err(|_| cut())? as usize;
    if length > from.len() {
        return Err(cut());
    }
    Ok(from.split_to(length))
}

fn take_text(from: &mut Bytes) -> Result<String, CorruptMetadata> {
    let bytes = take_counted(from)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| CorruptMetadata { reason: "a name is not UTF-8" })
}

fn single(value: &Bytes) -> Result<u8, CorruptMetadata> {
    match **value {
        [byte] => Ok(byte),
        _ => Err(CorruptMetadata { reason: "a field has the wrong length" }),
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), CorruptMetadata> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(CorruptMetadata { reason: "a field stands twice" }),
    }
}

fn cut() -> CorruptMetadata {
    CorruptMetadata { reason: "it ends in the middle of a field" }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn cause() -> impl Strategy<Value = Cause> {
        (".{0,20}", ".{0,20}", any::<(u16, u64, u32, u32)>()).prop_map(
            |(namespace, name, (partition, offset, trigger, output))| Cause {
                broker: ResourceName { namespace, name },
                position: Position { partition, offset },
                trigger: TriggerNumber(trigger),
                output,
            },
        )
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let origin = prop_oneof![Just(Origin::Ingress), Just(Origin::Source), Just(Origin::Delivery)];
        let headers = vec((bytes(), bytes()), 0..4);
        let unknown = vec((HEADER + 1.., bytes()), 0..4);
        (any::<u8>(), origin, proptest::option::of(cause()), headers, unknown).prop_map(
            |(hops, origin, cause, headers, unknown)| Metadata {
                hops,
                origin,
                cause: cause.map(Box::new),
                headers: headers.into_iter().collect(),
                unknown: unknown.into_iter().collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(metadata in metadata()) {
            let mut stored = Vec::new();
            metadata.encode(&mut stored);
            prop_assert_eq!(Metadata::decode(&Bytes::from(stored)), Ok(metadata));
        }

        #[test]
        fn any_bytes_are_read_or_refused(stored in bytes()) {
            if let Ok(metadata) = Metadata::decode(&stored) {
                let mut again = Vec::new();
                metadata.encode(&mut again);
                prop_assert_eq!(Metadata::decode(&Bytes::from(again)), Ok(metadata));
            }
        }

        #[test]
        fn damaged_metadata_is_read_or_refused(metadata in metadata(), at: prop::sample::Index, to: u8, end: prop::sample::Index) {
            let mut stored = Vec::new();
            metadata.encode(&mut stored);
            if !stored.is_empty() {
                let at = at.index(stored.len());
                stored[at] = to;
                stored.truncate(end.index(stored.len()) + 1);
            }
            let _ = Metadata::decode(&Bytes::from(stored));
        }
    }

    #[test]
    fn metadata_that_says_nothing_takes_no_room() {
        let mut stored = Vec::new();
        Metadata::default().encode(&mut stored);
        assert!(stored.is_empty());
        assert_eq!(Metadata::decode(&Bytes::new()), Ok(Metadata::default()));
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let refused =
            |stored: &'static [u8]| Metadata::decode(&Bytes::from_static(stored)).map_err(|e| e.to_string());
        for (stored, reason) in [
            (&[1_u8][..], "it ends in the middle of a field"),
            (&[1, 0, 9, 0, 0, 0, 7], "it ends in the middle of a field"),
            (&[1, 0, 2, 0, 0, 0, 7, 7], "a field has the wrong length"),
            (&[1, 0, 1, 0, 0, 0, 7, 1, 0, 1, 0, 0, 0, 7], "a field stands twice"),
            (&[2, 0, 1, 0, 0, 0, 3], "the origin is unknown"),
        ] {
            assert_eq!(refused(stored), Err(format!("the metadata of a record is corrupt: {reason}")));
        }
    }
}
