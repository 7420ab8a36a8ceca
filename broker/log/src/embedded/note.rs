//! What the journal holds: one note for each change of a ledger or of the dead letters that must survive.
//!
//! ```text
//! note: sequence u64 | offset u64 | trigger u32 | length u32 | kind u8 | content
//! ```

use bytes::Bytes;
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, codes};

use crate::clock::Timestamp;
use crate::dead_letter::{DeadLetterId, DeadLetterReason, Forwarding, RedriveId};
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::ledger::{AcceptedOutputs, Attempt, AttemptOutcome, DropReason, Key};
use crate::log::TriggerNumber;
use crate::record::Offset;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Its place among all changes of the log.
    pub(super) sequence: u64,
    /// The record that it is about, where it is about one.
    pub(super) offset: Offset,
    /// The trigger that it is about, where it is about one.
    pub(super) trigger: TriggerNumber,
    pub(super) change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// An attempt failed, and the delivery stays in the window.
    Attempted(Attempt),
    /// The subscriber has outputs of the delivery, which stays where it is.
    Accepted(AcceptedOutputs),
    /// The delivery went to the schedule.
    Waiting {
        due: Timestamp,
        attempts: u32,
        key: Option<Key>,
    },
    /// The delivery went to the schedule, behind another of its key.
    Held(Key),
    Delivered(Option<Attempt>),
    Dropped(DropReason, Option<Attempt>),
    /// The delivery was given up; the dead letter as it is stored.
    DeadLettered(Option<Attempt>, DeadLetterId, Bytes),
    /// What was not taken below `next` was dropped.
    PassedOver {
        reason: DropReason,
        untaken: u64,
        next: Offset,
    },
    /// A dead letter is stored anew.
    LetterChanged(DeadLetterId, Bytes),
    LetterRemoved(DeadLetterId),
}

const ATTEMPTED: u8 = 1;
const WAITING: u8 = 2;
const DELIVERED: u8 = 3;
const DROPPED: u8 = 4;
const DEAD_LETTERED: u8 = 5;
const PASSED_OVER: u8 = 6;
const LETTER_CHANGED: u8 = 7;
const LETTER_REMOVED: u8 = 8;
const HELD: u8 = 9;
const WAITING_IN_ORDER: u8 = 10;
const ACCEPTED: u8 = 11;

impl Note {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u64(self.sequence);
        into.put_u64(self.offset);
        into.put_u32(self.trigger.0);
        let at = into.len();
        into.put_u32(0);
        self.change.encode(into);
        let length = u32::try_from(into.len() - at - 4).expect("a note is far below 4 GiB");
        into[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (sequence, offset, trigger) = (reader.u64()?, reader.u64()?, TriggerNumber(reader.u32()?));
        let change = Change::decode(Reader(reader.counted()?))?;
        Ok(Self { sequence, offset, trigger, change })
    }
}

/// All notes of a frame's body.
pub(super) fn decode_all(body: &[u8]) -> Result<Vec<Note>, Corrupt> {
    let mut reader = Reader(body);
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(Note::decode(&mut reader)?);
    }
    Ok(all)
}

/// Hands the changes of one debt to `learn`, in order; the other notes are passed over undecoded.
pub(super) fn about(
    body: &[u8],
    offset: Offset,
    trigger: TriggerNumber,
    mut learn: impl FnMut(Change),
) -> Result<(), Corrupt> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        reader.u64()?;
        let debt = (reader.u64()?, TriggerNumber(reader.u32()?));
        let content = Reader(reader.counted()?);
        if debt == (offset, trigger) {
            learn(Change::decode(content)?);
        }
    }
    Ok(())
}

/// Hands the debt of each note that tells of an outcome to `visit`; nothing else of the notes is decoded.
pub(super) fn outcomes(body: &[u8], mut visit: impl FnMut(Offset, TriggerNumber)) -> Result<(), Corrupt> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        reader.u64()?;
        let (offset, trigger) = (reader.u64()?, TriggerNumber(reader.u32()?));
        if matches!(reader.counted()?.first(), Some(&(ATTEMPTED | DELIVERED | DROPPED | DEAD_LETTERED))) {
            visit(offset, trigger);
        }
    }
    Ok(())
}

