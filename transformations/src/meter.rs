//! What a program may still take: steps and bytes, counted where a crate that runs programs calls back.
//!
//! Some crates evaluate without limits, but in places that are ours: that of jq asks for its table of terms at every term
//! that it evaluates and works on values through a trait, that of JSON Schema evaluates a keyword of ours at every
//! reference. Every loop passes there. Such a place cannot return an error, so a program that is beyond a limit is ended
//! by unwinding, which no `try` sees and no panic hook reports. What is left is kept by thread, since these places have
//! nowhere else to look.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The stack that must be left before a term is evaluated: more than what evaluating one and dropping what it built
/// takes.
const STACK_LEFT: usize = 384 * 1024;

/// Why a program was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It took too many steps.
    Steps,
    /// It made too many bytes.
    Bytes,
    /// It made a value that is too large or too deep.
    Value(&'static str),
    /// It calls itself too deeply.
    Stack,
    /// The crate contradicted itself.
    Panic,
}

#[derive(Clone, Copy)]
struct Left {
    steps: u64,
    bytes: usize,
}

thread_local! {
    static LEFT: Cell<Left> = const { Cell::new(Left { steps: 0, bytes: 0 }) };
}

/// What a program took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) steps: u64,
    pub(crate) bytes: usize,
}

/// Runs `program` with so much to take. What it took is told in any case.
pub(crate) fn metered<T>(steps: u64, bytes: usize, program: impl FnOnce() -> T) -> (Taken, Result<T, Stop>) {
    LEFT.set(Left { steps, bytes });
    // What the program held is dropped by the unwinding, so that nothing half-made is seen afterwards.
    let result = catch_unwind(AssertUnwindSafe(program));
    let left = LEFT.get();
    let taken = Taken { steps: steps - left.steps.min(steps), bytes: bytes - left.bytes.min(bytes) };
    (taken, result.map_err(|why| why.downcast_ref::<Stop>().copied().unwrap_or(Stop::Panic)))
}

/// Takes steps.
#[inline]
pub(crate) fn step(steps: u64) {
    let left = LEFT.get();
    match left.steps.checked_sub(steps) {
        Some(steps) => LEFT.set(Left { steps, ..left }),
        None => stop(Stop::Steps),
    }
}

/// Takes bytes, and the steps that filling them takes.
#[inline]
pub(crate) fn make(bytes: usize) {
    let left = LEFT.get();
    match left.bytes.checked_sub(bytes) {
        Some(bytes) => LEFT.set(Left { bytes, ..left }),
        None => stop(Stop::Bytes),
    }
}

/// Takes the step of a term, and sees whether it may go deeper.
#[inline]
pub(crate) fn term() {
    step(1);
    if stacker::remaining_stack().is_some_and(|left| left < STACK_LEFT) {
        stop(Stop::Stack);
    }
}

/// Ends the program.
#[cold]
pub(crate) fn stop(why: Stop) -> ! {
    resume_unwind(Box::new(why))
}
