//! The way of a batch: into the queue, with others into one frame, onto the disk, and then to whoever waits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;
use waypost_core::prefetch::{TOGETHER, prefetch};

use crate::clock::Timestamp;
use crate::commit::{Answer, Commit, Committed};
use crate::embedded::batch::{RECORD_OVERHEAD, put_checkpoint, put_record};
use crate::embedded::disk::reserve::is_full;
use crate::embedded::frame::{FILE_HEADER, FRAME_HEADER, MAX_BODY};
use crate::embedded::ids;
use crate::embedded::log::{BrokerLog, Live, PARTITION};
use crate::embedded::segment::{LARGEST, SMALLEST, Segment, Written, footer_size};
use crate::error::{AppendError, CommitError};
use crate::record::{Batch, Charge, Checkpoint, Entry, Hold, Position, Record};

/// The bytes that may wait for the disk in one log.
const QUEUE_BYTES: u64 = 64 * 1024 * 1024;
/// The batches that may wait for the disk in one log.
const QUEUE_BATCHES: usize = 65_536;
/// The bytes of a frame, unless one batch is larger.
const FRAME_BYTES: u64 = 2 * 1024 * 1024;
/// The batches that are written in one frame.
const FRAME_BATCHES: usize = 4096;
/// How many segments there are at least when the limit is met, so that giving one up is a small step.
const SEGMENTS_IN_LIMIT: u64 = 64;
/// Frames of so many bytes are written past the memory of the system while all who read keep up: copying them there would
/// cost as much as making them. For smaller ones, each with two writes more for its ends, it made no difference when measured.
const PAST_CACHE: usize = 256 * 1024;
/// A buffer that grew beyond this is not kept. One frame of the usual size fits.
const BUFFER_KEPT: usize = 4 * 1024 * 1024;

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Queued>,
    bytes: u64,
    /// Whether a writer has the log in its list.
    scheduled: bool,
}

#[derive(Debug)]
struct Queued {
    records: SmallVec<[Record; 1]>,
    /// One for each record, of its source and id; kept when the records have been taken out.
    hashes: SmallVec<[u64; 1]>,
    checkpoint: Option<Checkpoint>,
    arrived: Timestamp,
    /// The share of the limit.
    charge: Charge,
    /// Whether the reserve is for it.
    from_reserve: bool,
    /// Whether whoever waits for it may be left to tell others.
    only_waits: bool,
    answer: Answer,
    /// Dropped when the log no longer holds the batch.
    _hold: Option<Hold>,
}

/// What a writer uses again and again: new memory for each frame would cost more than the frame.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    frame: Vec<u8>,
    /// Empty between frames.
    batches: Vec<Queued>,
}

/// Why a frame was not written.
enum Failure {
    /// No room for a segment: nothing was written, and later there may be room.
    NoRoom(String),
    /// Nobody knows what is on the disk now.
    Broken(String),
}

fn bytes_of(record: &Record) -> u64 {
    let headers: usize =
        record.metadata.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    let unknown: usize = record.metadata.unknown.iter().map(|(_, value)| value.len() + 6).sum();
    let cause = record
        .metadata
        .cause
        .as_ref()
        .map_or(0, |cause| cause.broker.namespace.len() + cause.broker.name.len() + 32);
    (RECORD_OVERHEAD + 16 + headers + unknown + cause + record.event.size()) as u64
}

impl BrokerLog {
    /// Takes a batch into the queue, or nothing of it.
    pub(super) fn enqueue(&self, batch: &mut Batch) -> Result<Commit, AppendError> {
        self.check_append()?;
        let nothing = batch.records.is_empty() && batch.checkpoint.is_none();
        let Some(log) = self.me.upgrade().filter(|_| !nothing) else {
            return Ok(Commit::done(Ok(Committed { first: self.position(self.end()), count: 0 })));
        };
        let checkpoint = batch.checkpoint.as_ref().map_or(0, |checkpoint| {
            checkpoint.source.namespace.len() + checkpoint.source.name.len() + checkpoint.value.len() + 13
        });
        let records: u64 = batch.records.iter().map(bytes_of).sum();
        let bytes = records + (checkpoint + FRAME_HEADER) as u64;
        let charge = self.shared.admit(bytes, batch.from_reserve)?;
        // Here, where what was just made is near at hand: for the writer it may be far away.
        let hash = |record: &Record| ids::hash(record.event.source(), record.event.id());
        let hashes = batch.records.iter().map(hash).collect();
        let (answer, commit) = Answer::channel();
        let mut queue = self.queue.lock();
        // Again, now that `stop` waits for this lock.
        self.check_append()?;
        let full = queue.bytes + bytes > QUEUE_BYTES || queue.batches.len() >= QUEUE_BATCHES;
        if full && !queue.batches.is_empty() {
            return Err(AppendError::Busy);
        }
        let batch = std::mem::take(batch);
        queue.bytes += bytes;
        queue.batches.push_back(Queued {
            hashes,
            records: batch.records,
            checkpoint: batch.checkpoint,
            arrived: self.shared.clock.now(),
            charge,
            from_reserve: batch.from_reserve,
            only_waits: batch.only_waits,
            answer,
            _hold: batch.hold,
        });
        let schedule = !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if schedule {
            self.shared.work.schedule(log);
        }
        Ok(commit)
    }

