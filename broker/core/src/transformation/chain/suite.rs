use super::*;
use crate::transformation::json::Json;

const MOMENT: Moment = Moment { arrived_nanoseconds: 0 };

type Apply = fn(Document, &mut Run) -> Result<Outputs, TransformationError>;

/// A transformation for tests.
struct Of(Apply);

impl fmt::Debug for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Of")
    }
}

impl Transformation for Of {
    fn apply(&self, document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        (self.0)(document, run)
    }
}

fn chain(steps: &[(Apply, OnError)]) -> Chain {
    let step = |(number, (apply, on_error)): (usize, &(Apply, OnError))| Step {
        name: format!("transformations[{number}]"),
        transformation: Arc::new(Of(*apply)),
        on_error: *on_error,
    };
    Chain::new(steps.iter().enumerate().map(step).collect())
}

fn event(data: &str) -> Event {
    Event::builder("1", "/s", "t").subject("x").json_data(data.to_owned()).build().unwrap()
}

fn events(result: Result<Transformed, ChainError>) -> Vec<Event> {
    match result.unwrap() {
        Transformed::Events(events) => events,
        Transformed::Nothing(why) => panic!("nothing came out: {why}"),
    }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

fn look(mut document: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
    document.json()?;
    Ok(document.into())
}

fn two(document: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
    Ok(Outputs::Several(vec![document.clone(), document]))
}

fn retyped(mut document: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
    document.set_attribute("type", "new");
    Ok(document.into())
}

fn untyped(mut document: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
    document.set_attribute("extra", "1");
    document.remove_attribute("type");
    Ok(document.into())
}

fn none(_: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
    Ok(Outputs::Nothing(Discard::Schema))
}

#[test]
fn what_no_step_touches_stays_byte_for_byte() {
    let event = event("{ \"n\" : 1.0e0,\n\"big\":12345678901234567890123 }");
    let out = events(chain(&[(look, OnError::Fail), (look, OnError::Skip)]).apply(&event, MOMENT));
    assert_eq!(out[0].packed().as_ptr(), event.packed().as_ptr());
    let out = events(chain(&[(look, OnError::Fail), (retyped, OnError::Fail)]).apply(&event, MOMENT));
    assert_eq!((out[0].event_type(), out[0].data()), ("new", event.data()));
}

#[test]
fn changed_data_keeps_its_numbers() {
    let add: Apply = |mut document, _| {
        let (Json::Object(mut object), _) = document.take_json()? else { panic!("it is an object") };
        object.insert("c".into(), true.into());
        document.set_json(object.into());
        Ok(document.into())
    };
    let out =
        events(chain(&[(add, OnError::Fail)]).apply(&event(r#"{"a": 9007199254740993, "b": 1.10}"#), MOMENT));
    assert_eq!(out[0].data().unwrap(), r#"{"a":9007199254740993,"b":1.10,"c":true}"#);
}

#[test]
fn outputs_are_numbered_below_their_parent() {
    let out = events(chain(&[(two, OnError::Fail), (two, OnError::Fail)]).apply(&event("1"), MOMENT));
    assert_eq!(ids(&out), ["1-0-0", "1-0-1", "1-1-0", "1-1-1"]);
}

#[test]
fn the_same_event_twice_is_refused() {
    let same: Apply = |document, _| {
        let mut documents = vec![document.clone(), document];
        documents.iter_mut().for_each(|document| document.set_attribute("id", "mine"));
        Ok(Outputs::Several(documents))
    };
    let error = chain(&[(same, OnError::Fail)]).apply(&event("1"), MOMENT).unwrap_err();
    assert_eq!(error.error.code, codes::TRANSFORMATION_OUTPUT_REPEATED);
    assert_eq!(error.step, "transformations[0]");
}

#[test]
fn too_many_outputs_are_refused() {
    let many: Apply = |document, _| Ok(Outputs::Several(vec![document; 40]));
    let error =
        chain(&[(many, OnError::Fail), (many, OnError::Fail)]).apply(&event("1"), MOMENT).unwrap_err();
    assert_eq!((error.error.code, &*error.step), (codes::TRANSFORMATION_LIMIT, "transformations[1]"));
}

#[test]
fn the_policy_decides_about_a_failure() {
    let failing =
        |on_error| chain(&[(untyped, on_error), (retyped, OnError::Fail)]).apply(&event("1"), MOMENT);
    let error = failing(OnError::Fail).unwrap_err();
    assert_eq!(error.error.path.as_deref(), Some("attribute type"));
    let out = events(failing(OnError::Skip));
    assert_eq!((out[0].event_type(), out[0].attribute("extra")), ("new", None));
    assert_eq!(failing(OnError::Drop), Ok(Transformed::Nothing(Discard::Failed)));
}

#[test]
fn a_drop_tells_why() {
    assert_eq!(
        chain(&[(none, OnError::Fail)]).apply(&event("1"), MOMENT),
        Ok(Transformed::Nothing(Discard::Schema))
    );
}

#[test]
fn a_trace_tells_each_step() {
    let (traces, result) = chain(&[(retyped, OnError::Fail), (untyped, OnError::Skip), (two, OnError::Fail)])
        .trace(&event("1"), MOMENT);
    let told: Vec<_> = traces.iter().map(|trace| (ids(&trace.events), trace.passed_over.len())).collect();
    assert_eq!(told, [(vec!["1"], 0), (vec!["1"], 1), (vec!["1-0", "1-1"], 0)]);
    assert_eq!(events(result), traces[2].events);
}

#[test]
fn a_run_that_has_spent_its_steps_fails() {
    let endless: Apply = |_, run| loop {
        run.spend(1_000)?;
    };
    let error = chain(&[(endless, OnError::Fail)]).apply(&event("1"), MOMENT).unwrap_err();
    assert_eq!(error.error.code, codes::TRANSFORMATION_LIMIT);
}

#[test]
fn data_that_is_no_json_is_told() {
    for (content_type, data, part) in [
        (Some("text/plain"), "{}", "text/plain"),
        (Some("application/json"), "{", "line 1"),
        (None, "\u{feff}{}", "not JSON"),
    ] {
        let mut builder = Event::builder("1", "/s", "t").data(data.to_owned());
        if let Some(content_type) = content_type {
            builder = builder.data_content_type(content_type);
        }
        let error = chain(&[(look, OnError::Fail)]).apply(&builder.build().unwrap(), MOMENT).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let suffixed = Event::builder("1", "/s", "t")
        .data_content_type("application/vnd.x+json")
        .data("{}")
        .build()
        .unwrap();
    assert_eq!(events(chain(&[(look, OnError::Fail)]).apply(&suffixed, MOMENT)), [suffixed]);
}
