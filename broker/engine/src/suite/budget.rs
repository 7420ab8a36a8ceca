//! Filters that take more steps than they may.

use super::*;

/// An event whose data has so many nodes that a query which evaluates another one for each of them is too costly.
fn wide(id: &str) -> Event {
    let data = format!("[{}]", vec!["[0,1]"; 2_000].join(","));
    let event = Event::builder(id, "/test", "t").attribute("datacontenttype", "application/json");
    event.data(data.into_bytes()).build().expect("the event is valid")
}

#[test]
fn a_filter_that_is_too_costly_matches_nothing_and_in_the_end_says_so() {
    on_one_thread(async {
        let hand = Hand::takes_all("costly");
        let with = |filter: &str| {
            let other = trigger("other", "costly", "filters: [{exact: {type: t}}]");
            [BROKER, &sink("costly"), &trigger("t", "costly", &format!("filters: [{filter}]")), &other]
                .concat()
        };
        let mut stage = Stage::new();
        stage.apply(&with("{jsonpath: \"$[?$..[?@ == 0]]\"}")).await;
        let last = usize::try_from(MAX_SPENT_IN_A_ROW).expect("it is small");
        for id in 1..last {
            stage.publish_event("b", wide(&id.to_string())).await;
        }
        let line = stage.until("t", |line| line.over_budget == last as u64 - 1).await;
        assert!(line.ready && line.matched == 0, "{line:?}");
        stage.publish_event("b", wide("last")).await;
        let line = stage.until("t", |line| !line.ready).await;
        assert_eq!((line.over_budget, line.matched), (last as u64, 0));
        let status = stage.engine.status(&StatusQuery::default()).await;
        let resource = status.resources.iter().find(|line| line.kind == "Trigger" && line.name == "t");
        let resource = resource.expect("the status tells of it");
        assert_eq!(resource.reason, codes::FILTER_BUDGET_SPENT.id());
        assert!(resource.message.contains("simplify the filter"), "{}", resource.message);
        stage.until("other", |line| line.delivered == last as u64).await;

        let small =
            Event::builder("small", "/test", "t").data(b"[0, [0]]".to_vec()).build().expect("it is valid");
        stage.publish_event("b", small).await;
        let line = stage.until("t", |line| line.delivered == 1).await;
        assert!(line.ready, "an evaluation within its steps makes it ready again: {line:?}");

        for id in 0..last {
            stage.publish_event("b", wide(&format!("again-{id}"))).await;
        }
        stage.until("t", |line| !line.ready).await;
        stage.apply(&with("{exact: {type: t}}")).await;
        let line = stage.trigger("t").await;
        assert!(line.ready, "another filter is judged anew: {line:?}");
        assert!(hand.sent().contains(&"small".to_owned()));
        stage.shut_down().await;
    });
}
