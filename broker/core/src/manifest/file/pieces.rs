//! A large file in pieces that can be read at the same time: a YAML document never goes beyond a line that begins with
//! `---`, whatever it holds (YAML 1.2.2, section 9.1.2).

use std::sync::Arc;

use super::{MAX_FILE_BYTES, ManifestFile};

/// The least bytes of a piece: to divide less costs more than it saves.
const LEAST_BYTES: usize = 1024 * 1024;

/// What begins a document.
const MARKER: &[u8] = b"\n---";

/// Some documents of a file, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'c> {
    content: &'c [u8],
    first_line: u32,
}

impl<'c> Piece<'c> {
    /// The content of a file in at most so many pieces, in order; in one where it is small, too large or cannot be
    /// divided.
    pub fn divide(content: &'c [u8], at_most: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut rest = Self { content, first_line: 1 };
        if content.len() <= MAX_FILE_BYTES {
            let size = (content.len() / at_most.max(1)).max(LEAST_BYTES);
            while pieces.len() + 1 < at_most
                && let Some((piece, behind)) = rest.split(size)
            {
                pieces.push(piece);
                rest = behind;
            }
        }
        pieces.push(rest);
        pieces
    }

    /// Two pieces, the first of at least `size` bytes.
    fn split(self, size: usize) -> Option<(Self, Self)> {
        let mut from = size;
        loop {
            let found = memchr::memmem::find(self.content.get(from..)?, MARKER)? + from;
            if begins_document(self.content, found) {
                let (first, second) = self.content.split_at(found + 1);
                let lines = memchr::memchr_iter(b'\n', first).count();
                let first_line = self.first_line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
                return Some((Self { content: first, ..self }, Self { content: second, first_line }));
            }
            from = found + MARKER.len();
        }
    }
}

/// Whether a document can be divided off at the line break at `found`, which `---` follows. Directives and comments
/// before the marker belong to what follows it.
fn begins_document(content: &[u8], found: usize) -> bool {
    let ends = matches!(content.get(found + MARKER.len()), None | Some(b' ' | b'\t' | b'\n' | b'\r'));
    let line = memchr::memrchr(b'\n', &content[..found]).map_or(0, |end| end + 1);
    ends && !matches!(content.get(line), Some(b'%' | b'#'))
}

impl ManifestFile {
    /// Reads a piece of a file.
    ///
    /// # Errors
    /// The file as it is where its text is no manifest: then nothing of any piece counts.
    pub fn read_piece(path: impl Into<Arc<str>>, piece: Piece<'_>) -> Result<Self, Self> {
        let mut file = Self::empty(path.into());
        match file.read_documents(piece.content, piece.first_line) {
            Ok(()) => Ok(file),
            Err((code, message, help, mark)) => {
                file.fail(code, message, help.to_owned(), mark);
                Err(file)
            }
        }
    }

    /// The file with what its next piece declares: as if it had been read in one.
    pub fn join(mut self, next: Self) -> Self {
        self.resources.extend(next.resources);
        self.problems.extend(next.problems);
        self.tests.extend(next.tests);
        self.test_problems.extend(next.test_problems);
        self.complete &= next.complete;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(count: usize, between: &str) -> String {
        let document = |number| {
            let filler = "x".repeat(40_000);
            format!(
                "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: broker-{number}\n  annotations:\n    \
                 filler: {filler}\n"
            )
        };
        (0..count).map(document).collect::<Vec<_>>().join(between)
    }

    fn in_pieces(text: &str, at_most: usize) -> (usize, ManifestFile) {
        let pieces = Piece::divide(text.as_bytes(), at_most);
        let count = pieces.len();
        let read = pieces.into_iter().map(|piece| ManifestFile::read_piece("a.yaml", piece));
        let joined = read.reduce(|file, next| Ok(file?.join(next?))).expect("there is one piece at least");
        let (Ok(file) | Err(file)) = joined;
        (count, file)
    }

    #[test]
    fn a_file_in_pieces_says_the_same_as_in_one() {
        for between in ["---\n", "--- # next\n", "...\n---\n", "---\n# of it\n---\n", "%YAML 1.2\n---\n"] {
            let text = documents(120, between);
            let whole = ManifestFile::read("a.yaml", text.as_bytes());
            for at_most in [1, 2, 3, 4] {
                let (count, read) = in_pieces(&text, at_most);
                if !between.starts_with('%') {
                    assert_eq!(count, at_most, "{between:?}");
                }
                assert_eq!(read, whole, "{between:?} in {at_most}");
            }
        }
    }

    #[test]
    fn the_first_error_is_that_of_the_file_and_nothing_else_of_it_counts() {
        let good = documents(60, "---\n");
        for text in [
            format!("{good}---\nkind: [\n---\n{good}"),
            format!("kind: [\n---\n{good}---\n{good}"),
            format!("{good}---\n{good}---\nkind: [\n"),
        ] {
            let (count, read) = in_pieces(&text, 2);
            assert_eq!(count, 2);
            assert!(read.resources.is_empty() && !read.complete);
            assert_eq!(read.problems.len(), 1);
            let line = read.problems[0].location.as_ref().expect("it has a place").mark.line;
            let broken = text.lines().position(|line| line == "kind: [").expect("there is one") + 1;
            assert!((broken..=broken + 1).contains(&(line as usize)), "line {line}, not {broken}");
        }
    }

    #[test]
    fn a_piece_without_a_resource_takes_nothing_from_the_others() {
        let good = documents(60, "---\n");
        let text = format!("{good}---\n- {}\n", "y".repeat(2 * LEAST_BYTES));
        let (count, read) = in_pieces(&text, 2);
        assert_eq!(count, 2);
        assert_eq!(read.resources.len(), 60);
        assert_eq!(read, ManifestFile::read("a.yaml", text.as_bytes()));
    }

    #[test]
    fn what_only_looks_like_a_marker_divides_nothing() {
        let text = format!("a: |\n  {}\n----\n---x\n", "y".repeat(2 * LEAST_BYTES));
        assert_eq!(Piece::divide(text.as_bytes(), 4).len(), 1);
    }
}