impl Change {
    /// Whether it tells of an attempt at a delivery or of its settlement.
    pub(super) fn tells_of_outcome(&self) -> bool {
        matches!(self, Self::Attempted(_) | Self::Delivered(_) | Self::Dropped(..) | Self::DeadLettered(..))
    }

    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Attempted(attempt) => {
                into.put_u8(ATTEMPTED);
                put_attempt(into, attempt);
            }
            Self::Accepted(accepted) => {
                into.put_u8(ACCEPTED);
                put_accepted(into, accepted);
            }
            Self::Waiting { due, attempts, key } => {
                into.put_u8(if key.is_some() { WAITING_IN_ORDER } else { WAITING });
                into.put_i64(due.0);
                into.put_u32(*attempts);
                if let Some(key) = key {
                    into.put_u64(key.number());
                }
            }
            Self::Held(key) => {
                into.put_u8(HELD);
                into.put_u64(key.number());
            }
            Self::Delivered(attempt) => {
                into.put_u8(DELIVERED);
                put_option(into, attempt.as_ref(), put_attempt);
            }
            Self::Dropped(reason, attempt) => {
                into.put_u8(DROPPED);
                into.put_u8(*reason as u8);
                put_option(into, attempt.as_ref(), put_attempt);
            }
            Self::DeadLettered(attempt, id, letter) => {
                into.put_u8(DEAD_LETTERED);
                put_option(into, attempt.as_ref(), put_attempt);
                into.put_u64(id.0);
                into.put(letter);
            }
            Self::PassedOver { reason, untaken, next } => {
                into.put_u8(PASSED_OVER);
                into.put_u8(*reason as u8);
                into.put_u64(*untaken);
                into.put_u64(*next);
            }
            Self::LetterChanged(id, letter) => {
                into.put_u8(LETTER_CHANGED);
                into.put_u64(id.0);
                into.put(letter);
            }
            Self::LetterRemoved(id) => {
                into.put_u8(LETTER_REMOVED);
                into.put_u64(id.0);
            }
        }
    }

    fn decode(mut reader: Reader<'_>) -> Result<Self, Corrupt> {
        let change = match reader.u8()? {
            ATTEMPTED => Self::Attempted(take_attempt(&mut reader)?),
            WAITING => Self::Waiting { due: Timestamp(reader.i64()?), attempts: reader.u32()?, key: None },
            WAITING_IN_ORDER => Self::Waiting {
                due: Timestamp(reader.i64()?),
                attempts: reader.u32()?,
                key: Some(take_key(&mut reader)?),
            },
            ACCEPTED => Self::Accepted(take_accepted(&mut reader)?),
            HELD => Self::Held(take_key(&mut reader)?),
            DELIVERED => Self::Delivered(take_option(&mut reader, take_attempt)?),
            DROPPED => Self::Dropped(take_reason(&mut reader)?, take_option(&mut reader, take_attempt)?),
            DEAD_LETTERED => {
                let attempt = take_option(&mut reader, take_attempt)?;
                let id = DeadLetterId(reader.u64()?);
                return Ok(Self::DeadLettered(attempt, id, Bytes::copy_from_slice(reader.0)));
            }
            PASSED_OVER => Self::PassedOver {
                reason: take_reason(&mut reader)?,
                untaken: reader.u64()?,
                next: reader.u64()?,
            },
            LETTER_CHANGED => {
                let id = DeadLetterId(reader.u64()?);
                return Ok(Self::LetterChanged(id, Bytes::copy_from_slice(reader.0)));
            }
            LETTER_REMOVED => Self::LetterRemoved(DeadLetterId(reader.u64()?)),
            _ => return Err(Corrupt("a note is of an unknown kind")),
        };
        reader.end()?;
        Ok(change)
    }
}

/// A dead letter as it is stored: all but its number and its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredLetter {
    pub(super) trigger: ResourceName,
    pub(super) offset: Offset,
    /// Whether its event can be read.
    pub(super) readable: bool,
    pub(super) reason: DeadLetterReason,
    pub(super) attempts: Vec<Attempt>,
    pub(super) attempts_made: u32,
    pub(super) at: Timestamp,
    pub(super) forwarding: Forwarding,
    /// The newest redrive at which it failed again. Not written where there is none, as before redrives were known.
    pub(super) redriven: Option<RedriveId>,
    /// The outputs that the subscriber has. Not written where there are none, as before they were known.
    pub(super) accepted: Option<AcceptedOutputs>,
}

