//! Memory that was written by another thread, fetched before it is needed.

/// The blocks that are best fetched together.
pub const TOGETHER: usize = 16;

/// The most bytes of a block that are fetched. A processor goes on by itself with what is read in one go.
const MOST_BYTES: usize = 4 * 1024;

/// The bytes that a processor fetches at once, on all that are common.
const CACHE_LINE: usize = 64;

/// Looks at blocks that are about to be read one after the other. A processor waits for memory that is far from it once for each
/// place that the next step depends on, but for many at the same time where none depends on another.
///
/// It changes nothing. What is near already is looked at in a few nanoseconds for each block.
pub fn prefetch<'b>(blocks: impl IntoIterator<Item = &'b [u8]>) {
    let mut seen = 0;
    for block in blocks {
        let start = &block[..block.len().min(MOST_BYTES)];
        seen ^= start.iter().step_by(CACHE_LINE).chain(block.last()).fold(0, |seen, byte| seen ^ byte);
    }
    // Otherwise nobody needs what was seen, and nothing is looked at.
    std::hint::black_box(seen);
}
