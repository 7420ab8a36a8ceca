//! An explanation for people: a line for each trigger, or every clause and attempt.

use std::fmt::Write;

use serde_json::Value;

use crate::present::{count, rows, table, visible};

/// The longest predicate that is shown on the line of a trigger, in characters.
const SHORT: usize = 70;

/// The whole explanation. `all` shows every clause and every attempt.
pub(crate) fn explained(explained: &Value, all: bool) -> String {
    let mut text = head(explained);
    let triggers = rows(&explained["triggers"]);
    let recorded = !explained["position"].is_null();
    if all {
        for trigger in triggers {
            text.push('\n');
            in_full(&mut text, trigger, recorded);
        }
    } else if !triggers.is_empty() {
        let lines: Vec<_> = triggers
            .iter()
            .map(|trigger| {
                let matched = if trigger["matched"] == true { "yes" } else { "no" };
                vec![named(trigger), word(&trigger["broker"]), matched.to_owned(), short(trigger)]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["TRIGGER", "BROKER", "MATCHES", ""], &lines));
        for trigger in triggers.iter().filter(|trigger| trigger["note"].is_string()) {
            let _infallible =
                writeln!(text, "\nnote on {}: {}", visible(&named(trigger)), line(&trigger["note"]));
        }
    }
    let left_out = explained["leftOut"].as_u64().unwrap_or_default();
    if left_out > 0 {
        let _infallible = writeln!(
            text,
            "\n{left_out} more are not shown: ask with --limit, --trigger, or --after {}",
            triggers.last().map_or_else(String::new, |last| visible(&named(last)))
        );
    }
    text
}

