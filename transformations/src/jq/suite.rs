use serde_json::json;

use crate::trial;

fn all(query: &str, data: &str) -> Result<String, String> {
    trial::data("jq", &json!({ "query": query }), data)
}

fn last(query: &str, data: &str) -> Result<String, String> {
    trial::data("jq", &json!({ "query": query, "outputs": "last" }), data)
}

const PERSON: &str = r#"{"name":{"first":"bob","last":"smith"},"age": 42,"greeting": "hello"}"#;

/// What TriggerMesh's adapter answers: the last output alone, `null` where there is none.
#[test]
fn answers_as_the_adapter_of_triggermesh() {
    for (query, data, expected) in [
        (".greeting | ..", PERSON, r#""hello""#),
        (".[1].greeting", r#"[{"age": 42},{"greeting": "hello"}]"#, r#""hello""#),
        (".", PERSON, r#"{"name":{"first":"bob","last":"smith"},"age":42,"greeting":"hello"}"#),
        (".name", PERSON, r#"{"first":"bob","last":"smith"}"#),
        (".name.first", PERSON, r#""bob""#),
        (".missing", PERSON, "null"),
        (".a.b.c", "{}", "null"),
        (".[]", "[1,2,3]", "3"),
        (".[]", "[]", "null"),
        ("empty", "1", "null"),
        ("1, 2", "null", "2"),
        ("{id: .id, n: .items | length}", r#"{"id":"a","items":[1,2]}"#, r#"{"id":"a","n":2}"#),
        ("{id, at: .t}", r#"{"id":7,"t":"x"}"#, r#"{"id":7,"at":"x"}"#),
        ("[.items[] | select(.n > 1) | .id]", r#"{"items":[{"id":"a","n":1},{"id":"b","n":2}]}"#, r#"["b"]"#),
        ("map(. * 2)", "[1,2]", "[2,4]"),
        ("map_values(. + 1)", r#"{"a":1,"b":2}"#, r#"{"a":2,"b":3}"#),
        ("to_entries", r#"{"a":1}"#, r#"[{"key":"a","value":1}]"#),
        (
            "from_entries",
            r#"[{"key":"a","value":1},{"k":"b","v":2},{"name":"c","value":3}]"#,
            r#"{"a":1,"b":2,"c":3}"#,
        ),
        ("with_entries(.value += 1)", r#"{"a":1}"#, r#"{"a":2}"#),
        ("keys", r#"{"b":1,"a":2}"#, r#"["a","b"]"#),
        ("length", r#""aß""#, "2"),
        ("add", "[1,2,3]", "6"),
        ("add", r#"["a","b"]"#, r#""ab""#),
        ("add", "[]", "null"),
        ("join(\", \")", r#"["a",null,1,true]"#, r#""a, , 1, true""#),
        ("split(\",\")", r#""a,b,,c""#, r#"["a","b","","c"]"#),
        ("\"\\(.a) is \\(.b)\"", r#"{"a":"x","b":[1]}"#, r#""x is [1]""#),
        ("del(.a)", r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        ("del(.a.b)", "{}", "{}"),
        ("del(.[0, 2])", "[1,2,3]", "[2]"),
        (".a.b = 1", "{}", r#"{"a":{"b":1}}"#),
        (".[2] = 1", "null", "[null,null,1]"),
        (".a += 1", r#"{"a":1}"#, r#"{"a":2}"#),
        (".a |= ascii_upcase", r#"{"a":"x"}"#, r#"{"a":"X"}"#),
        ("sort_by(.n) | map(.n)", r#"[{"n":2},{"n":1}]"#, "[1,2]"),
        ("group_by(.t) | map(length)", r#"[{"t":1},{"t":2},{"t":1}]"#, "[2,1]"),
        ("unique", "[2,1,2]", "[1,2]"),
        ("flatten", "[1,[2,[3]]]", "[1,2,3]"),
        ("flatten(1)", "[1,[2,[3]]]", "[1,2,[3]]"),
        ("if .a then \"y\" else \"n\" end", r#"{"a":0}"#, r#""y""#),
        (".a // \"none\"", r#"{"a":null}"#, r#""none""#),
        ("try error(\"x\") catch .", "null", r#""x""#),
        (".[] as $x | $x + 1", "[1,2]", "3"),
        ("reduce .[] as $x (0; . + $x)", "[1,2,3]", "6"),
        ("[foreach .[] as $x (0; . + $x)]", "[1,2,3]", "[1,3,6]"),
        ("def f(x): x * 2; f(.)", "4", "8"),
        ("[limit(3; range(10))]", "null", "[0,1,2]"),
        ("first(range(5))", "null", "0"),
        ("[range(0; 10; 4)]", "null", "[0,4,8]"),
        ("[.[] | tostring]", r#"[1,"a",[1]]"#, r#"["1","a","[1]"]"#),
        ("tonumber", r#""12.5""#, "12.5"),
        ("tojson", r#"{"a":1}"#, r#""{\"a\":1}""#),
        ("fromjson", r#""{\"a\":[1]}""#, r#"{"a":[1]}"#),
        ("test(\"^A\"; \"i\")", r#""abc""#, "true"),
        ("capture(\"(?<y>\\\\d+)-(?<m>\\\\d+)\")", r#""2026-11""#, r#"{"y":"2026","m":"11"}"#),
        ("gsub(\"a\"; \"b\")", r#""banana""#, r#""bbnbnb""#),
        ("[match(\"b\"; \"g\").offset]", r#""äbab""#, "[1,3]"),
        ("[scan(\"[a-z]\")]", r#""a1b""#, r#"["a","b"]"#),
        ("sub(\"(?<x>[0-9])\"; \"<\\(.x)>\")", r#""a1b2""#, r#""a<1>b2""#),
        ("@base64", r#""hi""#, r#""aGk=""#),
        ("@base64d", r#""aGk=""#, r#""hi""#),
        ("@uri", r#""a b&c""#, r#""a%20b%26c""#),
        ("@html", r#""<a>""#, r#""&lt;a&gt;""#),
        ("@csv", r#"[1,"a\"b",null,true]"#, r#""1,\"a\"\"b\",,true""#),
        ("@tsv", r#"["a\tb",1]"#, r#""a\\tb\t1""#),
        ("todate", "1700000000", r#""2023-11-14T22:13:20Z""#),
        ("fromdate", r#""2023-11-14T22:13:20Z""#, "1700000000"),
        ("[paths]", r#"{"a":[1]}"#, r#"[["a"],["a",0]]"#),
        ("[leaf_paths]", r#"{"a":[1]}"#, r#"[["a",0]]"#),
        ("getpath([\"a\",\"b\"])", r#"{"a":null}"#, "null"),
        ("walk(if type == \"number\" then . + 1 else . end)", "[1,[2]]", "[2,[3]]"),
        (".[1:3]", "[1,2,3,4]", "[2,3]"),
        (".[-1]", "[1,2]", "2"),
        ("index(\"b\")", r#""abcb""#, "1"),
        ("indices(1)", "[1,2,1]", "[0,2]"),
        ("contains({a: \"b\"})", r#"{"a":"abc"}"#, "true"),
        ("has(\"a\")", r#"{"a":null}"#, "true"),
        ("any(. > 1), all(. > 0)", "[1,2]", "true"),
        ("type", "[]", r#""array""#),
        ("transpose", "[[1,2],[3]]", "[[1,3],[2,null]]"),
        ("ltrimstr(\"a\") | rtrimstr(\"c\")", r#""abc""#, r#""b""#),
        ("explode | implode", r#""aß""#, r#""aß""#),
        ("min, max", "[2,1,3]", "3"),
        ("[splits(\", *\")]", r#""a, b,c""#, r#"["a","b","c"]"#),
        ("ascii", "65", r#""A""#),
        ("env, $ENV", "1", "{}"),
        ("nan | isnan", "1", "true"),
        ("[infinite, -infinite, nan]", "1", "[1.7976931348623157e+308,-1.7976931348623157e+308,null]"),
        ("1 / 3 * 3", "null", "1"),
        (". * {b: {d: 2}}", r#"{"a":1,"b":{"c":1}}"#, r#"{"a":1,"b":{"c":1,"d":2}}"#),
        (". - [1]", "[1,2,1]", "[2]"),
        ("\"ab\" * 2", "null", r#""abab""#),
        ("7 % 3", "null", "1"),
        ("label $out | 1, break $out, 2", "null", "1"),
        ("until(. > 100; . * 2)", "1", "128"),
        ("[recurse(if . < 3 then . + 1 else empty end)]", "1", "[1,2,3]"),
        ("input_filename? // 1", "null", "1"),
    ] {
        if query.starts_with("input_filename") {
            assert!(last(query, data).expect_err(query).contains("no function"));
            continue;
        }
        assert_eq!(last(query, data).as_deref(), Ok(expected), "{query} of {data}");
    }
}

#[test]
fn sends_every_output() {
    for (query, data, expected) in [
        (".items[]", r#"{"items":[1,"a",{"b":null}]}"#, r#"1 "a" {"b":null}"#),
        ("1, 2", "null", "1 2"),
        (".[] | select(. > 1)", "[1,2,3]", "2 3"),
        ("empty", "null", ""),
        ("range(3)", "null", "0 1 2"),
    ] {
        assert_eq!(all(query, data).as_deref(), Ok(expected), "{query}");
    }
    let ids = |query: &str| -> Vec<String> {
        let events = trial::events("jq", &json!({ "query": query }), &trial::event("[5,6]")).expect(query);
        events.iter().map(|event| event.id().to_owned()).collect()
    };
    assert_eq!(ids(".[]"), ["1-0", "1-1"]);
    assert_eq!(ids(".[0]"), ["1"]);
    assert_eq!(ids("range(1000)").len(), 1_000);
}

#[test]
fn numbers_keep_their_digits() {
    for text in [
        "9007199254740993",
        "123456789012345678901234567890",
        "-9223372036854775809",
        "0.1000000000000000055511151231257827",
        "1.50",
        "-0",
        "1E5",
    ] {
        assert_eq!(all(".a", &format!(r#"{{"a":{text}}}"#)).as_deref(), Ok(text));
        assert_eq!(all("{b: [.a]}", &format!(r#"{{"a":{text}}}"#)), Ok(format!(r#"{{"b":[{text}]}}"#)));
    }
    assert_eq!(all(". + 1", "9007199254740993").as_deref(), Ok("9007199254740994"));
    assert_eq!(all(". + 1", "1.5").as_deref(), Ok("2.5"));
    assert_eq!(all(". * 1.0", "3").as_deref(), Ok("3"));
}

#[test]
fn sees_attributes_and_the_log_time() {
    let events = |query: &str| {
        let event = trial::event("{}");
        let event = event.with_attribute("count", 7).expect("valid");
        let event = event.with_attribute("flag", true).expect("valid");
        trial::events("jq", &json!({ "query": query }), &event).map(|events| trial::text_of(&events[0]))
    };
    assert_eq!(events("$attributes.type").as_deref(), Ok(r#""order""#));
    assert_eq!(
        events("[$attributes | .id, .source, .subject, .specversion, .count, .flag, .none]").as_deref(),
        Ok(r#"["1","/shop","s","1.0",7,true,null]"#)
    );
    assert_eq!(events("now").as_deref(), Ok("1795309323.5"));
    assert_eq!(events("now | todate").as_deref(), Ok(r#""2026-11-22T01:02:03Z""#));
}

#[test]
fn keeps_attributes_and_takes_no_data_as_null() {
    let events = trial::events("jq", &json!({"query": "{a: 1}"}), &trial::event("{}")).expect("events");
    assert_eq!((events[0].subject(), events[0].data_content_type()), (Some("s"), Some("application/json")));
    let bare = waypost_core::Event::builder("1", "/shop", "order").build().expect("valid");
    let events = trial::events("jq", &json!({"query": ". // 5"}), &bare).expect("events");
    assert_eq!(trial::text_of(&events[0]), "5");
    assert_eq!(events[0].data_content_type(), Some("application/json"));
}

#[test]
fn refuses_bad_programs_with_their_place() {
    let mut wrong = Vec::new();
    for (query, reason) in [
        ("", "the program is empty"),
        (".a |", "the program ends too early: term expected, at line 1, column 5"),
        (".a\n| .b )", "at line 2, column 6"),
        ("(.a", "closing parenthesis expected, at line 1, column 4"),
        (". | foo", "there is no function `foo`, at line 1, column 5"),
        ("foo(1)", "there is no function `foo` that takes 1 arguments, at line 1, column 1"),
        (".a + $b", "there is no variable `$b`, at line 1, column 6"),
        ("break $x", "there is no label"),
        ("import \"a\" as a; .", "there are no modules to load, not `a` either, at line 1"),
        ("include \"a\"; .", "there are no modules"),
        ("halt", "there is no function `halt`"),
        ("halt_error", "there is no function `halt_error`"),
        ("input", "there is no function `input`"),
        ("localtime", "there is no function `localtime`"),
        ("if . then 1", "at line 1, column 12"),
        ("\"\\q\"", "string escape sequence expected"),
        (". as [$a, $b", "expected"),
        ("{a: }", "expected"),
        ("¤", "token expected, at line 1, column 1"),
    ] {
        let error = trial::compile("jq", &json!({ "query": query })).map(|_| ()).expect_err(query);
        if !error.starts_with("query: ") || !error.contains(reason) {
            wrong.push((query, error));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let long = format!(".{}", " ".repeat(super::MAX_PROGRAM_BYTES));
    assert!(trial::compile("jq", &json!({ "query": long })).is_err());
    let deep = format!("{}.{}", "[".repeat(8_000), "]".repeat(8_000));
    // Read or refused, but in any case answered.
    drop(trial::compile("jq", &json!({ "query": deep })));
}

#[test]
fn errors_are_told_in_a_sentence() {
    let mut wrong = Vec::new();
    for (query, data, reason) in [
        (".a.b", r#"{"a":1}"#, "the program of jq fails: cannot index 1 with \"b\""),
        ("error(\"no\")", "null", "the program of jq fails: no"),
        ("error({a: 1})", "null", "the program of jq fails: {\"a\":1}"),
        (".[0]", "{}", "cannot index"),
        ("1 / 0", "null", "divided by zero"),
        ("\"a\" - 1", "null", "cannot calculate \"a\" - 1"),
        ("{(1): 2}", "null", "object keys must be strings"),
        ("fromjson", r#""{""#, "cannot be parsed as JSON"),
        ("test(\"(\")", r#""a""#, "the pattern is not valid"),
        ("keys", "1", "cannot use 1 as iterable"),
    ] {
        let result = all(query, data);
        if !result.as_ref().is_err_and(|error| error.contains(reason)) {
            wrong.push((query, result));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let error = all(".", "not json").expect_err("not JSON");
    assert!(error.contains("cannot be read"), "{error}");
    let event = trial::event_of("text/plain", "x");
    let error = trial::events("jq", &json!({"query": "."}), &event).expect_err("not JSON");
    assert!(error.contains("not JSON"), "{error}");
}

#[test]
fn what_loops_or_grows_without_end_is_stopped() {
    let mut wrong = Vec::new();
    for query in [
        "def f: f; f",
        "def f: 1 + f; f",
        "def f: f, f; f",
        "def f(g): f(g | . + 1); f(.)",
        "def f(g): f(g | . + 1); f(1) | f(2)",
        "def f($n): f($n + 1); f(0)",
        "[recurse(.)] | length",
        "last(range(1; 1e18))",
        "[range(1e12)]",
        "[limit(1e9; repeat(0))]",
        "repeat(.)",
        "last(repeat(1))",
        "until(false; .)",
        "[while(true; .)]",
        "\"x\" * 1e12",
        "\"x\" * 1000000000",
        "reduce range(60) as $i (\"x\"; . + .)",
        "reduce range(60) as $i (\"x\"; \"\\(.)\\(.)\")",
        "reduce range(60) as $i (0; [., .])",
        "reduce range(60) as $i (0; {a: ., b: .})",
        "reduce range(60) as $i (0; [., .]) | tojson",
        "(reduce range(60) as $i (0; [., .])) as $x | $x == $x",
        "reduce range(60) as $i ({}; .a = . | .b = .a)",
        "reduce range(1e9) as $i (0; [.])",
        "reduce range(100000) as $i (0; {a: .})",
        "reduce range(100000) as $i ({}; .a = .)",
        "reduce range(40) as $i (10; . * .)",
        "[.[0] = 1 | .[1e9] = 1]",
        "try repeat(.) catch .",
        "first(def f: f; f)?",
        "[range(2000)]  | combinations(5)",
        "reduce range(1e9) as $i ([]; . + [$i])",
        "[range(100000)] | map(tostring) | add | explode | implode | explode | map([.,.]) | tojson",
        "label $f | repeat(1) | if . == 2 then break $f else . end",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" * 3000 | [match(\"(a*)*b\"; \"g\")] | repeat(.)",
        "test(\"a{1000}{1000}{1000}\")",
        "range(1001)",
        "def a: def b: a; b; a",
        "[range(10000)] | sort_by([range(1000)])",
        "[range(1e5) | tostring] | join(\"\") | [scan(\".\")] | [.[] | [scan(\".\")]] | repeat(.)",
        "limit(2; repeat(empty))",
        "isempty(repeat(empty))",
        "[splits(\"\")] | repeat(empty)",
        "path(repeat(.))",
        "[path(repeat(.))]",
        "(repeat(.)) |= 1",
        "getpath([range(1e9)])",
        "@base64 \"\\(\"x\" * 1e7)\" | @base64 | @base64 | @base64",
    ] {
        let data = if query.starts_with("test") { "\"a\"" } else { "null" };
        let Err(error) = all(query, data) else {
            wrong.push((query, String::new()));
            continue;
        };
        let stopped = error.contains("was stopped") || error.contains("more than 1000 outputs");
        if !stopped && !query.starts_with("test") && !query.starts_with("[splits") {
            wrong.push((query, error));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn values_are_as_deep_as_data_may_be() {
    let nested = |levels: usize| format!("reduce range({levels}) as $i (0; [.])");
    assert!(all(&nested(127), "null").is_ok());
    let error = all(&nested(128), "null").expect_err("too deep");
    assert!(error.contains("nested deeper than data may be"), "{error}");
    let error = all(&format!("reduce range({}) as $i ([]; [.])", 127), "null").expect_err("too deep");
    assert!(error.contains("nested deeper than data may be"), "{error}");
}

#[test]
fn a_stopped_program_leaves_nothing_behind() {
    let program =
        trial::compile("jq", &json!({"query": "if . == 1 then repeat(.) else . end"})).expect("compiles");
    assert!(trial::apply(&program, &trial::event("1")).is_err());
    assert!(trial::apply(&program, &trial::event("2")).is_ok());
    assert!(trial::apply(&program, &trial::event("1")).is_err());
    assert!(trial::apply(&program, &trial::event("2")).is_ok());
}

#[test]
fn a_program_may_work_on_much_data() {
    let data: Vec<_> =
        (0..2_000).map(|n| json!({"id": n, "name": format!("item {n}"), "tags": ["a", "b"]})).collect();
    let data = serde_json::to_string(&json!({ "items": data })).expect("JSON");
    for (query, expected) in [
        (".items | map(select(.id % 2 == 0)) | length", "1000"),
        ("[.items[] | {id, t: .tags[0]}] | length", "2000"),
        ("reduce .items[] as $i (\"\"; . + $i.name) | length", "16890"),
        (".items | group_by(.id % 10) | map(length) | add", "2000"),
        ("[.items[].id] | add", "1999000"),
        (".items | sort_by(-.id) | .[0].id", "1999"),
    ] {
        assert_eq!(all(query, &data).as_deref(), Ok(expected), "{query}");
    }
}

#[test]
fn the_same_steps_are_taken_each_time() {
    // The second run finds its pattern compiled.
    let program =
        trial::compile("jq", &json!({"query": "[test(\"a\"), now, $attributes.id]"})).expect("compiles");
    let first = trial::apply(&program, &trial::event("\"a\""));
    assert_eq!(first, trial::apply(&program, &trial::event("\"a\"")));
    assert!(first.is_ok());
}

mod properties {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::all;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("a number", |number| number.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..6)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_only_moved_stays_what_it_is(value in any_json()) {
            let text = value.to_string();
            prop_assert_eq!(all("{a: [.]} | .a[0]", &text), Ok(text.clone()));
            prop_assert_eq!(all("tojson | fromjson", &text), Ok(text));
        }

        #[test]
        fn paths_lead_to_what_is_there(value in any_json()) {
            let text = value.to_string();
            let rebuilt = ". as $v | reduce paths(type != \"object\" and type != \"array\") as $p (.; setpath($p; $v | getpath($p)))";
            prop_assert_eq!(all(rebuilt, &text), Ok(text));
            let sorted = all("[.. | numbers] | sort", &json!([value]).to_string());
            prop_assert!(sorted.is_ok());
        }
    }
}
