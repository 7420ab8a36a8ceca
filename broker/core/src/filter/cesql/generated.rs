//! What holds for every expression.

use proptest::prelude::*;

use super::tree::{ArithmeticOperator, Chain, ComparisonOperator, Kind, LogicOperator, Node};
use super::*;
use crate::event::Event;

/// Writes a tree with parentheses around every operation, so that precedence cannot matter.
fn write(node: &Node) -> String {
    fn chain<O: Copy>(chain: &Chain<O>, symbol: fn(O) -> &'static str) -> String {
        let rest =
            chain.rest.iter().map(|(operator, node)| format!(" {} {}", symbol(*operator), write(node)));
        format!("({}{})", write(&chain.first), rest.collect::<String>())
    }
    let list = |nodes: &[Node]| nodes.iter().map(write).collect::<Vec<_>>().join(", ");
    let not = |negated: &bool| if *negated { "NOT " } else { "" };
    match &node.kind {
        Kind::Literal(value) => value.to_string(),
        Kind::Attribute(name) => name.to_string(),
        Kind::Exists(name) => format!("EXISTS {name}"),
        Kind::Not(operand) => format!("(NOT {})", write(operand)),
        Kind::Negative(operand) => format!("(- {})", write(operand)),
        Kind::Like { value, negated, pattern } => {
            let pattern = Value::String(pattern.text().into());
            format!("({} {}LIKE {pattern})", write(value), not(negated))
        }
        Kind::In { value, negated, set } => format!("({} {}IN ({}))", write(value), not(negated), list(set)),
        Kind::Arithmetic(operators) => chain(operators, |operator| match operator {
            ArithmeticOperator::Multiply => "*",
            ArithmeticOperator::Divide => "/",
            ArithmeticOperator::Modulo => "%",
            ArithmeticOperator::Add => "+",
            ArithmeticOperator::Subtract => "-",
        }),
        Kind::Comparison(operators) => chain(operators, |operator| match operator {
            ComparisonOperator::Equal => "=",
            ComparisonOperator::NotEqual => "<>",
            ComparisonOperator::Less => "<",
            ComparisonOperator::LessOrEqual => "<=",
            ComparisonOperator::Greater => ">",
            ComparisonOperator::GreaterOrEqual => ">=",
        }),
        Kind::Logic(operators) => chain(operators, LogicOperator::keyword),
        Kind::Call { name, arguments, .. } => format!("{name}({})", list(arguments)),
    }
}

pub(in crate::filter) fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("TRUE".to_owned()),
        Just("false".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        (-3..9).prop_map(|number: i32| number.to_string()),
        "'[ab%_1é]{0,3}'",
        "[abc]",
        "EXISTS [abc]",
    ];
    let pattern = "'[ab%_]{0,4}'";
    let operator = prop::sample::select(vec![
        "=", "!=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "AND", "OR", "XOR",
    ]);
    let function = prop::sample::select(vec![
        "LENGTH",
        "CONCAT",
        "CONCAT_WS",
        "LOWER",
        "UPPER",
        "TRIM",
        "LEFT",
        "RIGHT",
        "SUBSTRING",
        "ABS",
        "INT",
        "BOOL",
        "STRING",
        "NONE",
    ]);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            (inner.clone(), operator.clone(), inner.clone())
                .prop_map(|(x, operator, y)| format!("{x} {operator} {y}")),
            (inner.clone(), pattern).prop_map(|(x, pattern)| format!("{x} LIKE {pattern}")),
            (inner.clone(), prop::collection::vec(inner.clone(), 1..3))
                .prop_map(|(x, set)| format!("{x} NOT IN ({})", set.join(", "))),
            (inner.clone(), prop::collection::vec(inner.clone(), 1..3))
                .prop_map(|(x, set)| format!("{x} IN ({})", set.join(", "))),
            inner.clone().prop_map(|x| format!("NOT {x}")),
            inner.clone().prop_map(|x| format!("- {x}")),
            inner.clone().prop_map(|x| format!("({x})")),
            (function.clone(), prop::collection::vec(inner, 0..4))
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
        ]
    })
}

pub(in crate::filter) fn events() -> impl Strategy<Value = Event> {
    let value = prop_oneof![
        any::<bool>().prop_map(crate::event::AttributeValue::from),
        (-3..9_i32).prop_map(crate::event::AttributeValue::from),
        "(true|TRUE|05|1|[ab%é]{0,3})".prop_map(crate::event::AttributeValue::from),
    ];
    prop::collection::btree_map("[abc]", value, 0..4).prop_map(|attributes| {
        let start = Event::builder("1", "/", "t");
        attributes
            .into_iter()
            .fold(start, |builder, (name, value)| builder.attribute(name, value))
            .build()
            .unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4 * ProptestConfig::default().cases))]

    #[test]
    fn no_text_panics(text in "[ a-cNOTI()'\"=<>!,%*/+_0-9é\\\\-]{0,40}") {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(error.offset() <= text.len() && text.is_char_boundary(error.offset()));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn what_is_written_out_is_the_same_tree(text in expressions()) {
        let once = write(Expression::parse(&text).unwrap().root());
        let again = Expression::parse(&once).unwrap();
        prop_assert_eq!(write(again.root()), once);
    }

    #[test]
    fn both_modes_agree_and_always(text in expressions(), event in events()) {
        let expression = Expression::parse(&text).unwrap();
        let candidate = Candidate::new(&event);
        let evaluation = expression.evaluate(&candidate).unwrap();
        prop_assert_eq!(expression.holds(&candidate), Ok(evaluation.passes()));
        let written_out = Expression::parse(&write(expression.root())).unwrap();
        prop_assert_eq!(written_out.evaluate(&candidate).unwrap().value, evaluation.value.clone());
        prop_assert_eq!(expression.evaluate(&candidate).unwrap(), evaluation);
    }

    #[test]
    fn what_is_implied_holds_whenever_the_expression_does(text in expressions(), event in events()) {
        let expression = Expression::parse(&text).unwrap();
        let candidate = Candidate::new(&event);
        if expression.holds(&candidate) == Ok(true) {
            let implied = expression.implied();
            prop_assert!(implied.matches_event(&event), "{:?}", implied);
        }
    }
}
