//! `waypost test`: tests of triggers that users write beside their manifests.

use serde_json::{Value, json};
use waypost_tests::binary::{Finished, run_in};
use waypost_tests::process::Setup;

use crate::manifests::{default_broker, file, only, trigger};

fn test(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Test", "metadata": {"name": name}, "spec": spec})
}

fn triggers() -> String {
    let gold = json!({"filters": [{"exact": {"tier": "gold"}}]});
    default_broker(&[
        trigger("orders", "http://localhost/", only("order")),
        trigger("gold", "http://localhost/", gold),
    ])
}

fn order() -> Value {
    json!({"type": "order", "source": "/shop"})
}

#[tokio::test]
async fn tests_pass_and_fail_with_what_was_expected_and_found() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join("manifests").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let waypost = async |arguments: &[&str]| -> Finished { run_in(directory.path(), arguments, b"").await };
    write("triggers.yaml", &triggers());
    let none = waypost(&["test", "-f", "manifests"]).await;
    assert!(none.code == Some(1) && none.stderr.contains("error[E0713]"), "{none:?}");

    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order", "tier": "gold"});
    write("events/gold.event.json", &event.to_string());
    let passing = [
        test("order", &json!({"event": order(), "matches": ["orders"], "misses": ["default/gold"]})),
        test("gold", &json!({"eventFile": "events/gold.event.json", "matches": ["orders", "gold"]})),
    ];
    write("orders.test.yaml", &file(&passing));
    let passed = waypost(&["test", "-f", "manifests"]).await;
    assert_eq!(passed.code, Some(0), "{passed:?}");
    assert_eq!(passed.stdout, "ok      default/order\nok      default/gold\n2 tests passed\n");
    assert_eq!(waypost(&["check", "-f", "manifests", "-o", "json"]).await.json(), json!([]));

    let failing = test("wrong", &json!({"event": order(), "matches": ["gold"], "misses": ["orders"]}));
    write("wrong.test.yaml", &file(&[failing]));
    let failed = waypost(&["test", "-f", "manifests"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for text in [
        "FAILED  default/wrong  manifests/wrong.test.yaml:",
        "    expected  a match\n    actual    no match: the event has no attribute `tier`\n",
        "    expected  no match\n    actual    a match\n",
        "2 tests passed, 1 failed\n",
    ] {
        assert!(failed.stdout.contains(text), "{text:?} is not in {}", failed.stdout);
    }
    let told = waypost(&["test", "-f", "manifests", "-o", "json"]).await;
    assert_eq!(told.code, Some(1));
    let told = told.json();
    assert_eq!((&told["passed"], &told["failed"], &told["problems"]), (&json!(2), &json!(1), &json!([])));
    let wrong = &told["tests"][2];
    assert_eq!((&wrong["name"], &wrong["passed"]), (&json!("wrong"), &json!(false)), "{told:#}");
    let gold = &wrong["triggers"][0];
    assert_eq!(
        (&gold["name"], &gold["expected"], &gold["matched"]),
        (&json!("gold"), &json!(true), &json!(false))
    );
    assert_eq!(gold["reason"], "the event has no attribute `tier`", "{told:#}");
}

#[tokio::test]
async fn what_is_wrong_with_a_test_is_located_and_keeps_no_broker_from_running() {
    let tests = [
        test("unknown", &json!({"event": order(), "matches": ["oders"]})),
        test("vague", &json!({"event": order(), "matches": ["orders"], "emits": [{"trigger": "orders"}]})),
        test("absent", &json!({"eventFile": "absent.event.json", "misses": ["orders"]})),
    ];
    let setup = Setup::new(&triggers()).file("bad.test.yaml", &file(&tests));
    let manifests = setup.manifests();
    let path = manifests.to_str().unwrap();
    let told = run_in(&manifests, &["test", "-f", path, "-o", "json"], b"").await;
    assert_eq!(told.code, Some(1), "{told:?}");
    let told = told.json();
    let problems = told["problems"].as_array().unwrap();
    let found: Vec<_> =
        problems.iter().map(|row| (row["code"].as_str().unwrap(), row["path"].as_str().unwrap())).collect();
    for problem in [("E0203", "spec.matches[0]"), ("E0113", "spec.emits[0]"), ("E0709", "spec.eventFile")] {
        assert!(found.contains(&problem), "{told:#}");
    }
    assert_eq!(found.len(), 3, "{told:#}");
    assert!(
        problems
            .iter()
            .all(|row| row["file"].as_str().unwrap().ends_with("bad.test.yaml") && row["line"].is_u64())
    );
    let help = problems.iter().find(|row| row["code"] == "E0203").unwrap()["help"].as_str().unwrap();
    assert!(help.contains("default/orders"), "{help}");
    assert_eq!((&told["passed"], &told["failed"]), (&json!(0), &json!(2)), "{told:#}");
    let checked = run_in(&manifests, &["check", "-f", path, "-o", "json"], b"").await;
    assert_eq!((checked.code, checked.json().as_array().unwrap().len()), (Some(1), 2), "{checked:?}");
    // A broker does not look at them.
    let waypost = setup.start().await;
    assert_eq!(waypost.status().await["plan"]["problems"], json!([]));
    waypost.stop().await;
}
