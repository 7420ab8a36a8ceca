//! What is written down of a set of triggers, so that a later process matches as this one did (P5).

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use waypost_core::filter::Filter;
use waypost_core::manifest::{Deduplication, read_filter};
use waypost_log::{Offset, PlanRecord, PlanVersion, TriggerNumber};

/// The format of what is written: filters.
const FORMAT: u32 = 1;
/// The format with a rule for repeats, which a version that knows the first alone must not pass over.
const WITH_DEDUPLICATION: u32 = 2;

/// A recorded set of triggers, read.
#[derive(Debug)]
pub(crate) struct RecordedPlan {
    pub(crate) version: PlanVersion,
    /// For each partition the first offset that it decides.
    pub(crate) effective: Vec<Offset>,
    pub(crate) filters: Vec<(TriggerNumber, Filter)>,
    pub(crate) deduplication: Option<Deduplication>,
}

/// Why a recorded set of triggers cannot be matched by: a guess would deliver what nobody asked for, or lose what
/// somebody is owed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "plan {version}, by which events of its log are to be matched, cannot be read by this version: {reason}; use the \
     version that wrote it, or a later one"
)]
pub(crate) struct UnreadableRecord {
    version: u64,
    reason: String,
}

#[derive(Serialize)]
struct Written<'f> {
    format: u32,
    filters: Vec<(u32, &'f Filter)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deduplication: Option<Rule>,
}

#[derive(Deserialize)]
struct Read {
    filters: Vec<(u32, serde_json::Value)>,
    deduplication: Option<Rule>,
}

#[derive(Serialize, Deserialize)]
struct Rule {
    window: Duration,
    events: u64,
}

impl Rule {
    fn read(self) -> Deduplication {
        let Self { window, events } = self;
        Deduplication { window, events }
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The text of a set of triggers. Equal sets in the same order, with equal rules, have equal texts.
pub(crate) fn write<'f>(
    filters: impl IntoIterator<Item = (TriggerNumber, &'f Filter)>,
    deduplication: Option<Deduplication>,
) -> Bytes {
    let filters = filters.into_iter().map(|(number, filter)| (number.0, filter)).collect();
    let format = if deduplication.is_some() { WITH_DEDUPLICATION } else { FORMAT };
    let deduplication = deduplication.map(|Deduplication { window, events }| Rule { window, events });
    let text = serde_json::to_vec(&Written { format, filters, deduplication });
    Bytes::from(text.expect("filters are maps and strings"))
}

/// Reads a set of triggers as it was recorded.
pub(crate) fn read(record: &PlanRecord) -> Result<RecordedPlan, UnreadableRecord> {
    let unreadable = |reason: String| UnreadableRecord { version: record.version.0, reason };
    let Format { format } =
        serde_json::from_slice(&record.body).map_err(|error| unreadable(error.to_string()))?;
    if ![FORMAT, WITH_DEDUPLICATION].contains(&format) {
        return Err(unreadable(format!(
            "it is of format {format}, and this version knows {FORMAT} and {WITH_DEDUPLICATION}"
        )));
    }
    let Read { filters, deduplication } =
        serde_json::from_slice(&record.body).map_err(|error| unreadable(error.to_string()))?;
    let read = |(number, filter)| {
        let filter = read_filter(filter).map_err(|error| unreadable(error.to_string()))?;
        Ok((TriggerNumber(number), filter))
    };
    let filters = filters.into_iter().map(read).collect::<Result<_, _>>()?;
    let deduplication = deduplication.map(Rule::read);
    Ok(RecordedPlan { version: record.version, effective: record.effective.clone(), filters, deduplication })
}

/// Which events a recorded set takes for repeats.
pub(crate) fn deduplication(record: &PlanRecord) -> Result<Option<Deduplication>, UnreadableRecord> {
    // The format stands first, and tells without a look at a hundred thousand filters.
    if record.body.starts_with(format!(r#"{{"format":{FORMAT},"#).as_bytes()) {
        return Ok(None);
    }
    #[derive(Deserialize)]
    struct OfRule {
        deduplication: Option<Rule>,
    }
    let read: Result<OfRule, _> = serde_json::from_slice(&record.body);
    let OfRule { deduplication } =
        read.map_err(|error| UnreadableRecord { version: record.version.0, reason: error.to_string() })?;
    Ok(deduplication.map(Rule::read))
}

/// The recorded sets that decide about what is not examined yet, oldest first; `matched` are the first such offsets.
pub(crate) fn in_force<'p>(plans: &'p [PlanRecord], matched: &[Offset]) -> &'p [PlanRecord] {
    let over = |next: &PlanRecord| next.effective.iter().zip(matched).all(|(from, matched)| from <= matched);
    let superseded = plans.iter().skip(1).take_while(|next| over(next)).count();
    &plans[superseded..]
}

#[cfg(test)]
mod tests {
    use waypost_core::filter::{Clause, Clauses};

    use super::*;

    fn record(version: u64, effective: Offset, body: &[u8]) -> PlanRecord {
        PlanRecord {
            version: PlanVersion(version),
            effective: vec![effective],
            triggers: Vec::new(),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn exact(event_type: &str) -> Filter {
        Filter::Exact(Clauses::new(vec![Clause::new("type", event_type).unwrap()]).unwrap())
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let filters = [(TriggerNumber(7), exact("a")), (TriggerNumber(2), Filter::Everything)];
        let rule = Deduplication { window: Duration::from_millis(1_500), events: 7 };
        for (rule, format) in [(None, r#"{"format":1,"#), (Some(rule), r#"{"format":2,"#)] {
            let body = write(filters.iter().map(|(number, filter)| (*number, filter)), rule);
            assert!(body.starts_with(format.as_bytes()), "{body:?}");
            let read = read(&record(3, 9, &body)).unwrap();
            assert_eq!(
                (read.version, read.effective, read.filters, read.deduplication),
                (PlanVersion(3), vec![9], filters.to_vec(), rule)
            );
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for body in [
            r#"{"format": 3, "filters": "anything"}"#,
            r#"{"format": 1, "filters": [[1, {"later": "x"}]]}"#,
            r#"{"format": 1}"#,
            "",
        ] {
            let error = read(&record(3, 9, body.as_bytes())).unwrap_err();
            assert!(error.to_string().contains("plan 3"), "{error}");
        }
    }

    #[test]
    fn what_was_superseded_before_decides_nothing_more() {
        let plans = [record(1, 0, b""), record(2, 10, b""), record(3, 20, b"")];
        let versions =
            |matched| in_force(&plans, &[matched]).iter().map(|plan| plan.version.0).collect::<Vec<_>>();
        assert_eq!(versions(0), [1, 2, 3]);
        assert_eq!(versions(9), [1, 2, 3]);
        assert_eq!(versions(10), [2, 3]);
        assert_eq!(versions(25), [3]);
        assert!(in_force(&[], &[4]).is_empty());
    }
}