impl StoredLetter {
    pub(super) fn encode(&self) -> Bytes {
        let mut into = Vec::new();
        put_name(&mut into, &self.trigger);
        into.put_u64(self.offset);
        into.put_u8(u8::from(self.readable));
        put_code(&mut into, self.reason.code);
        into.put_counted(self.reason.detail.as_bytes());
        into.put_counted(self.reason.destination.as_bytes());
        put_status(&mut into, self.reason.status);
        put_option(&mut into, self.reason.body_excerpt.as_ref(), |into, excerpt| into.put_counted(excerpt));
        into.put_u32(u32::try_from(self.attempts.len()).unwrap_or(u32::MAX));
        for attempt in &self.attempts {
            put_attempt(&mut into, attempt);
        }
        into.put_u32(self.attempts_made);
        into.put_i64(self.at.0);
        match &self.forwarding {
            Forwarding::Kept => into.put_u8(0),
            Forwarding::Waiting { attempts, due } => {
                into.put_u8(1);
                into.put_u32(*attempts);
                into.put_i64(due.0);
            }
            Forwarding::GivenUp { attempts, detail } => {
                into.put_u8(2);
                into.put_u32(*attempts);
                into.put_counted(detail.as_bytes());
            }
        }
        if let Some(RedriveId(redrive)) = self.redriven {
            into.put_u64(redrive);
        }
        if let Some(accepted) = &self.accepted {
            put_accepted(&mut into, accepted);
        }
        into.into()
    }

    pub(super) fn decode(stored: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader(stored);
        let letter = Self {
            trigger: take_name(&mut reader)?,
            offset: reader.u64()?,
            readable: reader.u8()? != 0,
            reason: DeadLetterReason {
                code: take_code(&mut reader)?,
                detail: reader.text()?.to_owned(),
                destination: reader.text()?.to_owned(),
                status: take_status(&mut reader)?,
                body_excerpt: take_option(&mut reader, |r| Ok(Bytes::copy_from_slice(r.counted()?)))?,
            },
            attempts: {
                let count = reader.u32()?;
                (0..count).map(|_| take_attempt(&mut reader)).collect::<Result<_, _>>()?
            },
            attempts_made: reader.u32()?,
            at: Timestamp(reader.i64()?),
            forwarding: match reader.u8()? {
                0 => Forwarding::Kept,
                1 => Forwarding::Waiting { attempts: reader.u32()?, due: Timestamp(reader.i64()?) },
                2 => Forwarding::GivenUp { attempts: reader.u32()?, detail: reader.text()?.to_owned() },
                _ => return Err(Corrupt("a forwarding is of an unknown kind")),
            },
            // Which of the two follow is told by the length.
            redriven: match reader.0.len() {
                0 | ACCEPTED_BYTES => None,
                _ => Some(RedriveId(reader.u64()?)),
            },
            accepted: if reader.is_empty() { None } else { Some(take_accepted(&mut reader)?) },
        };
        reader.end()?;
        Ok(letter)
    }
}

/// How many bytes [`put_accepted`] writes.
const ACCEPTED_BYTES: usize = 12;

fn put_accepted(into: &mut Vec<u8>, accepted: &AcceptedOutputs) {
    into.put_u64(accepted.chain);
    into.put_u32(accepted.outputs);
}

fn take_accepted(reader: &mut Reader<'_>) -> Result<AcceptedOutputs, Corrupt> {
    Ok(AcceptedOutputs { chain: reader.u64()?, outputs: reader.u32()? })
}

pub(super) fn put_option<T>(into: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    into.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(into, value);
    }
}

pub(super) fn take_option<'a, T>(
    reader: &mut Reader<'a>,
    take: impl FnOnce(&mut Reader<'a>) -> Result<T, Corrupt>,
) -> Result<Option<T>, Corrupt> {
    if reader.u8()? == 0 { Ok(None) } else { take(reader).map(Some) }
}

pub(super) fn put_name(into: &mut Vec<u8>, name: &ResourceName) {
    into.put_counted(name.namespace.as_bytes());
    into.put_counted(name.name.as_bytes());
}

pub(super) fn take_name(reader: &mut Reader<'_>) -> Result<ResourceName, Corrupt> {
    Ok(ResourceName { namespace: reader.text()?.to_owned(), name: reader.text()?.to_owned() })
}

fn take_reason(reader: &mut Reader<'_>) -> Result<DropReason, Corrupt> {
    DropReason::ALL.get(usize::from(reader.u8()?)).copied().ok_or(Corrupt("a reason to drop is unknown"))
}

pub(super) fn take_key(reader: &mut Reader<'_>) -> Result<Key, Corrupt> {
    Key::from_number(reader.u64()?).ok_or(Corrupt("a key is 0"))
}

fn put_attempt(into: &mut Vec<u8>, attempt: &Attempt) {
    into.put_u32(attempt.number);
    into.put_i64(attempt.started.0);
    into.put_i64(attempt.ended.0);
    match &attempt.outcome {
        AttemptOutcome::Delivered { status } => {
            into.put_u8(0);
            put_status(into, *status);
        }
        AttemptOutcome::Failed { code, status, detail, body_excerpt } => {
            into.put_u8(1);
            put_code(into, *code);
            put_status(into, *status);
            into.put_counted(detail.as_bytes());
            put_option(into, body_excerpt.as_ref(), |into, excerpt| into.put_counted(excerpt));
        }
    }
}