    fn check_append(&self) -> Result<(), AppendError> {
        if self.books.closed() {
            return Err(AppendError::Closed);
        }
        self.shared.poison.reason().map_or(Ok(()), |reason| Err(AppendError::Failed { reason }))
    }

    /// Whether nothing waits for the disk, nor is on its way.
    pub(super) fn drained(&self) -> bool {
        !self.queue.lock().scheduled
    }

    /// Writes what waits, as much as goes into one frame, which is put together in `scratch`. True where more waits.
    pub(crate) fn write_some(&self, scratch: &mut Scratch) -> bool {
        let _writing = self.writing.lock();
        self.queue.lock().take_frame(&mut scratch.batches);
        if !scratch.batches.is_empty() {
            self.write_batches(scratch);
        }
        let mut queue = self.queue.lock();
        queue.scheduled = !queue.batches.is_empty();
        let more = queue.scheduled;
        drop(queue);
        if !more {
            // Whoever closes the log waits for this.
            self.grown.notify_waiters();
        }
        more
    }

    fn write_batches(&self, scratch: &mut Scratch) {
        let Scratch { frame, batches } = scratch;
        if let Some(reason) = self.shared.poison.reason() {
            return refuse(batches, &reason, false);
        }
        let bytes = batches.iter().map(|batch| batch.charge.bytes()).sum();
        let from_reserve = batches.iter().all(|batch| batch.from_reserve);
        match self.write_frame(frame, batches, bytes, from_reserve) {
            Ok((segment, written)) => {
                if !from_reserve {
                    self.refusing.store(false, Ordering::Relaxed);
                }
                self.show(&segment, &written, batches);
            }
            Err(Failure::NoRoom(reason)) => {
                if !self.refusing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(log = %self.name.name, reason, "there is no room for another segment");
                }
                // Replies and dead letters go on where there is room kept for them.
                let (kept, mut others): (Vec<_>, Vec<_>) =
                    batches.drain(..).partition(|batch| batch.from_reserve && !from_reserve);
                refuse(&mut others, &reason, true);
                if !kept.is_empty() {
                    *batches = kept;
                    self.write_batches(scratch);
                }
            }
            Err(Failure::Broken(reason)) => {
                self.shared.poison.set(&reason);
                refuse(batches, &reason, false);
                self.grown.notify_waiters();
            }
        }
    }

    /// Writes one frame and syncs it.
    fn write_frame(
        &self,
        buffer: &mut Vec<u8>,
        batches: &[Queued],
        bytes: u64,
        from_reserve: bool,
    ) -> Result<(Arc<Segment>, Written), Failure> {
        if bytes > MAX_BODY as u64 {
            // Nobody could read it again.
            let reason =
                format!("a batch of {bytes} bytes is larger than the {MAX_BODY} that can be written at once");
            return Err(Failure::NoRoom(reason));
        }
        self.shared.make_room(self);
        let segment = self.segment_for(bytes, from_reserve)?;
        let first = self.end();
        let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
        let count =
            u32::try_from(count).map_err(|_| Failure::NoRoom("a batch has too many records".to_owned()))?;
        let mut written = Written {
            first,
            end: first + u64::from(count),
            bytes: 0,
            oldest: segment.newest(),
            newest: segment.newest(),
            hashes: Vec::with_capacity(count as usize),
        };
        if buffer.capacity() > BUFFER_KEPT {
            *buffer = Vec::new();
        }
        let room = usize::try_from(bytes).expect("it is at most MAX_BODY");
        let start =
            segment.encode(buffer, room, (first, count), |into| put_batches(into, batches, &mut written));
        let frame = &buffer[start..];
        written.bytes = frame.len() as u64;
        let past_cache = frame.len() >= PAST_CACHE && !self.read_behind.load(Ordering::Relaxed);
        segment.write(frame, past_cache).map_err(|error| {
            Failure::Broken(format!("{} cannot be written or synced: {error}", segment.path().display()))
        })?;
        Ok((segment, written))
    }

    /// The segment that takes so many more bytes: the open one, or a new one after it.
    fn segment_for(&self, bytes: u64, from_reserve: bool) -> Result<Arc<Segment>, Failure> {
        let last = self.segments.read().last().map(|live| Arc::clone(&live.segment));
        let mut capacity = SMALLEST;
        let mut newest = Timestamp(i64::MIN);
        if let Some(last) = last {
            if last.has_room(bytes) {
                return Ok(last);
            }
            newest = last.newest();
            // A sealed one says how long it is, not how long it might have been.
            capacity = last.capacity().next_power_of_two().saturating_mul(2);
            self.seal(&last).map_err(|error| {
                Failure::Broken(format!("{} cannot be sealed: {error}", last.path().display()))
            })?;
        }
        let share = (self.shared.limit / SEGMENTS_IN_LIMIT).next_power_of_two();
        let needed = bytes + FILE_HEADER as u64 + footer_size(2);
        let capacity = capacity.min(share.clamp(SMALLEST, LARGEST)).max(needed);
        let mut made = self.make_segment(capacity, newest);
        if made.as_ref().is_err_and(is_full) && self.reclaimable() > 0 {
            self.release_under_pressure(capacity, true);
            made = self.make_segment(capacity, newest);
        }
        if made.as_ref().is_err_and(is_full) {
            let capacity = needed.max(SMALLEST);
            made = if from_reserve {
                Segment::create(&self.shared.disk, &self.directory, self.end(), capacity, newest)
            } else {
                self.make_segment(capacity, newest)
            };
        }
        let segment = Arc::new(made.map_err(|error| self.no_segment(needed, &error))?);
        self.segments.write().push(Live { segment: Arc::clone(&segment), bytes: AtomicU64::new(0) });
        Ok(segment)
    }

    fn no_segment(&self, capacity: u64, error: &io::Error) -> Failure {
        let reason =
            format!("no segment of {capacity} bytes can be made in {}: {error}", self.directory.display());
        if is_full(error) { Failure::NoRoom(reason) } else { Failure::Broken(reason) }
    }

    /// Makes a segment without using the reserve. There is no room for one while the reserve is given up.
    fn make_segment(&self, capacity: u64, newest: Timestamp) -> io::Result<Segment> {
        if !self.shared.reserve_is_held() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Segment::create(&self.shared.plain_disk, &self.directory, self.end(), capacity, newest)
    }

    /// Seals a segment. Only the writer does this.
    pub(super) fn seal(&self, segment: &Segment) -> io::Result<()> {
        if segment.sealed() {
            return Ok(());
        }
        segment.seal()?;
        // The index of ids is written with the next flush.
        self.books.mark();
        self.shared.disk.sync_directory(&self.directory)
    }

    /// Shows what was synced, and tells those who wait.
    fn show(&self, segment: &Segment, written: &Written, batches: &mut Vec<Queued>) {
        self.shared.take(written.bytes);
        if let Some(live) = self.segments.read().last() {
            live.bytes.fetch_add(written.bytes, Ordering::Relaxed);
        }
        segment.publish(written);
        let mut offset = written.first;
        let mut arrived = Timestamp(i64::MIN);
        let mut entries = Vec::with_capacity(written.hashes.len());
        for batch in batches.iter_mut() {
            arrived = arrived.max(batch.arrived).max(written.oldest);
            for record in std::mem::take(&mut batch.records) {
                let position = Position { partition: PARTITION, offset };
                entries.push(Arc::new(Entry::new(position, arrived, record, None)));
                offset += 1;
            }
            if let Some(checkpoint) = batch.checkpoint.take() {
                self.sources.lock().put(checkpoint);
                self.books.mark();
            }
        }
        self.shared.ring.show(&self.tail, entries);
        self.end.store(written.end, Ordering::Release);
        self.grown.notify_waiters();
        let mut offset = written.first;
        let mut together = Vec::with_capacity(batches.len());
        for batch in batches.drain(..) {
            let Queued { hashes, answer, charge, only_waits, _hold, .. } = batch;
            drop((charge, _hold));
            let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
            let committed = Committed { first: Position { partition: PARTITION, offset }, count };
            offset += u64::from(count);
            if only_waits {
                together.push((answer, committed));
            } else {
                answer.send(Ok(committed));
            }
        }
        Answer::send_together(together);
    }

    /// Nobody knows what is on the disk now: nothing is acknowledged any more.
    pub(crate) fn poison(&self, reason: &str) {
        self.shared.poison.set(reason);
    }

    /// Takes no more batches, and tells those who wait that theirs are not durable: nobody writes any more.
    pub(crate) fn abandon(&self) {
        self.books.close();
        let mut queue = self.queue.lock();
        let mut batches = queue.batches.drain(..).collect();
        queue.bytes = 0;
        queue.scheduled = false;
        drop(queue);
        refuse(&mut batches, "the log is closed: the process is stopping", false);
        self.grown.notify_waiters();
    }

    /// Takes no more batches, waits for those that were taken, and writes everything out.
    pub(crate) async fn stop(&self) {
        self.books.close();
        // Whoever enqueues now holds this lock and is done when we get it; whoever comes later sees the mark.
        drop(self.queue.lock());
        loop {
            let written = self.grown.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            if self.drained() || self.shared.poison.reason().is_some() {
                break;
            }
            written.await;
        }
        self.grown.notify_waiters();
        if let Some(log) = self.me.upgrade() {
            let _ = tokio::task::spawn_blocking(move || {
                log.books.mark();
                log.all_written.store(log.drained(), Ordering::Relaxed);
                // What fails poisons the store, which is where everyone sees it.
                let _ = log.shared.round(true);
            })
            .await;
        }
    }
}

