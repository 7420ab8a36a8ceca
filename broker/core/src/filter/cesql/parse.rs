//! Text to a tree (section 2, and the precedence of section 3.6).

use std::borrow::Cow;

use super::functions::Function;
use super::token::{self, Token, TokenKind};
use super::tree::{ArithmeticOperator, Chain, ComparisonOperator, Kind, LogicOperator, Node};
use super::value::Value;
use super::{MAX_DEPTH, MAX_EXPRESSION_BYTES};
use crate::codes::{self, Code};
use crate::filter::like::{MAX_PATTERN_BYTES, Pattern};

/// Why there is no such expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at line {line}, column {column} of the expression")]
pub struct ParseError {
    reason: Reason,
    offset: usize,
    line: usize,
    column: usize,
}

impl ParseError {
    fn new(reason: Reason, text: &str, offset: usize) -> Self {
        let (line, column) = place(text, offset);
        Self { reason, offset, line, column }
    }

    /// The code of every error of this kind.
    pub fn code(&self) -> Code {
        codes::EXPRESSION_INVALID
    }

    /// Where, in bytes from 0.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The line in the expression, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in the line, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        self.reason.help()
    }
}

/// The line and the column, in characters, of a byte of the text; both from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("the expression is empty")]
    Empty,
    #[error("the expression is longer than {MAX_EXPRESSION_BYTES} bytes")]
    TooLong,
    #[error("the expression is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the character `{0}` has no meaning here")]
    Character(char),
    #[error("the string has no end")]
    StringOpen,
    #[error("a value is expected, not {0}")]
    Value(String),
    #[error("`==` is not an operator")]
    DoubleEquals,
    #[error("`{0}` is a keyword, not a value")]
    Keyword(String),
    #[error("an operator is expected, not {0}")]
    Operator(String),
    #[error("two strings follow each other")]
    TwoStrings,
    #[error("`)` is expected, not {0}")]
    Close(String),
    #[error("the number is not one of 32 bits")]
    Number,
    #[error("the pattern of LIKE must be a string, not {0}")]
    Pattern(String),
    #[error("the pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    PatternTooLong,
    #[error("the name of an attribute is expected after EXISTS, not {0}")]
    Exists(String),
    #[error("`{0}` is not the name of an attribute")]
    Name(String),
    #[error("`{0}` is not the name of a function")]
    FunctionName(String),
    #[error("a set in parentheses is expected after IN, not {0}")]
    Set(String),
    #[error("LIKE or IN is expected after this NOT, not {0}")]
    AfterNot(String),
}

impl Reason {
    fn help(&self) -> String {
        match self {
            Self::Empty => "write a condition such as `type = 'com.example.order'`",
            Self::TooLong | Self::TooDeep => "split the trigger, or combine expressions with `all` and `any`",
            Self::Character('&' | '|' | '!') => "write `AND`, `OR` and `NOT`",
            Self::DoubleEquals => "write `=`",
            Self::Character(_) => "put text in quotes; the operators are those of CESQL 1.0",
            Self::StringOpen => "end the string with the quote that it begins with",
            Self::Value(_) => "write an attribute, a literal, a function or an expression in parentheses",
            Self::Keyword(_) => "an attribute of that name cannot be used in CESQL: use `exact` for it",
            Self::Operator(_) => "write an operator between two values",
            Self::TwoStrings => "a quote inside of a string is written with a backslash before it",
            Self::Close(_) => "close each parenthesis, and separate arguments by commas",
            Self::Number => "write a whole number from -2147483648 to 2147483647, or a string",
            Self::Pattern(_) => "write the pattern in quotes, such as `type LIKE 'com.example.%'`",
            Self::PatternTooLong => "shorten the pattern, or split it into several joined by AND",
            Self::Exists(_) => "write `EXISTS subject`, without parentheses",
            Self::Name(_) => "names of attributes are letters and digits; put text in quotes",
            Self::FunctionName(_) => "names of functions are letters and underscores",
            Self::Set(_) => "write at least one value, such as `type IN ('a', 'b')`",
            Self::AfterNot(_) => "write `NOT` before the value that it negates",
        }
        .to_owned()
    }
}

