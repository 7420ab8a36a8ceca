use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::embedded::disk::simulated::SimulatedDisk;
use crate::embedded::disk::{Disk, Opening};

const GENERATION: u64 = 77;

fn file_of(bytes: &[u8]) -> Arc<dyn DiskFile> {
    let disk = SimulatedDisk::new();
    let file = disk.open(Path::new("/f"), Opening::New).expect("it is new");
    file.write_at(bytes, 0).expect("there is room");
    file
}

fn stored(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        FrameHead::encode(&mut bytes, GENERATION, (1, number as u64), (7, 3), |into| into.put(body));
    }
    bytes
}

fn read(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, Scanned) {
    let mut found = Vec::new();
    let file = file_of(bytes);
    let scanned = scan(&*file, GENERATION, 0, 0, |_, head, body| {
        found.push((head.number, body.to_vec()));
        Ok(())
    });
    (found, scanned.expect("the disk works"))
}

#[test]
fn a_header_comes_back_and_any_flipped_bit_is_noticed() {
    let header = FileHeader { generation: GENERATION, base: 42 };
    let bytes = header.encode(FileKind::Segment);
    assert_eq!(bytes.len(), FILE_HEADER);
    assert_eq!(FileHeader::decode(&bytes, FileKind::Segment), Ok(header));
    assert!(FileHeader::decode(&bytes, FileKind::Matches).is_err());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(FileHeader::decode(&damaged, FileKind::Segment).is_err(), "bit {bit}");
    }
}

#[test]
fn an_unknown_version_is_named() {
    let mut bytes = FileHeader::new(0).encode(FileKind::Segment);
    bytes[12] += 1;
    let checksum = crc32c::crc32c(&bytes[..FILE_HEADER - 4]);
    bytes[FILE_HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
    let error = FileHeader::decode(&bytes, FileKind::Segment).expect_err("it is of a later version");
    assert_eq!(error.to_string(), "the file is of a format that this version does not know");
}

proptest! {
    #[test]
    fn frames_come_back(bodies in vec(vec(any::<u8>(), 0..2_000), 0..12), zeros in 0_usize..5_000) {
        let mut bytes = stored(&bodies);
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + zeros, 0);
        let (found, scanned) = read(&bytes);
        prop_assert_eq!(found, (0..).zip(bodies.clone()).collect::<Vec<_>>());
        let next_number = bodies.len() as u64;
        prop_assert_eq!(scanned, Scanned { end, next_number, gaps: vec![], torn: None });
    }

    /// What is not the last frame is reported, and nothing that is read differs from what was written.
    #[test]
    fn a_flipped_bit_is_noticed(bodies in vec(vec(any::<u8>(), 0..300), 1..6), bit: prop::sample::Index) {
        let bytes = stored(&bodies);
        let bit = bit.index(bytes.len() * 8);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (found, scanned) = read(&damaged);
        prop_assert_eq!(found.len(), bodies.len() - 1);
        for (number, body) in found {
            prop_assert_eq!(&body, &bodies[number as usize]);
        }
        let last = FRAME_HEADER + bodies.last().map_or(0, Vec::len);
        if bit / 8 >= bytes.len() - last {
            prop_assert!(scanned.torn.is_some() && scanned.gaps.is_empty());
        } else {
            prop_assert!(scanned.torn.is_none() && scanned.gaps.len() == 1);
        }
    }

    #[test]
    fn a_zeroed_range_is_noticed(
        bodies in vec(vec(1_u8.., 1..300), 2..8),
        from: prop::sample::Index,
        length in 1_usize..700,
    ) {
        let bytes = stored(&bodies);
        let from = from.index(bytes.len());
        let mut damaged = bytes.clone();
        let to = (from + length).min(bytes.len());
        damaged[from..to].fill(0);
        let (found, scanned) = read(&damaged);
        for (number, body) in &found {
            prop_assert_eq!(body, &bodies[*number as usize]);
        }
        let changed = damaged != bytes;
        let last = bytes.len() - FRAME_HEADER - bodies.last().map_or(0, Vec::len);
        let reported = scanned.torn.is_some() || !scanned.gaps.is_empty();
        // The last frame wholly zeroed is as if it had never been written.
        prop_assert!(!changed || reported || (from <= last && to == bytes.len()));
        prop_assert!(reported || !changed || found.len() < bodies.len());
    }

    #[test]
    fn any_bytes_are_scanned(bytes in vec(any::<u8>(), 0..4_000)) {
        let (found, scanned) = read(&bytes);
        prop_assert!(found.is_empty() && scanned.end == 0);
    }

    #[test]
    fn a_cut_file_ends_with_its_last_whole_frame(bodies in vec(vec(any::<u8>(), 0..300), 1..6), cut: prop::sample::Index) {
        let bytes = stored(&bodies);
        let cut = cut.index(bytes.len());
        let (found, scanned) = read(&bytes[..cut]);
        prop_assert!(scanned.gaps.is_empty());
        prop_assert!(found.len() < bodies.len());
        prop_assert!(scanned.end as usize <= cut);
    }
}
