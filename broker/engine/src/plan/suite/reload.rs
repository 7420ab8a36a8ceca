//! What a reload keeps of the plan before it.

use super::*;

#[test]
fn what_has_an_error_keeps_its_last_valid_version() {
    let good = [
        broker("b"),
        sink("s"),
        trigger("t", &reference("Sink", "s"), ", paused: true"),
        trigger("u", "{uri: 'http://x'}", ""),
    ]
    .concat();
    let one = first(&good);
    let bad = good.replace("paused: true", "paused: maybe").replace("{void: {}}", "{void: {batch: 0}}");
    let two = next(&one, 2, &bad);
    assert_eq!(told(&two), ["E0214 10 spec.void.batch", "E0110 15 spec.paused"]);
    assert!(Arc::ptr_eq(&one.triggers[&name("t")], &two.triggers[&name("t")]));
    assert!(Arc::ptr_eq(&one.sinks[&name("s")], &two.sinks[&name("s")]));
    assert_eq!(one.triggers[&name("u")].fingerprint, two.triggers[&name("u")].fingerprint);
    assert_eq!((running(&two, "Trigger default/t"), running(&two, "Sink default/s")), (Some(1), Some(1)));
    assert_eq!(*state(&two, "Trigger default/u"), DeclaredState::Valid);
    // It keeps being the first version, however often the error is read again.
    let three = next(&two, 3, &bad);
    assert_eq!(running(&three, "Trigger default/t"), Some(1));
    // A new resource with an error does not start.
    let four = next(&three, 4, &(good + &trigger("new", &reference("Sink", "none"), "")));
    assert_eq!(
        (four.triggers.contains_key(&name("new")), running(&four, "Trigger default/new")),
        (false, None)
    );
    assert_eq!(*state(&four, "Trigger default/t"), DeclaredState::Valid);
}

#[test]
fn what_disappears_is_detached_until_it_reappears() {
    let all = [broker("b"), sink("s"), trigger("t", &reference("Sink", "s"), "")].concat();
    let one = first(&all);
    // The sink goes: the trigger has a dangling reference, keeps its version, and the sink runs on for it.
    let two = next(&one, 2, &[broker("b"), trigger("t", &reference("Sink", "s"), "")].concat());
    assert_eq!(told(&two), ["E0203 10 spec.subscriber.ref"]);
    assert!(two.sinks.contains_key(&name("s")) && two.triggers.contains_key(&name("t")));
    assert_eq!(*state(&two, "Sink default/s"), DeclaredState::Detached);
    // The broker goes: the trigger is detached with it.
    let three = next(&one, 3, &[sink("s"), trigger("t", &reference("Sink", "s"), "")].concat());
    assert_eq!(told(&three), ["E0208 10 spec.broker"]);
    assert!(three.brokers.is_empty() && three.triggers.is_empty());
    assert_eq!(*state(&three, "Trigger default/t"), DeclaredState::Detached);
    assert_eq!(*state(&three, "Broker default/b"), DeclaredState::Detached);
    let still = next(&three, 4, &[sink("s"), trigger("t", &reference("Sink", "s"), "")].concat());
    assert_eq!(*state(&still, "Broker default/b"), DeclaredState::Detached);
    assert!(still.triggers.is_empty());
    let back = next(&still, 5, &all);
    assert_eq!(told(&back), Vec::<String>::new());
    assert!(back.declared.iter().all(|declared| declared.state == DeclaredState::Valid));
    assert_eq!(back.triggers[&name("t")].fingerprint, one.triggers[&name("t")].fingerprint);
    // Everything goes, and is forgotten one by one.
    let mut none = next(&back, 6, "");
    assert_eq!(none.declared.len(), 3);
    none.date_detached(100);
    assert!(none.forget_detached(99).is_empty());
    assert_eq!(none.declared.len(), 3);
    assert!(
        none.detached.brokers.contains_key(&name("b")) && none.detached.triggers.contains_key(&name("t"))
    );
    let mut later = next(&none, 7, "");
    later.date_detached(200);
    assert_eq!(later.broker_detached_since(&name("b")), Some(100), "the moment stays what it was");
    let mut names: Vec<_> = later.forget_detached(100).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["detached/sink/default/s", "resource/sink/default/s"], "what has a log goes with it");
    assert!(
        later.declared.is_empty() && later.detached.brokers.is_empty() && later.detached.triggers.is_empty()
    );
    assert!(next(&later, 8, "").declared.is_empty());
}

