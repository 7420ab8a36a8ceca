//! The primitives of every stored form: little-endian numbers, counted bytes, and reading that never panics.

/// Stored bytes are not what was written; the reason in a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Corrupt(pub(super) &'static str);

const CUT: Corrupt = Corrupt("it ends too early");

/// Reads from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Corrupt> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Corrupt> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Corrupt> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Corrupt> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A number in seven bits to the byte, the lowest first.
    pub(super) fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt("a number is too long"))
    }

    pub(super) fn varint_u32(&mut self) -> Result<u32, Corrupt> {
        u32::try_from(self.varint()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// Bytes behind their length.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.counted()?).map_err(|_| Corrupt("a text is not UTF-8"))
    }

    /// The end, or damage.
    pub(super) fn end(self) -> Result<(), Corrupt> {
        if self.is_empty() { Ok(()) } else { Err(Corrupt("something follows its end")) }
    }
}

/// Writes to the end of a buffer.
pub(super) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put(&mut self, bytes: &[u8]);

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn put_counted(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("what is stored in one piece is far below 4 GiB");
        self.put_u32(length);
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(a: u8, b: u16, c: u32, d: u64, e: i64, f: u64, g: u32, bytes: Vec<u8>) {
            let mut stored = Vec::new();
            stored.put_u8(a);
            stored.put_u16(b);
            stored.put_u32(c);
            stored.put_u64(d);
            stored.put_i64(e);
            stored.put_varint(f);
            stored.put_varint(u64::from(g));
            stored.put_counted(&bytes);
            let mut reader = Reader(&stored);
            prop_assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Ok(a), Ok(b), Ok(c)));
            prop_assert_eq!((reader.u64(), reader.i64(), reader.varint()), (Ok(d), Ok(e), Ok(f)));
            prop_assert_eq!((reader.varint_u32(), reader.counted()), (Ok(g), Ok(bytes.as_slice())));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            let _ = (reader.varint(), reader.text(), reader.counted(), reader.u64());
        }
    }
}