impl Queue {
    /// Takes out what goes into one frame.
    fn take_frame(&mut self, into: &mut Vec<Queued>) {
        let mut bytes = 0;
        let mut count = 0;
        for batch in self.batches.iter().take(FRAME_BATCHES) {
            bytes += batch.charge.bytes();
            if count > 0 && bytes > FRAME_BYTES {
                break;
            }
            count += 1;
        }
        into.extend(self.batches.drain(..count));
        let gone: u64 = into.iter().map(|batch| batch.charge.bytes()).sum();
        self.bytes = self.bytes.saturating_sub(gone);
    }
}

/// Appends the records and checkpoints of batches, and notes what the segment has to know of them.
fn put_batches(into: &mut Vec<u8>, batches: &[Queued], written: &mut Written) {
    // Threads that may have run on other processors made them.
    let mut ahead = batches.iter().flat_map(|batch| &batch.records).map(|record| &**record.event.packed());
    let mut offset = written.first;
    for batch in batches {
        written.newest = written.newest.max(batch.arrived);
        written.hashes.extend_from_slice(&batch.hashes);
        for record in &batch.records {
            let number = offset - written.first;
            if number == 0 {
                written.oldest = written.newest;
            }
            if number.is_multiple_of(TOGETHER as u64) {
                prefetch(ahead.by_ref().take(TOGETHER));
            }
            put_record(into, offset, written.newest, record);
            offset += 1;
        }
        if let Some(checkpoint) = &batch.checkpoint {
            put_checkpoint(into, checkpoint);
        }
    }
}

