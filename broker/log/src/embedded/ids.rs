//! Which records of a segment have a source and an id: keys made of their hashes, sorted, in blocks that carry checksums.
//!
//! ```text
//! file:  block | block | … | entries u64 | magic u32 | CRC32C u32
//! block: of 4096 bytes: count u32 | CRC32C u32 | (key u64 | record u32) × count | zeros
//! ```
//!
//! The checksum of a block covers the count, the entries and the number of the block. A hash only suggests: whoever
//! looks compares the record itself.
//!
//! The hashes of ids that count up lie in clusters, so that nobody could tell in which block one is. A key is such a hash spread
//! evenly. Before there were keys the hashes stood there themselves, and the magic was another; that is read too.

use std::io;
use std::path::Path;

use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::{Disk, DiskFile, Opening};

const BLOCK: usize = 4096;
const ENTRY: usize = 12;
const PER_BLOCK: usize = (BLOCK - 8) / ENTRY;
const TRAILER: usize = 16;
/// The blocks that are looked at beside each other before the rest is halved.
const NEAR: u32 = 3;
const TRAILER_MAGIC_OF_HASHES: u32 = 0x5344_4957;
const TRAILER_MAGIC: u32 = 0x4b44_4957;

/// What the end of a file tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    blocks: u64,
    /// Whether hashes were spread into keys.
    spread: bool,
}

/// Hashes with the records that they stand for, counted from the segment's first.
pub(super) type Ids = Vec<(u64, u32)>;