#[test]
fn a_file_that_cannot_be_parsed_keeps_its_own_resources() {
    let (base, own) = ([broker("b"), sink("s")].concat(), trigger("t", &reference("Sink", "s"), ""));
    let of = |base: &str, own: &str| manifests(&[("base.yaml", base), ("own.yaml", own)]);
    let one = plan(&of(&base, &own), &REGISTRY, None, 1);
    for broken in ["a: [", "apiVersion: v1\nkind: Foo\nmetadata: {name: t}\n", "a: 1\na: 2\n"] {
        let two = plan(&of(&base, broken), &REGISTRY, Some(&one), 2);
        assert_eq!(two.problems.len(), 1, "{broken}");
        assert!(Arc::ptr_eq(&one.triggers[&name("t")], &two.triggers[&name("t")]), "{broken}");
        assert_eq!(running(&two, "Trigger default/t"), Some(1), "{broken}");
        // Once the file is readable again, what it leaves out is detached.
        let three = plan(&of(&base, "# empty\n"), &REGISTRY, Some(&two), 3);
        assert_eq!(*state(&three, "Trigger default/t"), DeclaredState::Detached);
    }
    let two = plan(&of("b: [", &own), &REGISTRY, Some(&one), 2);
    assert_eq!(told(&two), ["E0101 1 "]);
    assert!(two.brokers.contains_key(&name("b")) && two.sinks.contains_key(&name("s")));
    assert_eq!(*state(&two, "Trigger default/t"), DeclaredState::Valid);
    let gone = plan(&manifests(&[("own.yaml", &own)]), &REGISTRY, Some(&one), 2);
    assert_eq!(*state(&gone, "Broker default/b"), DeclaredState::Detached);
}

#[test]
fn what_is_fixed_cannot_change() {
    let knative = |class: &str, config: &str| {
        format!(
            "---\napiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {{name: b{class}}}\nspec: {{{config}}}\n"
        )
    };
    let class = |class: &str| format!(", annotations: {{eventing.knative.dev/broker.class: {class}}}");
    let config = |name: &str| format!("config: {{apiVersion: v1, kind: ConfigMap, name: {name}}}");
    let one = first(&knative(&class("Kafka"), &config("x")));
    let two = next(&one, 2, &knative(&class("Other"), &config("y")));
    assert_eq!(
        told(&two),
        ["E0212 4 metadata.annotations[eventing.knative.dev/broker.class]", "E0212 5 spec.config"]
    );
    assert_eq!(two.brokers[&name("b")].class.as_deref(), Some("Kafka"));
    // Leaving it out is no change, and no way round.
    let three = next(&one, 2, &knative("", ""));
    assert_eq!(told(&three), Vec::<String>::new());
    assert_eq!(told(&next(&three, 3, &knative(&class("Other"), &config("x")))).len(), 1);

    let text = [broker("b"), broker("c"), trigger("t", "{uri: 'http://x'}", "")].concat();
    let one = first(&text);
    let two = next(&one, 2, &text.replace("{broker: b", "{broker: c"));
    assert_eq!(told(&two), ["E0212 15 spec.broker"]);
    assert_eq!(two.triggers[&name("t")].broker, name("b"));
    // A trigger that was gone is a new one.
    let three = next(
        &next(&one, 2, &[broker("b"), broker("c")].concat()),
        3,
        &text.replace("{broker: b", "{broker: c"),
    );
    assert_eq!(told(&three), Vec::<String>::new());
}
