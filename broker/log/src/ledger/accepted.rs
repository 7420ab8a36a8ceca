//! Which outputs of a delivery's transformations the subscriber has.

/// The most deliveries of one trigger and partition of which it is noted.
pub const ACCEPTED_LIMIT: usize = 10_000;

/// Outputs of a delivery's transformations that the subscriber has. They are sent in order, so that a number tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedOutputs {
    /// The digest of the transformations that made them: others make other outputs.
    pub chain: u64,
    /// The first outputs, so many.
    pub outputs: u32,
}

impl AcceptedOutputs {
    /// How many outputs of transformations with this digest were accepted.
    pub fn by(self, chain: u64) -> u32 {
        if self.chain == chain { self.outputs } else { 0 }
    }
}