fn head(explained: &Value) -> String {
    let event = &explained["event"];
    let mut text = format!(
        "event {} of {}, type {}\n",
        line(&event["id"]),
        line(&event["source"]),
        line(&event["type"])
    );
    if let Some(position) = explained["position"].as_str() {
        let _infallible = write!(
            text,
            "position {position} of {}, arrived {}",
            line(&explained["broker"]),
            line(&explained["arrivedAt"])
        );
        let (plan, present) = (&explained["plan"], &explained["presentPlan"]);
        let _infallible = match plan.as_u64() {
            None => writeln!(text, ", before any plan was in force"),
            Some(version) if *plan == *present => writeln!(text, ", decided by plan {version}"),
            Some(version) => writeln!(text, ", decided by plan {version}; now it is plan {present}"),
        };
        let others: Vec<_> = rows(&explained["positions"])
            .iter()
            .filter_map(Value::as_str)
            .filter(|other| *other != position)
            .collect();
        if let Some(repeated) = explained["repeats"].as_str() {
            let _infallible = writeln!(text, "it repeats the event at {repeated}, and so matches no trigger");
        }
        if !others.is_empty() {
            let _infallible = writeln!(text, "the same source and id also at {}", others.join(", "));
        }
    }
    let number =
        |name: &str| usize::try_from(explained[name].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
    let matched = number("matched");
    let _infallible = match matched + number("notMatched") {
        0 => writeln!(text, "there is no such trigger"),
        all => writeln!(text, "{matched} of {} match", count(all, "trigger")),
    };
    text
}

/// Why, or what became of it, on one line.
fn short(trigger: &Value) -> String {
    if let Some(delivery) = rows(&trigger["deliveries"]).last() {
        return outcome(delivery);
    }
    if let Some(reason) = trigger["reason"].as_str() {
        let others = trigger["distance"].as_u64().unwrap_or(1).saturating_sub(1);
        return if others == 0 { reason.to_owned() } else { format!("{reason} (and {others} more)") };
    }
    if let Some(ended) = ended(&trigger["transformations"]) {
        return ended;
    }
    match rows(&trigger["clauses"]) {
        [] => "it takes every event".to_owned(),
        [one] => {
            let predicate = word(&one["predicate"]);
            match predicate.char_indices().nth(SHORT) {
                Some((end, _)) => format!("{}…", &predicate[..end]),
                None => predicate,
            }
        }
        clauses => format!("all {} clauses hold", clauses.len()),
    }
}

/// What became of one delivery.
fn outcome(delivery: &Value) -> String {
    let attempts = rows(&delivery["attempts"]);
    let made = attempts.last().and_then(|last| last["number"].as_u64()).unwrap_or_default();
    let attempts_made = count(usize::try_from(made).unwrap_or(usize::MAX), "attempt");
    let reason = word(&delivery["reason"]);
    match delivery["state"].as_str().unwrap_or_default() {
        "delivered" => match attempts.last() {
            Some(last) if made > 1 => format!("delivered {} after {attempts_made}", word(&last["endedAt"])),
            Some(last) => format!("delivered {}", word(&last["endedAt"])),
            None => "delivered".to_owned(),
        },
        "deadLettered" if made > 0 => {
            let code = attempts.last().map(|last| word(&last["code"])).unwrap_or_default();
            format!("dead letter after {attempts_made}: {reason} ({code})")
        }
        "deadLettered" => format!("dead letter: {reason}"),
        "dropped" => format!("dropped: {reason}"),
        "pending" if made > 0 => format!("pending after {attempts_made}: {reason}"),
        "pending" => format!("pending: {reason}"),
        _ => format!("not known: {reason}"),
    }
}

/// One trigger with every clause of its filter and every attempt.
fn in_full(text: &mut String, trigger: &Value, recorded: bool) {
    let verdict = if trigger["matched"] == true { "matches" } else { "does not match" };
    let _infallible = write!(text, "{} {verdict}", visible(&named(trigger)));
    let _infallible = match trigger["reason"].as_str() {
        Some(reason) => writeln!(text, ": {}", visible(reason)),
        None if rows(&trigger["clauses"]).is_empty() => writeln!(text, ": it takes every event"),
        None => writeln!(text),
    };
    if let Some(problem) = trigger["problem"].as_object() {
        let place = format!("{}:{}:{}", word(&problem["file"]), problem["line"], problem["column"]);
        let _infallible = writeln!(text, "  {}: error[{}]", visible(&place), word(&problem["code"]));
        let _infallible = writeln!(text, "  help: {}", line(&problem["help"]));
    }
    if let Some(note) = trigger["note"].as_str() {
        let _infallible = writeln!(text, "  note: {}", visible(note));
    }
    if let Some(plan) = trigger["plan"].as_u64() {
        let _infallible = writeln!(text, "  decided by plan {plan}, with which it started in the past");
    }
    for clause in rows(&trigger["clauses"]) {
        self::clause(text, clause, 1);
    }
    transformations(text, &trigger["transformations"]);
    for delivery in rows(&trigger["deliveries"]) {
        let _infallible = writeln!(text, "  {}", visible(&outcome(delivery)));
        for attempt in rows(&delivery["attempts"]) {
            let _infallible = write!(
                text,
                "    attempt {} at {}: {}",
                attempt["number"],
                word(&attempt["at"]),
                word(&attempt["outcome"])
            );
            for (name, member) in [("code", "code"), ("status", "status")] {
                if !attempt[member].is_null() {
                    let _infallible = write!(text, ", {name} {}", word(&attempt[member]));
                }
            }
            let _infallible = match attempt["detail"].as_str() {
                Some(detail) => writeln!(text, ": {}", visible(detail)),
                None => writeln!(text),
            };
        }
    }
    if recorded && trigger["matched"] == true && rows(&trigger["deliveries"]).is_empty() {
        text.push_str("  nothing is known of its delivery\n");
    }
}

/// The event after each transformation, and what ended the chain early.
fn transformations(text: &mut String, chain: &Value) {
    for step in rows(&chain["steps"]) {
        let _infallible = writeln!(text, "  after {}", line(&step["name"]));
        for failure in rows(&step["passedOver"]) {
            let _infallible = writeln!(text, "    passed over: {}", line(failure));
        }
        for event in rows(&step["events"]) {
            let _infallible = writeln!(text, "    {}", line(event));
        }
    }
    if let Some(ended) = ended(chain) {
        let _infallible = writeln!(text, "  {}", visible(&ended));
    }
}

/// Why transformations give no event.
fn ended(chain: &Value) -> Option<String> {
    if let Some(failed) = chain["failed"].as_object() {
        let place = failed.get("path").and_then(Value::as_str).map(|path| format!(" (at {path})"));
        let (step, reason, code) = (word(&failed["step"]), word(&failed["reason"]), word(&failed["code"]));
        return Some(format!("{step} fails: {reason}{} ({code})", place.unwrap_or_default()));
    }
    chain["dropped"].as_str().map(|why| format!("the transformations give no event: {why}"))
}

/// One clause, and below it what it is made of.
fn clause(text: &mut String, clause: &Value, depth: usize) {
    let verdict = match clause["verdict"].as_str().unwrap_or_default() {
        "match" => "yes",
        "noMatch" => "no",
        "notEvaluated" => "-",
        "value" => "value",
        _ => "error",
    };
    let indent = "  ".repeat(depth);
    let _infallible = write!(text, "{indent}{verdict:<5} {}", line(&clause["predicate"]));
    let (expected, actual) = (clause["expected"].as_str(), clause["actual"].as_str());
    let _infallible = match (expected, actual) {
        (Some(expected), Some(actual)) => {
            write!(text, "  expected {}, is {}", visible(expected), visible(actual))
        }
        (Some(expected), None) => write!(text, "  expected {}", visible(expected)),
        (None, Some(actual)) => write!(text, "  is {}", visible(actual)),
        (None, None) => Ok(()),
    };
    // What was compared says enough by itself.
    let _infallible = match clause["reason"].as_str().filter(|_| actual.is_none() || verdict == "error") {
        Some(reason) => writeln!(text, "  ({})", visible(reason)),
        None => writeln!(text),
    };
    for part in rows(&clause["clauses"]) {
        self::clause(text, part, depth + 1);
    }
}

fn named(trigger: &Value) -> String {
    format!("{}/{}", word(&trigger["namespace"]), word(&trigger["name"]))
}

/// A value as text; nothing for what is not there.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as text that cannot change what a terminal shows around it.
fn line(value: &Value) -> String {
    visible(&word(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "event": {"id": "4711", "source": "/shop", "type": "order"},
            "broker": "default/b", "position": "0:7", "positions": ["0:7", "0:3"],
            "arrivedAt": "2026-11-21T12:00:00Z", "repeats": null, "plan": 2, "presentPlan": 3,
            "matched": 2, "notMatched": 1, "leftOut": 0,
            "triggers": [
                {"namespace": "default", "name": "all", "broker": "b", "matched": true, "reason": null,
                    "distance": 0, "clauses": [], "deliveries": [{"state": "delivered", "attempts": [
                        {"number": 1, "at": "T1", "endedAt": "T2", "outcome": "failed", "code": "E0401",
                            "status": 503, "detail": "it answered 503"},
                        {"number": 2, "at": "T3", "endedAt": "T4", "outcome": "delivered", "code": null,
                            "status": 202},
                    ]}]},
                {"namespace": "default", "name": "dead", "broker": "b", "matched": true, "reason": null,
                    "distance": 0, "clauses": [], "note": "no manifest declares it",
                    "deliveries": [{"state": "deadLettered", "reason": "it answered 400", "attempts": [
                        {"number": 1, "at": "T1", "endedAt": "T2", "outcome": "failed", "code": "E0402",
                            "status": 400, "detail": "it answered 400"},
                    ]}]},
                {"namespace": "default", "name": "gold", "broker": "b", "matched": false,
                    "reason": "the event has no attribute `tier`", "distance": 2,
                    "clauses": [
                        {"predicate": "{\"exact\":{\"tier\":\"gold\"}}", "expected": "gold", "verdict": "noMatch",
                            "reason": "the event has no attribute `tier`"},
                        {"predicate": "{\"exact\":{\"type\":\"x\"}}", "expected": "x", "actual": "or\u{7}der",
                            "verdict": "noMatch", "reason": "`type` is not `x`"},
                    ], "deliveries": []},
            ],
        })
    }

    #[test]
    fn each_trigger_has_a_line() {
        let expected = "\
event 4711 of /shop, type order
position 0:7 of default/b, arrived 2026-11-21T12:00:00Z, decided by plan 2; now it is plan 3
the same source and id also at 0:3
2 of 3 triggers match

TRIGGER       BROKER  MATCHES
default/all   b       yes      delivered T4 after 2 attempts
default/dead  b       yes      dead letter after 1 attempt: it answered 400 (E0402)
default/gold  b       no       the event has no attribute `tier` (and 1 more)

note on default/dead: no manifest declares it
";
        assert_eq!(explained(&sample(), false), expected);
    }

    #[test]
    fn every_clause_and_attempt_is_shown_where_that_is_asked_for() {
        let text = explained(&sample(), true);
        let gold = "\
default/gold does not match: the event has no attribute `tier`
  no    {\"exact\":{\"tier\":\"gold\"}}  expected gold  (the event has no attribute `tier`)
  no    {\"exact\":{\"type\":\"x\"}}  expected x, is or\\u{7}der
";
        assert!(text.ends_with(gold), "{text}");
        let all = "\
default/all matches: it takes every event
  delivered T4 after 2 attempts
    attempt 1 at T1: failed, code E0401, status 503: it answered 503
    attempt 2 at T3: delivered, status 202
";
        assert!(text.contains(all), "{text}");
    }

    #[test]
    fn the_event_is_shown_after_each_transformation() {
        let chain = json!({
            "steps": [{"name": "transformations[0] (fields)", "events": [{"id": "1"}], "passedOver": ["no"]}],
            "events": [], "failed": {"step": "strict", "code": "E0410", "reason": "bad", "path": "data.x"},
        });
        let mut text = String::new();
        transformations(&mut text, &chain);
        let expected = concat!(
            "  after transformations[0] (fields)\n    passed over: no\n    {\"id\":\"1\"}\n",
            "  strict fails: bad (at data.x) (E0410)\n",
        );
        assert_eq!(text, expected);
        let trigger = json!({"transformations": {"steps": [], "dropped": "filtered"}});
        assert_eq!(short(&trigger), "the transformations give no event: filtered");
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut sample = sample();
        sample["leftOut"] = json!(5);
        assert!(explained(&sample, false).ends_with("--after default/gold\n"));
        let nothing = json!({"event": {}, "matched": 0, "notMatched": 0, "leftOut": 0, "triggers": []});
        assert!(explained(&nothing, true).contains("there is no such trigger"));
    }
}