/// The stable hash of a source and an id (FNV-1a, 64 bits).
pub(super) fn hash(source: &str, id: &str) -> u64 {
    let bytes = source.bytes().chain([0xff]).chain(id.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads hashes evenly over all numbers, each to another (the finalizer of `SplitMix64`).
fn spread(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Writes the index of a sealed segment and makes it durable; its directory entry is the caller's to sync.
pub(super) fn write(disk: &dyn Disk, path: &Path, ids: &Ids) -> io::Result<Shape> {
    let (bytes, shape) =
        encode(ids.iter().map(|(hash, record)| (spread(*hash), *record)).collect(), TRAILER_MAGIC);
    let file = disk.open(path, Opening::Either)?;
    file.set_length(0)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    Ok(shape)
}

/// A whole index.
fn encode(mut entries: Vec<(u64, u32)>, magic: u32) -> (Vec<u8>, Shape) {
    entries.sort_unstable();
    let mut bytes = Vec::with_capacity(entries.len().div_ceil(PER_BLOCK) * BLOCK + TRAILER);
    for (number, entries) in (0..).zip(entries.chunks(PER_BLOCK)) {
        let start = bytes.len();
        bytes.resize(start + 8, 0);
        for (key, record) in entries {
            bytes.put_u64(*key);
            bytes.put_u32(*record);
        }
        let count = u32::try_from(entries.len()).expect("a block has fewer entries than bytes");
        let checksum = checksum(number, count, &bytes[start + 8..]);
        bytes[start..start + 4].copy_from_slice(&count.to_le_bytes());
        bytes[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(start + BLOCK, 0);
    }
    let trailer = bytes.len();
    bytes.put_u64(entries.len() as u64);
    bytes.put_u32(magic);
    let checksum = crc32c::crc32c(&bytes[trailer..]);
    bytes.put_u32(checksum);
    (bytes, Shape { blocks: (trailer / BLOCK) as u64, spread: magic == TRAILER_MAGIC })
}

fn checksum(number: u64, count: u32, entries: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &count.to_le_bytes()), entries)
}

/// Why an index could not be searched.
#[derive(Debug, thiserror::Error)]
pub(super) enum SearchError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Reads a whole index.
pub(super) fn check(file: &dyn DiskFile) -> Result<(), SearchError> {
    (0..shape(file)?.blocks).try_for_each(|number| block(file, number).map(drop))
}

/// The records with this hash, in a file of this shape. Keys are spread evenly, so that the block is looked for where it
/// should be and beside that, and only then by halves: a log has hundreds of these files, and each block may have to
/// come from the disk.
pub(super) fn search(file: &dyn DiskFile, shape: Shape, hash: u64) -> Result<Vec<u32>, SearchError> {
    let Shape { blocks, spread: is_spread } = shape;
    let key = if is_spread { spread(hash) } else { hash };
    // The first block whose last key is not below the one that is looked for, and what it holds.
    let (mut low, mut high, mut first) = (0, blocks, None);
    let mut next = expected_block(key, blocks);
    for looked in 0_u32.. {
        if low >= high {
            break;
        }
        let middle = if looked < NEAR { next } else { low + (high - low) / 2 };
        let entries = block(file, middle)?;
        if entries.last().is_none_or(|(last, _)| *last < key) {
            low = middle + 1;
            next = low;
            continue;
        }
        high = middle;
        next = high.saturating_sub(1);
        if entries.first().is_some_and(|(first, _)| *first < key) {
            low = middle;
        }
        first = Some(entries);
    }
    let mut found = Vec::new();
    while low < blocks {
        let entries = first.take().map_or_else(|| block(file, low), Ok)?;
        found.extend(entries.iter().filter(|(entry, _)| *entry == key).map(|(_, record)| *record));
        if entries.last().is_some_and(|(last, _)| *last > key) {
            break;
        }
        low += 1;
    }
    Ok(found)
}

/// Where the block with this key is, if the keys are spread evenly over all that there may be.
fn expected_block(key: u64, blocks: u64) -> u64 {
    let block = (u128::from(key) * u128::from(blocks)) >> 64;
    u64::try_from(block).expect("a part of a number is no larger than it")
}

/// The shape of a file, where its length is what its end says.
pub(super) fn shape(file: &dyn DiskFile) -> Result<Shape, SearchError> {
    let length = file.length()?;
    let blocks = length / BLOCK as u64;
    let mut trailer = [0; TRAILER];
    file.read_at(&mut trailer, blocks * BLOCK as u64)?;
    let mut reader = Reader(&trailer);
    let (entries, magic, stored) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let spread = magic == TRAILER_MAGIC;
    let known = spread || magic == TRAILER_MAGIC_OF_HASHES;
    let intact = known && crc32c::crc32c(&trailer[..TRAILER - 4]) == stored;
    if !intact
        || blocks != entries.div_ceil(PER_BLOCK as u64)
        || length != blocks * BLOCK as u64 + TRAILER as u64
    {
        return Err(Corrupt("the index of ids has the wrong length").into());
    }
    Ok(Shape { blocks, spread })
}

fn block(file: &dyn DiskFile, number: u64) -> Result<Vec<(u64, u32)>, SearchError> {
    let mut bytes = [0; BLOCK];
    file.read_at(&mut bytes, number * BLOCK as u64).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Corrupt("the index of ids was cut off").into(),
        _ => SearchError::from(error),
    })?;
    let mut reader = Reader(&bytes);
    let (count, stored) = (reader.u32()?, reader.u32()?);
    let length = (count as usize).saturating_mul(ENTRY);
    let content = reader.take(length)?;
    if checksum(number, count, content) != stored || reader.0.iter().any(|byte| *byte != 0) {
        return Err(Corrupt("a block of the index of ids fails its checksum").into());
    }
    let mut reader = Reader(content);
    let entry = || Ok((reader.u64()?, reader.u32()?));
    std::iter::repeat_with(entry).take(count as usize).collect::<Result<_, Corrupt>>().map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::embedded::disk::simulated::SimulatedDisk;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_id_is_found(
            ids in vec((0_u64..600, 0_u32..50), 0..900), of_hashes: bool, bit: prop::sample::Index,
        ) {
            let (disk, path) = (SimulatedDisk::new(), Path::new("/ids"));
            let written = write(&disk, path, &ids).expect("there is room");
            if of_hashes {
                disk.overwrite(path, encode(ids.clone(), TRAILER_MAGIC_OF_HASHES).0);
            }
            let file = disk.open(path, Opening::Existing).expect("it is there");
            prop_assert_eq!(shape(&*file).expect("it is whole"), Shape { spread: !of_hashes, ..written });
            for hash in (0..600).step_by(7) {
                let mut expected: Vec<u32> =
                    ids.iter().filter(|(of, _)| *of == hash).map(|(_, record)| *record).collect();
                expected.sort_unstable();
                let found = search(&*file, shape(&*file).expect("it is whole"), hash);
                prop_assert_eq!(found.expect("it is intact"), expected);
            }

            // A flipped bit is noticed, or it is in what nobody reads.
            if !ids.is_empty() {
                let (_, mut bytes) = disk.files().remove(0);
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                disk.overwrite(path, bytes);
                for (hash, record) in ids.iter().step_by(3) {
                    if let Ok(found) = shape(&*file).and_then(|shape| search(&*file, shape, *hash)) {
                        prop_assert!(found.contains(record));
                    }
                }
            }
        }
    }

    /// Of ids that count up, as those of most producers do.
    #[test]
    fn an_id_is_in_the_block_where_it_is_looked_for_or_beside_it() {
        let mut keys: Vec<u64> = (0..60_000).map(|id| spread(hash("/orders", &id.to_string()))).collect();
        keys.sort_unstable();
        let blocks = keys.len().div_ceil(PER_BLOCK) as u64;
        let away =
            |(place, key): (u64, &u64)| expected_block(*key, blocks).abs_diff(place / PER_BLOCK as u64);
        let away: Vec<_> = (0..).zip(&keys).map(away).collect();
        assert!(away.iter().all(|blocks| *blocks <= 1));
        let at_once = away.iter().filter(|blocks| **blocks == 0).count();
        assert!(at_once > keys.len() / 2, "{at_once}");
    }
}
