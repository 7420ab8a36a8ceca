//! How requests were answered, by status.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// The statuses that ingress answers with. Another one is counted as the last.
const STATUSES: [u16; 15] = [200, 202, 204, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503, 507];

/// Counts answers. Refusals never reach the engine, so it cannot count them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    answers: [AtomicU64; STATUSES.len()],
    other: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, status: StatusCode) {
        let counter = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .map_or(&self.other, |index| &self.answers[index]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "# HELP waypost_ingress_requests Requests that ingress answered, by status.\n\
             # TYPE waypost_ingress_requests counter\n",
        );
        let known = STATUSES.iter().map(u16::to_string).zip(&self.answers);
        for (status, counter) in known.chain([("other".to_owned(), &self.other)]) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                writeln!(text, "waypost_ingress_requests_total{{code=\"{status}\"}} {count}")
                    .expect("a String takes everything");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_status() {
        let counters = Counters::default();
        for status in [202, 202, 507, 418] {
            counters.count(StatusCode::from_u16(status).unwrap());
        }
        let text = counters.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "waypost_ingress_requests_total{code=\"202\"} 2",
                "waypost_ingress_requests_total{code=\"507\"} 1",
                "waypost_ingress_requests_total{code=\"other\"} 1",
            ]
        );
    }
}
