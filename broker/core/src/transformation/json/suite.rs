use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Json {
    Json::read(text).unwrap()
}

#[test]
fn numbers_keep_their_text() {
    for text in [
        "9007199254740993",
        "3.14159265358979323846264338327950288",
        "-0",
        "1.0",
        "1E+2",
        "[1e-7,123456789012345678901234567890]",
        "1e400",
        "-1.5E+99999999999999999999",
    ] {
        assert_eq!(read(text).to_string(), text);
    }
}

#[test]
fn numbers_compare_by_value() {
    let number = |text| Number::parse(text).unwrap();
    for (one, two) in [
        ("1", "1.0"),
        ("100", "1e2"),
        ("0.10", "1e-1"),
        ("-0", "0"),
        ("0.0", "0e5"),
        ("1200", "12e2"),
        ("1e400", "10e399"),
    ] {
        assert_eq!(number(one), number(two));
    }
    for (one, two) in [("9007199254740992", "9007199254740993"), ("1", "-1"), ("10", "1"), ("0.1", "0.01")] {
        assert_ne!(number(one), number(two));
    }
    for text in ["", "01", " 1", "1 ", "+1", ".5", "1.", "1e", "NaN"] {
        assert!(Number::parse(text).is_none(), "{text}");
    }
}

#[test]
fn of_a_repeated_member_the_last_counts() {
    assert_eq!(read(r#"{"a": 1, "b": 2, "a": 3}"#).to_string(), r#"{"a":3,"b":2}"#);
    let many: Vec<String> = (0..40).map(|n| format!("\"m{}\":{n}", n % 20)).collect();
    let Json::Object(object) = read(&format!("{{{}}}", many.join(","))) else { panic!("it is an object") };
    assert_eq!(object.len(), 20);
    assert_eq!(object.get("m3"), Some(&Json::from(23_i64)));
}

#[test]
fn objects_are_equal_in_any_order() {
    assert_eq!(read(r#"{"a":1,"b":[2]}"#), read(r#"{"b":[2.0],"a":1}"#));
    assert_ne!(read(r#"{"a":1}"#), read(r#"{"a":1,"b":1}"#));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(read(&nested(MAX_DEPTH)).depth(), MAX_DEPTH);
    assert!(Json::read(&nested(MAX_DEPTH + 1)).is_err());
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    let error = Json::read("{\"a\": 1,\n \"b\": }").unwrap_err();
    assert!(error.detail.contains("line 2"), "{error}");
}

fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..20)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn reads_and_writes_what_serde_json_does(value in values()) {
        let text = value.to_string();
        let tree = read(&text);
        prop_assert_eq!(tree.to_string(), text);
        prop_assert_eq!(&Json::from(&value), &tree);
        prop_assert_eq!(tree.to_value(), value);
    }

    /// Without a tree a query finds what it finds in one.
    #[test]
    fn parts_are_what_a_tree_has(a in values(), b in values(), repeated: bool) {
        let first = if repeated { r#""\u0061":[7],"# } else { "" };
        let text = format!(r#"{{{first}"b":{{"a":{b}}},"a":{a},"c":[{a},{b}]}}"#);
        let tree = read(&text);
        for path in ["$", "$.a", "$.b", "$.b.a", "$.c", "$.c[1]", "$.c[2]", "$.d", "$[0]", "$.a.x", "$['b']['a'][0]"] {
            let query = Query::parse(path).unwrap();
            let mut run = crate::transformation::Run::new(crate::transformation::Moment { arrived_nanoseconds: 0 });
            let selected = query.select(&tree, &mut run).unwrap();
            let expected: Vec<String> = match selected.as_slice() {
                [Json::Array(elements)] => elements.iter().map(Json::to_string).collect(),
                values => values.iter().map(|value| value.to_string()).collect(),
            };
            let parts = query.parts(&text).unwrap();
            let parts: Vec<String> = parts.into_iter().map(|range| read(&text[range]).to_string()).collect();
            prop_assert_eq!(parts, expected, "{} in {}", path, text);
        }
        for path in ["$.*", "$.c[-1]", "$..a"] {
            prop_assert!(Query::parse(path).unwrap().parts(&text).is_none());
        }
        prop_assert!(Query::parse("$.a").unwrap().parts(&text[..text.len() - 1]).is_none());
    }

    #[test]
    fn whether_text_is_json_does_not_depend_on_what_is_wanted(text in "[\\[\\]{}\",:0-9eE.+\\-tfnab\\\\u ]{0,40}") {
        let whole = Json::read(&text).map_err(|error| error.to_string());
        let mut some = Wanted::Kind;
        *some.member("a").element(1) = Wanted::Whole;
        for wanted in [Wanted::Whole, Wanted::Kind, some] {
            let read = Json::read_wanted(&text, &wanted);
            prop_assert_eq!(read.is_ok(), whole.is_ok(), "{} {:?}", text, wanted);
            if wanted == Wanted::Whole && let (Ok(read), Ok(whole)) = (read, &whole) {
                prop_assert_eq!(&read, whole);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}\",:0-9eE.+\\-tfn\\\\u ]{0,40}") {
        let (ours, theirs) = (Json::read(&text), serde_json::from_str::<serde_json::Value>(&text));
        // Numbers beyond binary64 are the only ones that we take and they do not.
        prop_assert!(ours.is_ok() == theirs.is_ok() || ours.is_ok() && text.contains(['e', 'E']), "{text}");
    }
}

#[test]
fn queries_select_what_jsonpath_rust_selects() {
    use crate::transformation::{Moment, Run};

    let data = read(r#"{"a":[{"n":1,"t":"x"},{"n":2},[3,4]],"b":{"c":[5]},"":0}"#);
    for (text, singular, expected) in [
        ("$", true, vec![data.to_string()]),
        ("$.a[0].n", true, vec!["1".to_owned()]),
        ("$.a[-1][-2]", true, vec!["3".to_owned()]),
        ("$.a[-4]", true, vec![]),
        ("$.a[*].n", false, vec!["1".to_owned(), "2".to_owned()]),
        ("$.b.*", false, vec!["[5]".to_owned()]),
        ("$['']", true, vec!["0".to_owned()]),
        ("$.a[?@.n > 1]", false, vec![r#"{"n":2}"#.to_owned()]),
        ("$..n", false, vec!["1".to_owned(), "2".to_owned()]),
        ("$.a[0:2].n", false, vec!["1".to_owned(), "2".to_owned()]),
        ("$.a[0]['n','t']", false, vec!["1".to_owned(), "\"x\"".to_owned()]),
        ("$.a[?match(@.t, '[x]')].t", false, vec!["\"x\"".to_owned()]),
    ] {
        let query = Query::parse(text).unwrap();
        assert_eq!(query.is_singular(), singular, "{text}");
        let mut run = Run::new(Moment { arrived_nanoseconds: 0 });
        let selected: Vec<_> =
            query.select(&data, &mut run).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(selected, expected, "{text}");
    }
    let wide = Json::Array(vec![Json::Null; 4_000]);
    let query = Query::parse("$..[?$..*]").unwrap();
    let mut run = Run::new(Moment { arrived_nanoseconds: 0 });
    assert_eq!(query.select(&wide, &mut run).unwrap_err().code.id(), "E0901");
    assert!(Query::parse("$.a[").is_err());
}

#[test]
fn what_is_not_wanted_is_passed_over() {
    let text =
        r#"{"a": {"x": [1, {"n": 2}, 3], "y": "z"}, "b": 1.50, "\u0061b": [[]], "c": {"d": 1}, "b": 2}"#;
    let read = |paths: &[&[&str]]| {
        let mut wanted = Wanted::default();
        for path in paths {
            let place = path.iter().fold(&mut wanted, |wanted, hop| match hop.parse() {
                Ok(index) => wanted.element(index),
                Err(_) => wanted.member(hop),
            });
            *place = Wanted::Whole;
        }
        Json::read_wanted(text, &wanted).unwrap().to_string()
    };
    assert_eq!(read(&[]), "{}");
    assert_eq!(read(&[&["b"], &["missing"]]), r#"{"b":2}"#);
    assert_eq!(read(&[&["ab"]]), r#"{"ab":[[]]}"#);
    assert_eq!(read(&[&["a", "x", "1", "n"], &["c", "0"]]), r#"{"a":{"x":[null,{"n":2}]},"c":{}}"#);
    assert_eq!(read(&[&["a", "y"], &["a"]]), r#"{"a":{"x":[1,{"n":2},3],"y":"z"}}"#);
    assert_eq!(read(&[&["a"], &["a", "y"]]), r#"{"a":{"x":[1,{"n":2},3],"y":"z"}}"#);
    assert_eq!(read(&[&["a", "0"], &["a", "y"]]), r#"{"a":{"x":[1,{"n":2},3],"y":"z"}}"#);
    assert_eq!(read(&[&["b", "0"]]), r#"{"b":2}"#);
}
