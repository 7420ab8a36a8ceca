//! File descriptors. None may be free for a while, because connections have them all, which says nothing about the disk.

use std::io;
use std::time::{Duration, Instant};

use waypost_core::error::is_out_of_files;

/// How long one is waited for. After that what needs it fails, as with a disk that does. One such wait fits into the time that
/// a process has to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until the next try.
const PAUSE: Duration = Duration::from_millis(20);
/// A wait as long as this is told.
const NOTABLE: Duration = Duration::from_secs(1);

/// Does what needs a file descriptor, again and again for a while where this process or the machine has none left. It
/// blocks the thread for as long: it is for the threads that write logs.
pub(super) fn with_descriptor<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    within(PATIENCE, open)
}

fn within<T>(patience: Duration, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut opened = open();
    let mut told = false;
    let began = Instant::now();
    while opened.as_ref().is_err_and(is_out_of_files) && began.elapsed() < patience {
        if !told && began.elapsed() >= NOTABLE {
            told = true;
            tracing::warn!("no file descriptor is free for the log; raise the limit of open files");
        }
        #[expect(clippy::disallowed_methods, reason = "the threads that write logs may block")]
        std::thread::sleep(PAUSE);
        opened = open();
    }
    opened
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn failing(times: usize, errno: Errno) -> (impl FnMut() -> io::Result<usize>, impl Fn() -> usize) {
        let tried = std::rc::Rc::new(std::cell::Cell::new(0));
        let told = std::rc::Rc::clone(&tried);
        let open = move || {
            tried.set(tried.get() + 1);
            if tried.get() > times { Ok(tried.get()) } else { Err(errno.into()) }
        };
        (open, move || told.get())
    }

    #[test]
    fn a_descriptor_is_waited_for() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            let (open, _) = failing(3, errno);
            assert_eq!(within(Duration::from_secs(600), open).expect("it comes"), 4);
        }
    }

    #[test]
    fn it_is_not_waited_for_for_ever() {
        let (open, tried) = failing(usize::MAX, Errno::MFILE);
        let error = within(Duration::ZERO, open).expect_err("none comes");
        assert_eq!((Errno::from_io_error(&error), tried()), (Some(Errno::MFILE), 1));
    }

    #[test]
    fn another_failure_is_told_at_once() {
        let (open, tried) = failing(1, Errno::NOENT);
        assert_eq!(with_descriptor(open).expect_err("it is not there").kind(), io::ErrorKind::NotFound);
        assert_eq!(tried(), 1);
    }
}
