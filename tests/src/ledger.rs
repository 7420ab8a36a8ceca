//! Promise P2: `matched = delivered + deadLettered + dropped + pending`, in every answer.

use serde_json::Value;

/// Checks the equation for every trigger and every replay of a status, and that what is in flight is part of what is
/// pending.
///
/// # Panics
/// If it does not hold, or if a counter is missing.
pub fn ledger_holds(status: &Value) {
    let triggers =
        status["triggers"].as_array().unwrap_or_else(|| panic!("a status without triggers: {status}"));
    // A replay has a ledger of its own.
    let replays =
        status["replays"].as_array().unwrap_or_else(|| panic!("a status without replays: {status}"));
    for trigger in triggers.iter().chain(replays) {
        let [matched, delivered, dead_lettered, dropped, pending, in_flight] =
            ["matched", "delivered", "deadLettered", "dropped", "pending", "inFlight"]
                .map(|name| count(trigger, name));
        assert_eq!(
            matched,
            delivered + dead_lettered + dropped + pending,
            "the ledger does not add up: {trigger}"
        );
        assert!(in_flight <= pending, "more is in flight than is pending: {trigger}");
    }
}

/// A counter of a trigger of the status.
///
/// # Panics
/// If it is not there.
pub fn count(trigger: &Value, name: &str) -> u64 {
    trigger[name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {trigger}"))
}
