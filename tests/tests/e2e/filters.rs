//! What each filter dialect means, end to end. The matcher's own tests go into every corner.

use serde_json::{Value, json};
use waypost_tests::client::{event, structured};
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{default_broker, trigger};

const INGRESS: &str = "/default/default";

#[tokio::test]
async fn every_dialect_takes_what_it_says() {
    let rows: &[(&str, Value, &[&str])] = &[
        ("exact", json!({"filters": [{"exact": {"type": "order.placed"}}]}), &["placed"]),
        ("exact-and", json!({"filters": [{"exact": {"type": "order.placed", "source": "/other"}}]}), &[]),
        ("exact-case", json!({"filters": [{"exact": {"type": "Order.placed"}}]}), &[]),
        ("prefix", json!({"filters": [{"prefix": {"type": "order."}}]}), &["placed", "paid"]),
        ("suffix", json!({"filters": [{"suffix": {"type": ".paid"}}]}), &["paid"]),
        ("extension", json!({"filters": [{"exact": {"tier": "gold"}}]}), &["paid"]),
        ("integer", json!({"filters": [{"exact": {"size": "12"}}]}), &["typed"]),
        ("boolean", json!({"filters": [{"exact": {"express": "true"}}]}), &["typed"]),
        ("missing", json!({"filters": [{"exact": {"subject": "s"}}]}), &[]),
        ("not-missing", json!({"filters": [{"not": {"exact": {"tier": "gold"}}}]}), &["placed", "typed"]),
        (
            "anded",
            json!({"filters": [{"prefix": {"type": "order."}}, {"not": {"suffix": {"type": "paid"}}}]}),
            &["placed"],
        ),
        (
            "any",
            json!({"filters": [{"any": [{"exact": {"type": "typed"}}, {"suffix": {"type": "paid"}}]}]}),
            &["paid", "typed"],
        ),
        (
            "all",
            json!({"filters": [{"all": [{"prefix": {"type": "order"}}, {"exact": {"tier": "gold"}}]}]}),
            &["paid"],
        ),
        ("empty-list", json!({"filters": [], "filter": {"attributes": {"type": "typed"}}}), &["typed"]),
        (
            "filters-win",
            json!({"filters": [{"exact": {"type": "typed"}}], "filter": {"attributes": {"type": "order.paid"}}}),
            &["typed"],
        ),
        ("legacy", json!({"filter": {"attributes": {"type": "order.paid", "tier": "gold"}}}), &["paid"]),
        ("legacy-present", json!({"filter": {"attributes": {"tier": ""}}}), &["paid"]),
        ("legacy-empty", json!({"filter": {"attributes": {}}}), &["placed", "paid", "typed"]),
        (
            "specversion",
            json!({"filters": [{"exact": {"specversion": "1.0"}}]}),
            &["placed", "paid", "typed"],
        ),
    ];
    let subscriber = Subscriber::accepting().await;
    let triggers: Vec<_> = rows
        .iter()
        .map(|(name, spec, _)| trigger(name, &subscriber.url(&format!("/{name}")), spec.clone()))
        .collect();
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "placed", "order.placed", &[], "")).await;
    waypost.accept(event(INGRESS, "paid", "order.paid", &[("ce-tier", "gold")], "")).await;
    let typed = json!({
        "specversion": "1.0", "id": "typed", "source": "/tests", "type": "typed", "size": 12, "express": true,
    });
    waypost.accept(structured(INGRESS, typed.to_string())).await;
    waypost.settled().await;
    for (name, spec, expected) in rows {
        let path = format!("/{name}");
        let received = subscriber.received();
        let mut ids: Vec<_> =
            received.iter().filter(|received| received.path == path).map(|r| r.id()).collect();
        let mut expected = expected.to_vec();
        ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ids, expected, "{name}: {spec}");
    }
    waypost.stop().await;
}