fn take_attempt(reader: &mut Reader<'_>) -> Result<Attempt, Corrupt> {
    Ok(Attempt {
        number: reader.u32()?,
        started: Timestamp(reader.i64()?),
        ended: Timestamp(reader.i64()?),
        outcome: match reader.u8()? {
            0 => AttemptOutcome::Delivered { status: take_status(reader)? },
            1 => AttemptOutcome::Failed {
                code: take_code(reader)?,
                status: take_status(reader)?,
                detail: reader.text()?.to_owned(),
                body_excerpt: take_option(reader, |r| Ok(Bytes::copy_from_slice(r.counted()?)))?,
            },
            _ => return Err(Corrupt("an outcome is of an unknown kind")),
        },
    })
}

fn put_code(into: &mut Vec<u8>, code: Code) {
    into.put_counted(code.id().as_bytes());
}

/// Codes are never taken away, so one that is not known is damage, or of a version that wrote another format.
fn take_code(reader: &mut Reader<'_>) -> Result<Code, Corrupt> {
    let id = reader.text()?;
    codes::ALL.iter().copied().find(|code| code.id() == id).ok_or(Corrupt("a code is unknown"))
}

/// No status is written as 0: there is no such status.
fn put_status(into: &mut Vec<u8>, status: Option<u16>) {
    into.put_u16(status.unwrap_or(0));
}

