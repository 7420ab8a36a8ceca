//! Storage that is full, as far as that can be had on every machine. What needs root or strace is a command of
//! `waypost-crash`: see `docs/testing.md`.

use crate::crash::crash;

#[test]
fn a_full_log_refuses_events_and_takes_them_again_when_there_is_room() {
    crash(&["full"]);
}
