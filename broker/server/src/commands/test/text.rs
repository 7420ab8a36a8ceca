//! How tests ended, for people.

use std::fmt::Write;

use super::{Outcome, Report, Verdict};
use crate::present::{self, count, visible};

/// The problems, then a line for each test, with what differed below those that failed, then how many there were.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    if !report.problems.is_empty() {
        text.push_str(&present::problems(&report.problems));
        text.push('\n');
    }
    for test in &report.tests {
        outcome(&mut text, test);
    }
    let _infallible = match report.failed {
        0 => writeln!(text, "{} passed", count(report.passed, "test")),
        failed => writeln!(text, "{} passed, {failed} failed", count(report.passed, "test")),
    };
    text
}

fn outcome(text: &mut String, test: &Outcome) {
    let name = format!("{}/{}", test.namespace, test.name);
    if test.passed {
        let _infallible = writeln!(text, "ok      {name}");
        return;
    }
    let _infallible = writeln!(text, "FAILED  {name}  {}:{}", visible(&test.file), test.line);
    for verdict in test.triggers.iter().filter(|verdict| !verdict.passed) {
        difference(text, verdict, &test.file);
    }
    for emission in test.emissions.iter().filter(|emission| !emission.passed) {
        let super::Emission { kind, namespace, name, line, .. } = emission;
        let _infallible =
            writeln!(text, "  what comes out of {kind} {namespace}/{name}  {}:{line}", visible(&test.file));
        for difference in &emission.differences {
            let _infallible = writeln!(text, "    {}", visible(difference));
        }
    }
    if test.triggers.is_empty() && test.emissions.is_empty() {
        text.push_str("  it could not be run: see the problems above\n");
    }
}

fn difference(text: &mut String, verdict: &Verdict, file: &str) {
    let Verdict { namespace, name, line, expected, matched, reason, .. } = verdict;
    let words = |matches: bool| if matches { "a match" } else { "no match" };
    let _infallible = writeln!(text, "  {namespace}/{name}  {}:{line}", visible(file));
    let _infallible = writeln!(text, "    expected  {}", words(*expected));
    let why = match reason {
        Some(reason) => format!(": {}", visible(reason)),
        None if verdict.clauses.is_empty() => ": it takes every event".to_owned(),
        None => String::new(),
    };
    let _infallible = writeln!(text, "    actual    {}{why}", words(*matched));
    if *matched {
        for clause in &verdict.clauses {
            let _infallible = writeln!(text, "              {}", visible(&clause.predicate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, expected: bool, matched: bool, reason: Option<&str>) -> Verdict {
        Verdict {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            line: 9,
            expected,
            matched,
            passed: expected == matched,
            reason: reason.map(str::to_owned),
            clauses: Vec::new(),
        }
    }

    fn test(name: &str, triggers: Vec<Verdict>) -> Outcome {
        let passed = triggers.iter().all(|verdict| verdict.passed);
        Outcome {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            file: "a.test.yaml".to_owned(),
            line: 3,
            passed,
            triggers,
            emissions: Vec::new(),
        }
    }

    #[test]
    fn a_failure_shows_what_was_expected_and_what_was_found() {
        let missed = verdict("gold", true, false, Some("the event has no attribute `tier`"));
        let tests = vec![
            test("good", vec![verdict("all", true, true, None)]),
            test("bad", vec![missed, verdict("all", false, true, None)]),
        ];
        let told = report(&Report { passed: 1, failed: 1, problems: Vec::new(), tests });
        let expected = "\
ok      shop/good
FAILED  shop/bad  a.test.yaml:3
  shop/gold  a.test.yaml:9
    expected  a match
    actual    no match: the event has no attribute `tier`
  shop/all  a.test.yaml:9
    expected  no match
    actual    a match: it takes every event
1 test passed, 1 failed
";
        assert_eq!(told, expected);
    }
}
