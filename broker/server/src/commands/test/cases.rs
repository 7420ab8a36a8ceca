//! What is wrong with tests beside the manifests that they are about.

use std::collections::HashSet;

use waypost_core::codes;
use waypost_core::manifest::{Emitter, Manifests, Problem, ResourceName, TestCase, nearest};
use waypost_engine::plan::{DeclaredState, Family, Plan};

/// Everything that is wrong with the tests, but for files of events, which are only read to run them.
pub(crate) fn problems(manifests: &Manifests, plan: &Plan) -> Vec<Problem> {
    // Those with an error are triggers as well.
    let declared = plan
        .declared
        .iter()
        .filter(|declared| declared.id.kind == "Trigger" && declared.state != DeclaredState::Detached);
    let triggers: HashSet<ResourceName> = declared.map(|declared| declared.id.resource_name()).collect();
    let transformations = plan.declared.iter().filter(|declared| {
        Family::of(&declared.id.api_version, &declared.id.kind) == Family::Transformation
            && declared.state != DeclaredState::Detached
    });
    let transformations: HashSet<ResourceName> =
        transformations.map(|declared| declared.id.resource_name()).collect();
    let mut problems = Vec::new();
    let mut named: HashSet<&ResourceName> = HashSet::new();
    for file in &manifests.files {
        problems.extend(file.test_problems.iter().cloned());
        for case in &file.tests {
            if !named.insert(&case.name) {
                let message = format!("the Test {} is declared twice", case.name);
                let at = (case.location.mark, "metadata.name");
                let help = "give each test a name of its own".to_owned();
                problems.push(case.problem(codes::RESOURCE_DUPLICATE, at, message, help));
            }
            problems.extend(unknown(case, &triggers));
            problems.extend(unknown_emitters(case, &triggers, &transformations));
        }
    }
    problems
}

/// The triggers and Transformations in `emits` that nobody declares.
fn unknown_emitters(
    case: &TestCase,
    triggers: &HashSet<ResourceName>,
    transformations: &HashSet<ResourceName>,
) -> Vec<Problem> {
    let unknown = case.emissions.iter().filter_map(|emission| {
        let (kind, name, declared) = match &emission.of {
            Emitter::Trigger(name) => ("Trigger", name, triggers),
            Emitter::Transformation(name) => ("Transformation", name, transformations),
        };
        if declared.contains(name) {
            return None;
        }
        let known: Vec<String> = declared.iter().map(ToString::to_string).collect();
        let help = match nearest(&name.to_string(), known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("name a {kind} of these manifests, as `name` or `namespace/name`"),
        };
        let at = (emission.mark, emission.path.as_str());
        Some(case.problem(codes::REFERENCE_DANGLING, at, format!("no {kind} {name} is declared"), help))
    });
    unknown.collect()
}

/// The triggers that a test names and nobody declares.
fn unknown(case: &TestCase, triggers: &HashSet<ResourceName>) -> Vec<Problem> {
    let unknown = case.expectations.iter().filter(|expectation| !triggers.contains(&expectation.trigger));
    unknown
        .map(|expectation| {
            let name = expectation.trigger.to_string();
            let known: Vec<String> = triggers.iter().map(ToString::to_string).collect();
            let help = match nearest(&name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a Trigger of these manifests, as `name` or `namespace/name`".to_owned(),
            };
            let at = (expectation.mark, expectation.path.as_str());
            case.problem(codes::REFERENCE_DANGLING, at, format!("no Trigger {name} is declared"), help)
        })
        .collect()
}
