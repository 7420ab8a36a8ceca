//! A future beside one that is polled far more often: a timer or a stop beside the requests of a connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only where it was woken: every other poll costs two comparisons, and none of what the future
/// itself would do to find that nothing came (registering its waker with a timer or a lock that others share).
///
/// Once it is ready it must be given another future before it is polled again. Cancel safety is that of the future: this
/// adds no state that a drop of `&mut Aside` could lose.
pub struct Aside<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// The bell as a waker, made once.
    ring: Waker,
    /// The task that is woken, so that a poll by the same need not tell the bell again.
    task: Option<Waker>,
}

/// What the future wakes.
#[derive(Debug, Default)]
struct Bell {
    /// Whether the future is to be polled.
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F> Aside<F> {
    /// Nothing is polled yet.
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::default() });
        Self { future: Box::pin(future), ring: Waker::from(Arc::clone(&bell)), bell, task: None }
    }

    /// Puts another future in place of this one.
    pub fn replace(&mut self, future: F) {
        self.future.set(future);
        self.bell.rung.store(true, Ordering::Release);
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            this.task = Some(context.waker().clone());
            // Before the look at `rung`: a future that is woken from here on wakes this task, and one that was woken before
            // has rung.
            this.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&this.task);
        }
        // Taken back before the poll: what wakes it meanwhile has it polled once more.
        if !this.bell.rung.load(Ordering::Acquire) || !this.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.ring))
    }
}

impl<F> fmt::Debug for Aside<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("bell", &self.bell).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// What a future that ends at the third poll saw.
    #[derive(Default)]
    struct Seen {
        polls: usize,
        waker: Option<Waker>,
    }

    fn third(seen: &Mutex<Seen>) -> impl Future<Output = &'static str> {
        poll_fn(|context| {
            let mut seen = seen.lock().unwrap();
            seen.polls += 1;
            seen.waker = Some(context.waker().clone());
            if seen.polls < 3 { Poll::Pending } else { Poll::Ready("came") }
        })
    }

    fn poll<F: Future>(aside: &mut Aside<F>, task: &Arc<Task>) -> Poll<F::Output> {
        Pin::new(aside).poll(&mut Context::from_waker(&Waker::from(Arc::clone(task))))
    }

    #[test]
    fn it_is_polled_at_first_and_then_only_where_it_was_woken() {
        let (seen, task) = (Mutex::default(), Arc::<Task>::default());
        let mut aside = Aside::new(third(&seen));
        for _ in 0..10 {
            assert!(poll(&mut aside, &task).is_pending());
        }
        assert_eq!(seen.lock().unwrap().polls, 1);
        let ring = seen.lock().unwrap().waker.take().unwrap();
        ring.wake_by_ref();
        ring.wake();
        assert_eq!(task.woken(), 2);
        for _ in 0..10 {
            assert!(poll(&mut aside, &task).is_pending());
        }
        assert_eq!(seen.lock().unwrap().polls, 2);
        seen.lock().unwrap().waker.take().unwrap().wake();
        assert_eq!(poll(&mut aside, &task), Poll::Ready("came"));
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (seen, first, last) = (Mutex::default(), Arc::<Task>::default(), Arc::<Task>::default());
        let mut aside = Aside::new(third(&seen));
        assert!(poll(&mut aside, &first).is_pending());
        assert!(poll(&mut aside, &last).is_pending());
        seen.lock().unwrap().waker.take().unwrap().wake();
        assert_eq!((first.woken(), last.woken()), (0, 1));
    }

    #[test]
    fn one_that_wakes_itself_while_it_is_polled_is_polled_again() {
        let task = Arc::<Task>::default();
        let mut polls = 0;
        let mut aside = Aside::new(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        }));
        assert!(poll(&mut aside, &task).is_pending());
        assert!(poll(&mut aside, &task).is_pending());
        assert!(poll(&mut aside, &task).is_ready());
        assert_eq!(task.woken(), 3);
    }

    #[test]
    fn another_in_its_place_is_polled_without_being_woken() {
        let task = Arc::<Task>::default();
        let mut aside = Aside::new(std::future::ready(1));
        assert_eq!(poll(&mut aside, &task), Poll::Ready(1));
        assert!(poll(&mut aside, &task).is_pending());
        aside.replace(std::future::ready(2));
        assert_eq!(poll(&mut aside, &task), Poll::Ready(2));
    }
}