fn take_status(reader: &mut Reader<'_>) -> Result<Option<u16>, Corrupt> {
    Ok(Some(reader.u16()?).filter(|status| *status != 0))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..30).prop_map(Bytes::from)
    }

    fn status() -> impl Strategy<Value = Option<u16>> {
        proptest::option::of(100_u16..600)
    }

    fn code() -> impl Strategy<Value = Code> {
        prop::sample::select(codes::ALL)
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        let failed = (code(), status(), ".{0,20}", proptest::option::of(bytes())).prop_map(
            |(code, status, detail, body_excerpt)| AttemptOutcome::Failed {
                code,
                status,
                detail,
                body_excerpt,
            },
        );
        let delivered = status().prop_map(|status| AttemptOutcome::Delivered { status });
        (any::<(u32, i64, i64)>(), prop_oneof![failed, delivered]).prop_map(
            |((number, started, ended), outcome)| Attempt {
                number,
                started: Timestamp(started),
                ended: Timestamp(ended),
                outcome,
            },
        )
    }

    fn name() -> impl Strategy<Value = ResourceName> {
        ("[a-z]{0,9}", "[a-z]{0,9}").prop_map(|(namespace, name)| ResourceName { namespace, name })
    }

    fn reason() -> impl Strategy<Value = DropReason> {
        prop::sample::select(&DropReason::ALL[..])
    }

    fn letter() -> impl Strategy<Value = StoredLetter> {
        let forwarding = prop_oneof![
            Just(Forwarding::Kept),
            any::<(u32, i64)>()
                .prop_map(|(attempts, due)| Forwarding::Waiting { attempts, due: Timestamp(due) }),
            (any::<u32>(), ".{0,20}").prop_map(|(attempts, detail)| Forwarding::GivenUp { attempts, detail }),
        ];
        let why = (code(), ".{0,20}", ".{0,20}", status(), proptest::option::of(bytes())).prop_map(
            |(code, detail, destination, status, body_excerpt)| DeadLetterReason {
                code,
                detail,
                destination,
                status,
                body_excerpt,
            },
        );
        let redriven = any::<Option<u64>>().prop_map(|number| number.map(RedriveId));
        let accepted = proptest::option::of(accepted());
        (name(), any::<(u64, bool, u32, i64)>(), why, vec(attempt(), 0..4), forwarding, (redriven, accepted))
            .prop_map(
                |(
                    trigger,
                    (offset, readable, attempts_made, at),
                    reason,
                    attempts,
                    forwarding,
                    (redriven, accepted),
                )| {
                    StoredLetter {
                        trigger,
                        offset,
                        readable,
                        reason,
                        attempts,
                        attempts_made,
                        at: Timestamp(at),
                        forwarding,
                        redriven,
                        accepted,
                    }
                },
            )
    }

    fn accepted() -> impl Strategy<Value = AcceptedOutputs> {
        any::<(u64, u32)>().prop_map(|(chain, outputs)| AcceptedOutputs { chain, outputs })
    }

    fn key() -> impl Strategy<Value = Key> {
        ".{0,9}".prop_map(|text| Key::of(&text))
    }

    fn change() -> impl Strategy<Value = Change> {
        let last = || proptest::option::of(attempt());
        let id = || any::<u64>().prop_map(DeadLetterId);
        prop_oneof![
            attempt().prop_map(Change::Attempted),
            (any::<(i64, u32)>(), proptest::option::of(key()))
                .prop_map(|((due, attempts), key)| Change::Waiting { due: Timestamp(due), attempts, key }),
            key().prop_map(Change::Held),
            accepted().prop_map(Change::Accepted),
            last().prop_map(Change::Delivered),
            (reason(), last()).prop_map(|(reason, attempt)| Change::Dropped(reason, attempt)),
            (last(), id(), bytes())
                .prop_map(|(attempt, id, letter)| Change::DeadLettered(attempt, id, letter)),
            (reason(), any::<(u64, u64)>()).prop_map(|(reason, (untaken, next))| Change::PassedOver {
                reason,
                untaken,
                next
            }),
            (id(), bytes()).prop_map(|(id, letter)| Change::LetterChanged(id, letter)),
            id().prop_map(Change::LetterRemoved),
        ]
    }

    /// Each kind of note as the first version that knew it wrote it.
    #[test]
    fn notes_of_earlier_versions_are_read() {
        let note = |content: &[u8]| {
            let mut body = Vec::new();
            body.put_u64(1);
            body.put_u64(2);
            body.put_u32(3);
            body.put_counted(content);
            body
        };
        for (content, change) in [
            (
                &[2, 5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0][..],
                Change::Waiting { due: Timestamp(5), attempts: 4, key: None },
            ),
            (&[3, 0], Change::Delivered(None)),
            (&[4, 7, 0], Change::Dropped(DropReason::Failed, None)),
            (
                &[5, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 2],
                Change::DeadLettered(None, DeadLetterId(9), Bytes::from_static(&[1, 2])),
            ),
            (&[8, 9, 0, 0, 0, 0, 0, 0, 0], Change::LetterRemoved(DeadLetterId(9))),
            (
                &[11, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
                Change::Accepted(AcceptedOutputs { chain: 1, outputs: 2 }),
            ),
        ] {
            let notes = decode_all(&note(content)).expect("it is read");
            assert_eq!(notes, [Note { sequence: 1, offset: 2, trigger: TriggerNumber(3), change }]);
        }
    }

    proptest! {
        #[test]
        fn notes_come_back(all in vec((any::<(u64, u64, u32)>(), change()), 0..8)) {
            let mut body = Vec::new();
            let mut notes = Vec::new();
            for ((sequence, offset, trigger), change) in all {
                notes.push(Note { sequence, offset, trigger: TriggerNumber(trigger), change });
                notes[notes.len() - 1].encode(&mut body);
            }
            prop_assert_eq!(decode_all(&body), Ok(notes));
        }

        /// Before redrives were known a letter ended with its forwarding.
        #[test]
        fn letters_of_before_redrives_are_read(letter in letter(), number: u64) {
            let before = StoredLetter { redriven: None, accepted: None, ..letter };
            let now = StoredLetter { redriven: Some(RedriveId(number)), ..before.clone() };
            let (before_stored, stored) = (before.encode(), now.encode());
            prop_assert_eq!(stored.strip_suffix(&number.to_le_bytes()[..]), Some(&before_stored[..]));
            prop_assert_eq!(StoredLetter::decode(&before_stored), Ok(before));
            prop_assert_eq!(StoredLetter::decode(&stored), Ok(now));
        }

        /// Before outputs that subscribers have were known a letter ended with its redrive, where it had one.
        #[test]
        fn letters_of_before_accepted_outputs_are_read(letter in letter(), accepted in accepted()) {
            let before = StoredLetter { accepted: None, ..letter };
            let now = StoredLetter { accepted: Some(accepted), ..before.clone() };
            let (before_stored, stored) = (before.encode(), now.encode());
            prop_assert!(stored.starts_with(&before_stored));
            prop_assert_eq!(stored.len(), before_stored.len() + ACCEPTED_BYTES);
            prop_assert_eq!(StoredLetter::decode(&before_stored), Ok(before));
            prop_assert_eq!(StoredLetter::decode(&stored), Ok(now));
        }

        #[test]
        fn letters_come_back(letter in letter()) {
            prop_assert_eq!(StoredLetter::decode(&letter.encode()), Ok(letter));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (decode_all(&bytes), StoredLetter::decode(&bytes));
        }
    }
}
