//! The owner of the engine's tasks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a stop that takes long names what it waits for.
const REPORT_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// Owns a group of tasks: each is counted by kind, a panic is seen and told, and all can be waited for.
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Inner>);

struct Inner {
    /// Where the tasks run, whoever starts them: ingress has a runtime of its own.
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Mutex<Vec<(&'static str, usize)>>,
    panics: AtomicU64,
}

impl Tasks {
    /// An empty group, whose tasks will run in the runtime that this is called in.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            runtime: Handle::current(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            running: Mutex::new(Vec::new()),
            panics: AtomicU64::new(0),
        }))
    }

    /// Cancelled when the group stops. Tasks end at their next point where that loses nothing.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Starts a task of the group. `kind` names it in the shutdown report.
    pub(crate) fn spawn(&self, kind: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::start(&self.0, kind);
        let task = async move {
            // Moved in, so that it is dropped with the task however the task ends.
            let _running = running;
            task.await;
        };
        self.0.tracker.spawn_on(task, &self.0.runtime);
    }

    /// Tells the tasks to stop, waits until they have or the deadline passes, and returns how many of which
    /// kind have not.
    pub(crate) async fn stop_until(&self, deadline: Instant) -> Vec<String> {
        self.0.stop.cancel();
        self.0.tracker.close();
        loop {
            let patience = deadline.min(Instant::now() + REPORT_EVERY);
            if tokio::time::timeout_at(patience, self.0.tracker.wait()).await.is_ok() {
                return Vec::new();
            }
            let left = self.left();
            if Instant::now() >= deadline {
                return left;
            }
            tracing::info!("still waiting for {}", left.join(", "));
        }
    }

    /// How many of which kind run.
    fn left(&self) -> Vec<String> {
        let running = self.0.running.lock();
        running
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect()
    }

    /// How many tasks of the group have panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &*self.0.running.lock()).finish_non_exhaustive()
    }
}

/// Counts one running task; the kinds are few, so a list serves.
struct Running {
    tasks: Arc<Inner>,
    kind: &'static str,
}

impl Running {
    fn start(tasks: &Arc<Inner>, kind: &'static str) -> Self {
        let mut running = tasks.running.lock();
        match running.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, count)) => *count += 1,
            None => running.push((kind, 1)),
        }
        Self { tasks: Arc::clone(tasks), kind }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((_, count)) = self.tasks.running.lock().iter_mut().find(|(name, _)| *name == self.kind) {
            *count -= 1;
        }
        if std::thread::panicking() {
            self.tasks.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.kind, "a task panicked; please report this with the lines above");
        }
    }
}

/// The result of a future, or none where it panicked. For what calls a component: a panic is then a failure like any
/// other, and not the end of the task. Cancel-safe where the future is.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_the_laggards() {
        let tasks = Tasks::new();
        let stop = tasks.stop().clone();
        tasks.spawn("polite task", async move { stop.cancelled().await });
        tasks.spawn("stubborn task", std::future::pending());
        let left = tasks.stop_until(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(left, ["1 stubborn task"]);
    }

    #[tokio::test]
    async fn counts_a_panic_and_goes_on() {
        let tasks = Tasks::new();
        tasks.spawn("broken task", async { panic!("on purpose") });
        assert!(tasks.stop_until(Instant::now() + Duration::from_secs(5)).await.is_empty());
        assert_eq!(tasks.panics(), 1);
    }
}