const KEYWORDS: [&str; 9] = ["AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"];

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
    let fail = |(reason, offset)| ParseError::new(reason, text, offset);
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(fail((Reason::TooLong, 0)));
    }
    Parser::new(text).and_then(Parser::whole).map_err(fail)
}

type Failure = (Reason, usize);

struct Parser<'t> {
    text: &'t str,
    token: Token,
    /// Where the token before it ended.
    end: usize,
    nodes: u32,
    depth: usize,
    /// How often LIKE or IN followed another one without parentheses, which makes the tree deeper without a recursion
    /// here.
    repeated: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Self, Failure> {
        let token = token::next(text, 0)?;
        Ok(Self { text, token, end: 0, nodes: 0, depth: 0, repeated: 0 })
    }

    fn whole(mut self) -> Result<Node, Failure> {
        if self.token.kind == TokenKind::End {
            return Err((Reason::Empty, 0));
        }
        let node = self.expression()?;
        if self.token.kind == TokenKind::End { Ok(node) } else { Err(self.after_value(Reason::Operator)) }
    }

    /// A failure at a token that cannot follow a value.
    fn after_value(&self, reason: impl FnOnce(String) -> Reason) -> Failure {
        let strings =
            matches!(self.token.kind, TokenKind::Text(_)) && self.text[..self.end].ends_with(['\'', '"']);
        self.here(|found| if strings { Reason::TwoStrings } else { reason(found) })
    }

    /// A failure at the present token.
    fn here(&self, reason: impl FnOnce(String) -> Reason) -> Failure {
        /// The longest part of the expression that is repeated in a message, in characters.
        const EXCERPT: usize = 32;
        let found = match &self.token.kind {
            TokenKind::End => "the end".to_owned(),
            TokenKind::Text(_) => "a string".to_owned(),
            TokenKind::Word | TokenKind::Symbol(_) => {
                let excerpt: String = self.word().chars().take(EXCERPT).collect();
                format!("`{excerpt}`")
            }
        };
        (reason(found), self.token.span.start)
    }

    /// The text of the present token.
    fn word(&self) -> &'t str {
        &self.text[self.token.span.clone()]
    }

    fn advance(&mut self) -> Result<Token, Failure> {
        let next = token::next(self.text, self.token.span.end)?;
        self.end = self.token.span.end;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(&self.token.kind, TokenKind::Symbol(found) if *found == symbol)
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        self.token.kind == TokenKind::Word && self.word().eq_ignore_ascii_case(keyword)
    }

    fn is_any_keyword(&self) -> bool {
        KEYWORDS.iter().any(|keyword| self.is_keyword(keyword))
    }

    fn take_symbol(&mut self, symbol: &str) -> Result<bool, Failure> {
        let found = self.is_symbol(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn node(&mut self, start: usize, kind: Kind) -> Node {
        let place = |at: usize| u32::try_from(at).expect("an expression is shorter than 4 GiB");
        let node = Node { number: self.nodes, span: place(start)..place(self.end), kind };
        self.nodes += 1;
        node
    }

    /// Reads what is one level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.depth == MAX_DEPTH {
            return Err((Reason::TooDeep, self.token.span.start));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn expression(&mut self) -> Result<Node, Failure> {
        let logic = |parser: &Self| {
            [LogicOperator::And, LogicOperator::Or, LogicOperator::Xor]
                .into_iter()
                .find(|operator| parser.is_keyword(operator.keyword()))
        };
        self.level(logic, Self::comparison, Kind::Logic)
    }

    fn comparison(&mut self) -> Result<Node, Failure> {
        let operator = |parser: &Self| match parser.token.kind {
            TokenKind::Symbol("=") => Some(ComparisonOperator::Equal),
            TokenKind::Symbol("!=" | "<>") => Some(ComparisonOperator::NotEqual),
            TokenKind::Symbol("<") => Some(ComparisonOperator::Less),
            TokenKind::Symbol("<=") => Some(ComparisonOperator::LessOrEqual),
            TokenKind::Symbol(">") => Some(ComparisonOperator::Greater),
            TokenKind::Symbol(">=") => Some(ComparisonOperator::GreaterOrEqual),
            _ => None,
        };
        self.level(operator, Self::sum, Kind::Comparison)
    }

    fn sum(&mut self) -> Result<Node, Failure> {
        let operator = |parser: &Self| match parser.token.kind {
            TokenKind::Symbol("+") => Some(ArithmeticOperator::Add),
            TokenKind::Symbol("-") => Some(ArithmeticOperator::Subtract),
            _ => None,
        };
        self.level(operator, Self::product, Kind::Arithmetic)
    }

    fn product(&mut self) -> Result<Node, Failure> {
        let operator = |parser: &Self| match parser.token.kind {
            TokenKind::Symbol("*") => Some(ArithmeticOperator::Multiply),
            TokenKind::Symbol("/") => Some(ArithmeticOperator::Divide),
            TokenKind::Symbol("%") => Some(ArithmeticOperator::Modulo),
            _ => None,
        };
        self.level(operator, Self::membership, Kind::Arithmetic)
    }

    /// Operands joined by the operators of one level, which apply from left to right.
    fn level<O>(
        &mut self,
        operator: impl Fn(&Self) -> Option<O>,
        operand: fn(&mut Self) -> Result<Node, Failure>,
        kind: fn(Chain<O>) -> Kind,
    ) -> Result<Node, Failure> {
        let start = self.token.span.start;
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(operator) = operator(self) {
            self.advance()?;
            rest.push((operator, operand(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(self.node(start, kind(Chain { first: Box::new(first), rest: rest.into() })))
    }

    /// A value, and LIKE or IN after it.
    fn membership(&mut self) -> Result<Node, Failure> {
        let start = self.token.span.start;
        let mut value = self.unary()?;
        let mut follows = false;
        loop {
            let negated = self.is_keyword("NOT");
            if negated {
                self.advance()?;
            }
            let like = self.is_keyword("LIKE");
            if !like && !self.is_keyword("IN") {
                return if negated { Err(self.here(Reason::AfterNot)) } else { Ok(value) };
            }
            self.repeated += usize::from(follows);
            if self.repeated > MAX_DEPTH {
                return Err((Reason::TooDeep, self.token.span.start));
            }
            follows = true;
            self.advance()?;
            let kind = if like {
                Kind::Like { value: Box::new(value), negated, pattern: self.pattern()? }
            } else {
                Kind::In { value: Box::new(value), negated, set: self.set()? }
            };
            value = self.node(start, kind);
        }
    }

    fn pattern(&mut self) -> Result<Pattern, Failure> {
        let start = self.token.span.start;
        if !matches!(self.token.kind, TokenKind::Text(_)) {
            return Err(self.here(Reason::Pattern));
        }
        let TokenKind::Text(text) = self.advance()?.kind else { return Err((Reason::Empty, start)) };
        Pattern::new(&text).map_err(|_| (Reason::PatternTooLong, start))
    }

    fn set(&mut self) -> Result<Box<[Node]>, Failure> {
        if !self.take_symbol("(")? || self.is_symbol(")") {
            return Err(self.here(Reason::Set));
        }
        self.list()
    }

    /// Expressions up to the closing parenthesis, at least one.
    fn list(&mut self) -> Result<Box<[Node]>, Failure> {
        let mut nodes = vec![self.deeper(Self::expression)?];
        while self.take_symbol(",")? {
            nodes.push(self.deeper(Self::expression)?);
        }
        self.close()?;
        Ok(nodes.into())
    }

    fn close(&mut self) -> Result<(), Failure> {
        if self.take_symbol(")")? { Ok(()) } else { Err(self.after_value(Reason::Close)) }
    }

    fn unary(&mut self) -> Result<Node, Failure> {
        let start = self.token.span.start;
        if self.is_keyword("NOT") {
            self.advance()?;
            let operand = self.deeper(Self::unary)?;
            return Ok(self.node(start, Kind::Not(Box::new(operand))));
        }
        let minus = self.is_symbol("-");
        if minus || self.is_symbol("+") {
            let sign = self.token.clone();
            self.advance()?;
            // A sign that touches digits belongs to them, so that the least number can be written.
            if self.token.span.start == sign.span.end && self.is_digits() {
                return self.integer(start);
            }
            if !minus {
                return Err((Reason::Value("`+`".to_owned()), start));
            }
            let operand = self.deeper(Self::unary)?;
            return Ok(self.node(start, Kind::Negative(Box::new(operand))));
        }
        self.primary()
    }

    fn is_digits(&self) -> bool {
        self.token.kind == TokenKind::Word && self.word().bytes().all(|byte| byte.is_ascii_digit())
    }

    /// The literal whose last digits are the present token.
    fn integer(&mut self, start: usize) -> Result<Node, Failure> {
        self.advance()?;
        let number = self.text[start..self.end].parse().map_err(|_| (Reason::Number, start))?;
        Ok(self.node(start, Kind::Literal(Value::Integer(number))))
    }

    fn primary(&mut self) -> Result<Node, Failure> {
        let start = self.token.span.start;
        if let TokenKind::Text(content) = &mut self.token.kind {
            let text = Cow::Owned(std::mem::take(content));
            self.advance()?;
            return Ok(self.node(start, Kind::Literal(Value::String(text))));
        }
        match self.token.kind {
            TokenKind::Symbol("(") => {
                self.advance()?;
                let inner = self.deeper(Self::expression)?;
                self.close()?;
                Ok(inner)
            }
            TokenKind::Word if self.is_digits() => self.integer(start),
            TokenKind::Word => self.name(start),
            TokenKind::Symbol("=") if self.text[..start].ends_with('=') => {
                Err((Reason::DoubleEquals, start - 1))
            }
            _ => Err(self.here(Reason::Value)),
        }
    }

    /// A Boolean, EXISTS, a function or an attribute.
    fn name(&mut self, start: usize) -> Result<Node, Failure> {
        if self.is_keyword("EXISTS") {
            self.advance()?;
            if self.token.kind != TokenKind::Word || self.is_any_keyword() || self.is_digits() {
                return Err(self.here(Reason::Exists));
            }
            let name = self.attribute()?;
            return Ok(self.node(start, Kind::Exists(name)));
        }
        if self.is_keyword("TRUE") || self.is_keyword("FALSE") {
            let truth = self.is_keyword("TRUE");
            self.advance()?;
            return Ok(self.node(start, Kind::Literal(Value::Boolean(truth))));
        }
        if self.is_any_keyword() {
            return Err((Reason::Keyword(self.word().to_owned()), start));
        }
        let follows = token::next(self.text, self.token.span.end)?;
        if follows.kind == TokenKind::Symbol("(") {
            return self.call(start);
        }
        let name = self.attribute()?;
        Ok(self.node(start, Kind::Attribute(name)))
    }

    /// The name of an attribute, in lower case whatever it is written in.
    fn attribute(&mut self) -> Result<Box<str>, Failure> {
        let (start, name) = (self.token.span.start, self.word());
        if name.contains('_') {
            return Err((Reason::Name(name.to_owned()), start));
        }
        self.advance()?;
        Ok(name.to_ascii_lowercase().into())
    }

    fn call(&mut self, start: usize) -> Result<Node, Failure> {
        let name = self.word();
        let is_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        if name.starts_with('_') || !name.bytes().all(is_name) {
            return Err((Reason::FunctionName(name.to_owned()), start));
        }
        self.advance()?;
        self.advance()?;
        let arguments = if self.take_symbol(")")? { Box::default() } else { self.list()? };
        let function = Function::find(name, arguments.len());
        Ok(self.node(start, Kind::Call { name: name.into(), function, arguments }))
    }
}