/// Tells those who wait that their batches are not durable.
fn refuse(batches: &mut Vec<Queued>, reason: &str, full: bool) {
    for batch in batches.drain(..) {
        let Queued { answer, charge, _hold, .. } = batch;
        drop((charge, _hold));
        answer.send(Err(CommitError { reason: reason.to_owned(), full }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use waypost_core::Event;
    use waypost_core::manifest::ResourceName;

    use crate::Clock;
    use crate::embedded::disk::simulated::SimulatedDisk;
    use crate::embedded::{EmbeddedOptions, EmbeddedStore, Retention};
    use crate::log::Records;
    use crate::record::{Batch, Metadata, Record};

    /// What comes while a frame is on its way is in the next one, all of it.
    #[tokio::test]
    async fn batches_that_wait_share_a_frame() {
        const BATCHES: u64 = 200;
        let options = EmbeddedOptions { limit: Some(1 << 30), ..EmbeddedOptions::new("/data") };
        let store = EmbeddedStore::open_on(Arc::new(SimulatedDisk::new()), options, Clock::system())
            .expect("the disk works");
        let name = ResourceName::new("n", "b");
        let retention = Retention { age: Duration::MAX, size: u64::MAX };
        store.open_log(&name, retention).expect("the disk works");
        let log = store.shared.logs.lock().get(&name).cloned().expect("it is open");
        let mut commits = Vec::new();
        {
            let _writing = log.writing.lock();
            for id in 0..BATCHES {
                let event = Event::builder(id.to_string(), "/s", "t").data(vec![b'x'; 100]).build();
                let record = Record { metadata: Metadata::default(), event: event.expect("a valid event") };
                commits.push(log.append(Batch::of([record])).expect("there is room"));
            }
        }
        for (id, commit) in (0..).zip(commits) {
            assert_eq!(commit.await.expect("it is durable").first.offset, id);
        }
        let frames: u64 = log.segments.read().iter().map(|live| live.segment.frames()).sum();
        assert_eq!(frames, 1);
    }
}
