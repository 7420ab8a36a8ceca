//! The traps of the norm, the places of errors, and what holds for every expression.

mod tck;

use super::*;
use crate::event::Event;

fn event() -> Event {
    Event::builder("1", "/shop", "com.example.order")
        .attribute("subject", "orders/42")
        .attribute("sequence", "10")
        .attribute("time", "2018-04-26T14:48:09+02:00")
        .attribute("myint", 7)
        .attribute("mybool", true)
        .build()
        .unwrap()
}

fn evaluate(text: &str) -> Evaluation {
    Expression::parse(text).unwrap().evaluate(&Candidate::new(&event())).unwrap()
}

fn value(text: &str) -> Value<'static> {
    let evaluation = evaluate(text);
    assert_eq!(evaluation.errors, [], "{text}");
    evaluation.value
}

fn failure(text: &str) -> (Value<'static>, ErrorClass) {
    let evaluation = evaluate(text);
    let [error] = evaluation.errors.as_slice() else { panic!("one error for {text}: {evaluation:?}") };
    (evaluation.value, error.class())
}

fn integer(number: i32) -> Value<'static> {
    Value::Integer(number)
}

fn boolean(truth: bool) -> Value<'static> {
    Value::Boolean(truth)
}

fn text(text: &'static str) -> Value<'static> {
    Value::String(text.into())
}

fn error(text: &str) -> ParseError {
    Expression::parse(text).expect_err(text)
}

fn warnings(text: &str) -> Vec<String> {
    Expression::parse(text).unwrap().warnings().iter().map(Warning::to_string).collect()
}

#[test]
fn trap_1_every_number_but_zero_is_true() {
    assert_eq!(value("NOT 10"), boolean(false));
    assert_eq!(value("NOT 0"), boolean(true));
}

#[test]
fn trap_2_logic_is_one_level_from_the_left() {
    assert_eq!(value("TRUE OR FALSE AND FALSE"), boolean(false));
    assert_eq!(value("FALSE AND FALSE OR TRUE"), boolean(true));
    assert_eq!(value("TRUE XOR TRUE OR TRUE AND FALSE"), boolean(false));
    assert_eq!(
        warnings("TRUE OR FALSE AND FALSE"),
        ["OR and AND stand beside each other without parentheses, at line 1, column 1 of the expression"]
    );
    assert_eq!(warnings("TRUE AND (FALSE OR FALSE) AND TRUE"), [""; 0]);
}

#[test]
fn trap_3_a_sign_after_a_value_is_an_operator() {
    assert_eq!(value("sequence-1"), integer(9));
    assert_eq!(value("4-1"), integer(3));
    assert_eq!(value("4 -1"), integer(3));
    assert_eq!(value("4--1"), integer(5));
    assert_eq!(value("4+1"), integer(5));
    assert_eq!(value("4++1"), integer(5));
    assert_eq!(value("(4)-1"), integer(3));
    assert_eq!(value("+4"), integer(4));
    assert_eq!(error("+sequence").offset(), 0);
}

#[test]
fn trap_4_patterns_escape_only_wildcards_and_count_characters() {
    assert_eq!(value(r"'ab\c' LIKE 'ab\c'"), boolean(true));
    assert_eq!(value(r"'a%' LIKE 'a\%' AND 'ab' NOT LIKE 'a\%'"), boolean(true));
    assert_eq!(value("'é' LIKE '_'"), boolean(true));
    assert_eq!(value("'abcd1' LIKE '_b%'"), boolean(true));
    assert_eq!(value("'b' LIKE '_b%'"), boolean(false));
    assert_eq!(error("type LIKE subject").offset(), 10);
}

#[test]
fn trap_5_text_is_counted_in_characters() {
    assert_eq!(value("LENGTH('é😀')"), integer(2));
    assert_eq!(value("LEFT('é😀a', 2)"), text("é😀"));
    assert_eq!(value("RIGHT('é😀a', 2)"), text("😀a"));
    assert_eq!(value("SUBSTRING('é😀a', 2, 1)"), text("😀"));
    assert_eq!(value("SUBSTRING('é😀a', -1)"), text("a"));
    assert_eq!(failure("SUBSTRING('abc', 1, -1)"), (text(""), ErrorClass::FunctionEvaluation));
    assert_eq!(value("SUBSTRING('abc', 2, 0)"), text(""));
    assert_eq!(failure("SUBSTRING('abc', -2147483648)"), (text(""), ErrorClass::FunctionEvaluation));
}

#[test]
fn trap_6_what_is_no_number_of_32_bits_is_zero_with_an_error() {
    let overflow = (integer(0), ErrorClass::Math);
    for expression in [
        "2147483647 + 1",
        "-2147483648 - 1",
        "65536 * 65536",
        "-(-2147483648)",
        "--2147483648",
        "-2147483648 / -1",
        "-2147483648 % -1",
        "1 / 0",
        "1 % 0",
    ] {
        assert_eq!(failure(expression), overflow, "{expression}");
    }
    assert_eq!(value("-2147483648"), integer(i32::MIN));
    assert_eq!(failure("ABS(-2147483648)"), (integer(i32::MAX), ErrorClass::Math));
    assert_eq!(error("2147483648").column(), 1);
    assert_eq!(value("-7 / 2"), integer(-3));
    assert_eq!(value("-7 % 2"), integer(-1));
}

#[test]
fn trap_7_quotes_are_escaped_and_never_doubled() {
    assert_eq!(value(r"'it\'s'"), text("it's"));
    assert_eq!(value(r#"'say "hi"'"#), text("say \"hi\""));
    assert_eq!(value("''"), text(""));
    let doubled = error("type = 'it''s'");
    assert_eq!(
        (doubled.offset(), doubled.to_string()),
        (11, "two strings follow each other, at line 1, column 12 of the expression".into())
    );
    assert_eq!(
        error("('it''s')").to_string(),
        "two strings follow each other, at line 1, column 6 of the expression"
    );
}

#[test]
fn trap_8_an_attribute_has_the_type_of_the_wire() {
    let of_header = Event::builder("1", "/", "t").attribute("mybool", "true").build().unwrap();
    let passes = |text: &str, event: &Event| {
        Expression::parse(text).unwrap().evaluate(&Candidate::new(event)).unwrap()
    };
    assert_eq!(passes("mybool", &event()).value, boolean(true));
    assert_eq!(passes("mybool", &of_header).value, text("true"));
    for expression in ["BOOL(mybool)", "mybool = true", "mybool"] {
        assert!(passes(expression, &event()).passes(), "{expression}");
        assert!(passes(expression, &of_header).passes(), "{expression}");
    }
    assert_eq!(value("myint"), integer(7));
    assert_eq!(value("source"), text("/shop"));
}

#[test]
fn trap_9_time_is_the_text_as_it_was_written() {
    assert_eq!(value("time"), text("2018-04-26T14:48:09+02:00"));
}

#[test]
fn trap_10_keywords_and_numbers_are_no_attributes() {
    for keyword in ["in", "OR", "not", "Like", "exists", "xor", "and"] {
        assert_eq!(error(&format!("1 = {keyword}")).line(), 1, "{keyword}");
    }
    assert_eq!(value("true"), boolean(true));
    assert_eq!(value("123"), integer(123));
    assert_eq!(failure("1abc"), (boolean(false), ErrorClass::MissingAttribute));
    assert!(error("type = in").help().contains("`exact`"));
    assert!(Expression::parse("EXISTS in").is_err() && Expression::parse("EXISTS 12").is_err());
}

#[test]
fn trap_11_depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::parse(&nested(MAX_DEPTH)).is_ok());
    assert!(error(&nested(MAX_DEPTH + 1)).to_string().contains("nested deeper"));
    assert!(error(&"NOT ".repeat(8_000)).to_string().contains("nested deeper"));
    assert!(error(&"-".repeat(10_000)).to_string().contains("nested deeper"));
    assert!(error(&format!("type{}", " LIKE 'a'".repeat(1_000))).to_string().contains("nested deeper"));
    assert!(error(&format!("'{}'", "a".repeat(MAX_EXPRESSION_BYTES))).to_string().contains("longer than"));
    let wide = format!("1{}", " OR 1".repeat(6_000));
    assert_eq!(value(&wide), boolean(true));
    let deep = format!("{}TRUE{}", "(NOT (TRUE = ".repeat(MAX_DEPTH / 3), "))".repeat(MAX_DEPTH / 3));
    assert!(Expression::parse(&deep).is_ok());
}

#[test]
fn something_missing_is_the_zero_value_of_what_is_made_of_it() {
    let missing = |value| (value, ErrorClass::MissingAttribute);
    for (expression, zero) in [
        ("absent", boolean(false)),
        ("absent * 5", integer(0)),
        ("1 / absent", integer(0)),
        ("-absent", integer(0)),
        ("NOT absent", boolean(false)),
        ("absent != 2", boolean(false)),
        ("absent NOT LIKE 'a'", boolean(false)),
        ("absent NOT IN (1)", boolean(false)),
        ("LENGTH(absent)", integer(0)),
        ("CONCAT('a', absent)", text("")),
        ("absent OR TRUE", boolean(false)),
        ("TRUE XOR absent", boolean(false)),
    ] {
        assert_eq!(failure(expression), missing(zero), "{expression}");
    }
    let several = evaluate("absent OR (other = 'a') XOR (1 / 0 = 1)");
    let classes: Vec<_> = several.errors.iter().map(Error::class).collect();
    assert_eq!(classes, [ErrorClass::MissingAttribute, ErrorClass::MissingAttribute, ErrorClass::Math]);
    assert_eq!(&"absent OR (other = 'a')"[several.errors[1].span()], "other");
}

#[test]
fn what_is_passed_over_is_not_evaluated() {
    assert_eq!(value("FALSE AND absent"), boolean(false));
    assert_eq!(value("TRUE OR absent"), boolean(true));
    assert_eq!(value("FALSE AND absent OR TRUE"), boolean(true));
    assert_eq!(value("1 IN (1, absent)"), boolean(true));
    assert_eq!(failure("1 IN (absent, 1)"), (boolean(false), ErrorClass::MissingAttribute));
    assert_eq!(failure("1 IN ('a', 1)"), (boolean(false), ErrorClass::Cast));
}

#[test]
fn unary_operators_come_before_all_others() {
    assert_eq!(value("NOT TRUE = FALSE"), boolean(true));
    assert_eq!(value("NOT (TRUE = FALSE)"), boolean(true));
    assert_eq!(value("NOT 1 = 1"), boolean(false));
    assert_eq!(value("-1 + 2"), integer(1));
    assert_eq!(value("- - 1"), integer(1));
    assert_eq!(value("NOT EXISTS absent"), boolean(true));
    assert_eq!(
        warnings("NOT type = 'a'"),
        [
            "NOT negates only the value after it, before the comparison is applied, at line 1, column 1 of the \
             expression"
        ]
    );
    assert_eq!(warnings("NOT (type = 'a') AND (NOT mybool) = TRUE"), [""; 0]);
}

#[test]
fn functions_that_are_not_there_are_told_and_not_refused() {
    assert_eq!(failure("IS_INT('1')"), (boolean(false), ErrorClass::MissingFunction));
    assert_eq!(failure("SUBSTRING('1')"), (boolean(false), ErrorClass::MissingFunction));
    assert_eq!(
        warnings("LENGHT(type) > 1 OR\n LEFT(type) = 'a'"),
        [
            "there is no function `LENGHT`, at line 1, column 1 of the expression",
            "`LEFT` takes 2 arguments, not 1, at line 2, column 2 of the expression",
        ]
    );
    let warnings = Expression::parse("LENGHT(type) > 1").unwrap().warnings();
    assert!(warnings[0].help().contains("`LENGTH`"), "{warnings:?}");
}

#[test]
fn each_error_has_its_place_and_a_remedy() {
    for (text, line, column) in [
        ("", 1, 1),
        ("   ", 1, 1),
        ("type =", 1, 7),
        ("type = 'a", 1, 8),
        ("type\n  ~ 'a'", 2, 3),
        ("'é' = é", 1, 7),
        ("type 'a'", 1, 6),
        ("(type = 'a'", 1, 12),
        ("LEFT(type, 1", 1, 13),
        ("type IN ()", 1, 10),
        ("type IN 'a'", 1, 9),
        ("type NOT 'a'", 1, 10),
        ("EXISTS (subject)", 1, 8),
        ("a_b = 1", 1, 1),
        ("a1(2)", 1, 1),
        ("_a(2)", 1, 1),
        ("type == 'a'", 1, 6),
        ("a && b", 1, 3),
        ("99999999999", 1, 1),
        ("ABC(", 1, 5),
        ("type LIKE 5", 1, 11),
        ("type,", 1, 5),
        ("a AND", 1, 6),
    ] {
        let error = error(text);
        assert_eq!((error.line(), error.column()), (line, column), "{text:?}: {error}");
        assert!(!error.help().is_empty());
        assert_eq!(error.code(), crate::codes::EXPRESSION_INVALID);
    }
}

#[test]
fn habits_of_other_languages_are_met() {
    for (text, help) in [
        ("type == 'a'", "write `=`"),
        ("a && b", "write `AND`, `OR` and `NOT`"),
        ("a || b", "write `AND`, `OR` and `NOT`"),
    ] {
        assert_eq!(error(text).help(), help, "{text}");
    }
}

#[test]
fn steps_bound_the_work() {
    let long = "x".repeat(2 << 20);
    let event = Event::builder("1", "/", "t").attribute("long", long).build().unwrap();
    let expression = Expression::parse("LENGTH(UPPER(CONCAT(long, long, long))) > 1").unwrap();
    assert_eq!(expression.holds(&Candidate::new(&event)), Err(BudgetSpent));
    assert_eq!(expression.evaluate(&Candidate::new(&event)), Err(BudgetSpent));
    assert_eq!(Expression::parse("LENGTH(long) > 1").unwrap().holds(&Candidate::new(&event)), Ok(true));
}
