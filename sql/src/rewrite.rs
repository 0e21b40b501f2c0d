//! Turns the dialect's own clauses into SQL that the parser knows, token by token.
//!
//! | typed | parsed |
//! |---|---|
//! | `t [Range R, Slide S]`, `HOP(TABLE t, …)` | `t("$window 0")`, and window 0 on the side |
//! | `HOP(…)` in GROUP BY or SELECT | `"$call 0"`, and call 0 on the side |
//! | `t WINDOW TUMBLING (…)` | `t("$call 0")` |
//! | `FROM a, b, ON c` | `FROM a JOIN b ON c` |
//! | `SELECT end FROM t` | `SELECT "end" FROM t` |
//!
//! `FROM t [` is no SQL, so no statement changes its meaning; array subscripts stand elsewhere and stay.
//! Rewriting tokens and not the text keeps every line and column for the errors that follow.

use std::mem::take;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::as_of::{AS_OF_ARGUMENT, AsOf, at_system_time, parse_match_condition, parse_system_time};
use crate::duration::Parameters;
use crate::emission::starts_clause;
use crate::error::{Error, Result};
use crate::ksql_window::{at_window_clause, parse_window_clause};
use crate::quoting::{is_operator, quote_operand};
use crate::table_function::{at_table_function, parse_table_function};
use crate::token::{Cursor, is_word, quoted};
use crate::window::{WindowClause, parse_bracket};
use crate::window_call::{CALL_MARKER, WindowCall, at_window_call, parse_window_call};

/// The argument that stands for a window starts with this; its number follows.
pub(crate) const WINDOW_ARGUMENT: &str = "$window ";

/// The most operators in one expression, and set operations or joins in one query.
///
/// The trees they make are as deep as they are many, and are walked by recursion.
const MAX_CHAIN: usize = 256;

/// Words that end a FROM clause.
const AFTER_FROM: [&str; 14] = [
    "where",
    "group",
    "having",
    "order",
    "limit",
    "union",
    "except",
    "intersect",
    "minus",
    "qualify",
    "window",
    "fetch",
    "offset",
    "sort",
];

/// Words that join two operands or follow one.
const OPERATOR_WORDS: [&str; 9] = ["and", "or", "not", "is", "like", "ilike", "between", "in", "collate"];

/// A query's tokens as the parser takes them, and its windows and calls of window functions by number.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) tokens: Vec<TokenWithSpan>,
    pub(crate) windows: Vec<WindowClause>,
    pub(crate) calls: Vec<WindowCall>,
    pub(crate) as_of: Vec<AsOf>,
}

/// The part of a query that the tokens of a frame belong to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Clause {
    #[default]
    Other,
    Select,
    From,
}

/// What is known about one pair of parentheses, or the statement around them.
#[derive(Debug, Default)]
struct Frame {
    clause: Clause,
    expects_relation: bool,
    /// Where the commas of the FROM clause stand in the output, since the last ON.
    commas: Vec<usize>,
    /// How many relations the FROM clause has so far.
    relations: usize,
    /// Where the last of them ends in the output, if it is a name.
    relation_end: Option<usize>,
    /// Whether one of them has a window.
    has_window: bool,
    /// Whether the next relation is looked up as of a time.
    expects_as_of: bool,
    /// The as-of clause that waits for its condition.
    as_of: Option<usize>,
    /// JOINs that wait for their ON.
    open_joins: usize,
    /// Operators around the frame.
    outer_operators: usize,
    /// Operators since the last comma, and those around the frame.
    operators: usize,
}

#[derive(Debug)]
struct Rewriter<'a> {
    cursor: Cursor<'a>,
    parameters: &'a Parameters,
    output: Rewritten,
    frames: Vec<Frame>,
    frame: Frame,
    branches: usize,
}

/// Rewrites the tokens of one query.
///
/// # Errors
/// A window is malformed or does nothing yet, a parameter is not bound, or the query nests too deep.
pub(crate) fn rewrite(tokens: &[TokenWithSpan], parameters: &Parameters) -> Result<Rewritten> {
    let mut rewriter = Rewriter {
        cursor: Cursor::new(tokens),
        parameters,
        output: Rewritten::default(),
        frames: Vec::new(),
        frame: Frame::default(),
        branches: 0,
    };
    while !rewriter.cursor.is_done() {
        rewriter.step()?;
    }
    Ok(rewriter.output)
}

impl Rewriter<'_> {
    /// Takes the next token, or the relation, window or clause that starts with it.
    fn step(&mut self) -> Result<()> {
        self.refuse_clauses()?;
        self.count_depth()?;
        if self.as_of_words()? {
            return Ok(());
        }
        if self.frame.expects_relation && matches!(self.cursor.peek(), Token::Word(_)) {
            return self.relation();
        }
        if self.frame.clause == Clause::From && *self.cursor.peek() == Token::LBracket {
            self.refuse_bracket_after_alias()?;
        }
        if self.frame.clause == Clause::From && at_window_clause(&self.cursor) {
            return self.window_clause();
        }
        if self.frame.clause != Clause::From && !self.is_alias() && at_window_call(&self.cursor) {
            return self.window_call();
        }
        match self.cursor.peek() {
            Token::LParen | Token::LBracket | Token::LBrace => self.open(),
            Token::RParen | Token::RBracket | Token::RBrace => {
                self.frame = self.frames.pop().unwrap_or_default();
                self.copy();
            }
            Token::Comma => self.comma(),
            Token::Word(_) => self.word(),
            _ => self.copy(),
        }
        Ok(())
    }

    /// Copies the next token, quoted if it can only be a name.
    fn copy(&mut self) {
        if let Some(token) = self.cursor.clone().next() {
            let token = quote_operand(&self.cursor, token);
            self.output.tokens.push(token);
            self.cursor.next();
        }
    }

    fn push(&mut self, token: Token, span: Span) {
        self.output.tokens.push(TokenWithSpan::new(token, span));
    }

    fn open(&mut self) {
        // `FROM (a JOIN b …)` lists relations; `FROM (SELECT …` will say so itself.
        let is_relation = take(&mut self.frame.expects_relation) && *self.cursor.peek() == Token::LParen;
        let clause = if is_relation { Clause::From } else { Clause::Other };
        self.frame.relations += usize::from(is_relation);
        self.copy();
        let outer_operators = self.frame.operators;
        self.frames.push(take(&mut self.frame));
        self.frame.outer_operators = outer_operators;
        self.enter(clause);
    }

    /// Starts a clause of the frame.
    fn enter(&mut self, clause: Clause) {
        let outer_operators = self.frame.outer_operators;
        let expects_relation = clause == Clause::From;
        self.frame =
            Frame { clause, expects_relation, outer_operators, operators: outer_operators, ..Frame::default() };
    }

    fn comma(&mut self) {
        self.frame.operators = self.frame.outer_operators;
        if self.frame.clause != Clause::From {
            return self.copy();
        }
        if is_word(self.cursor.peek_nth(1), "on") {
            self.cursor.next();
            return;
        }
        self.frame.commas.push(self.output.tokens.len());
        self.frame.expects_relation = true;
        self.copy();
    }

    fn word(&mut self) {
        if self.is_alias() {
            return self.copy();
        }
        if self.cursor.at_word("select") {
            self.enter(Clause::Select);
        } else if self.frame.clause == Clause::Select && self.cursor.at_word("from") && !self.is_distinct_from() {
            self.enter(Clause::From);
        } else if self.frame.clause == Clause::From {
            self.word_of_from();
        }
        self.copy();
    }

    /// Whether what is next can only be a name, whatever it looks like.
    fn is_alias(&self) -> bool {
        is_word(self.cursor.previous(0), "as") || *self.cursor.previous(0) == Token::Period
    }

    /// A word of a FROM clause that is not a relation.
    fn word_of_from(&mut self) {
        if self.cursor.at_word("join") {
            let previous = self.cursor.previous(0);
            self.frame.open_joins += usize::from(!is_word(previous, "cross") && !is_word(previous, "natural"));
            self.frame.expects_relation = true;
        } else if self.cursor.at_word("using") {
            self.frame.open_joins = self.frame.open_joins.saturating_sub(1);
        } else if self.cursor.at_word("on") {
            self.on();
        } else if AFTER_FROM.iter().any(|word| self.cursor.at_word(word)) {
            self.frame.clause = Clause::Other;
        }
    }

    /// An ON that no JOIN waits for belongs to the last comma; the commas before it join without condition.
    fn on(&mut self) {
        self.frame.operators = self.frame.outer_operators;
        if let Some(open) = self.frame.open_joins.checked_sub(1) {
            self.frame.open_joins = open;
            return;
        }
        let mut last = true;
        for index in take(&mut self.frame.commas).into_iter().rev() {
            let Some(comma) = self.output.tokens.get_mut(index) else { continue };
            comma.token = keyword(if last { Keyword::JOIN } else { Keyword::CROSS });
            let span = comma.span;
            if !last {
                self.output.tokens.insert(index + 1, TokenWithSpan::new(keyword(Keyword::JOIN), span));
            }
            last = false;
        }
    }

    /// A relation of a FROM clause with its window, if it has one.
    fn relation(&mut self) -> Result<()> {
        let is_prefix = ["lateral", "only"].iter().any(|word| self.cursor.at_word(word))
            && matches!(self.cursor.peek_nth(1), Token::Word(_) | Token::LParen);
        if is_prefix || self.cursor.at_word("select") || self.cursor.at_word("with") {
            self.frame.expects_relation = is_prefix;
            if is_prefix {
                self.copy();
            } else {
                self.word();
            }
            return Ok(());
        }
        self.frame.expects_relation = false;
        self.frame.relations += 1;
        self.frame.relation_end = None;
        let wrapped = self.cursor.at_word("table") && *self.cursor.peek_nth(1) == Token::LParen;
        if at_table_function(&self.cursor) {
            return self.table_function();
        }
        if wrapped {
            self.cursor.next();
            self.cursor.next();
            self.table_function()?;
            return self.cursor.expect(&Token::RParen);
        }
        self.relation_name();
        self.frame.relation_end = Some(self.output.tokens.len());
        if take(&mut self.frame.expects_as_of) || at_system_time(&self.cursor) {
            return self.as_of_relation();
        }
        if *self.cursor.peek() == Token::LBracket {
            let span = self.cursor.span();
            let clause = parse_bracket(&mut self.cursor, self.parameters)?;
            self.window(clause, span);
        }
        Ok(())
    }

    /// The marker of a relation that is looked up as of a time, which stands here or in MATCH_CONDITION.
    fn as_of_relation(&mut self) -> Result<()> {
        let (span, place) = (self.cursor.span(), self.cursor.location());
        let number = self.output.as_of.len();
        if at_system_time(&self.cursor) {
            let clause = parse_system_time(&mut self.cursor)?;
            self.output.as_of.push(clause);
        } else {
            self.output.as_of.push(AsOf::without_condition(place));
            self.frame.as_of = Some(number);
        }
        let argument = quoted(format!("{AS_OF_ARGUMENT}{number}"));
        for token in [Token::LParen, argument, Token::RParen] {
            self.push(token, span);
        }
        Ok(())
    }

    /// `ASOF` before JOIN, and `MATCH_CONDITION (…)` behind the relation; whether one of them was there.
    fn as_of_words(&mut self) -> Result<bool> {
        if self.frame.clause != Clause::From {
            return Ok(false);
        }
        let joins = ["join", "left", "inner"].iter().any(|word| is_word(self.cursor.peek_nth(1), word));
        if self.cursor.at_word("asof") && joins {
            self.cursor.next();
            self.frame.expects_as_of = true;
            return Ok(true);
        }
        if !self.cursor.at_word("match_condition") || *self.cursor.peek_nth(1) != Token::LParen {
            return Ok(false);
        }
        let place = self.cursor.location();
        self.cursor.next();
        let clause = parse_match_condition(&mut self.cursor)?;
        match take(&mut self.frame.as_of).and_then(|number| self.output.as_of.get_mut(number)) {
            Some(known) => *known = clause,
            None => {
                let error = Error::new("MATCH_CONDITION belongs to an ASOF JOIN");
                return Err(error
                    .hint("write FROM t ASOF JOIN q MATCH_CONDITION (t.ts >= q.ts) ON t.k = q.k")
                    .at(place));
            }
        }
        Ok(true)
    }

    fn relation_name(&mut self) {
        self.copy();
        while *self.cursor.peek() == Token::Period && matches!(self.cursor.peek_nth(1), Token::Word(_)) {
            self.copy();
            self.copy();
        }
    }

    fn table_function(&mut self) -> Result<()> {
        let span = self.cursor.span();
        let function = parse_table_function(&mut self.cursor, self.parameters)?;
        self.output.tokens.extend(function.relation);
        self.window(function.clause, span);
        Ok(())
    }

    /// Writes the argument that stands for the window.
    fn window(&mut self, clause: WindowClause, span: Span) {
        let argument = quoted(format!("{WINDOW_ARGUMENT}{}", self.output.windows.len()));
        self.output.windows.push(clause);
        self.frame.has_window = true;
        for token in [Token::LParen, argument, Token::RParen] {
            self.push(token, span);
        }
    }

    /// A call of a window function in an expression.
    fn window_call(&mut self) -> Result<()> {
        let span = self.cursor.span();
        let call = parse_window_call(&mut self.cursor, self.parameters)?;
        let marker = self.call_marker(call);
        self.push(marker, span);
        Ok(())
    }

    /// ksqlDB's window behind the relation of a FROM clause: it becomes the relation's argument.
    fn window_clause(&mut self) -> Result<()> {
        let span = self.cursor.span();
        let call = parse_window_clause(&mut self.cursor, self.parameters)?;
        let end = match (self.frame.relations, self.frame.relation_end) {
            (1, Some(end)) if !self.frame.has_window => end,
            (1, Some(_)) => return Err(call.second_window()),
            (1, None) => return Err(call.over("a subquery")),
            _ => return Err(call.over("a join")),
        };
        self.frame.has_window = true;
        let marker = self.call_marker(call);
        let argument = [Token::LParen, marker, Token::RParen].map(|token| TokenWithSpan::new(token, span));
        self.output.tokens.splice(end..end, argument);
        Ok(())
    }

    /// Keeps the call, and names it.
    fn call_marker(&mut self, call: WindowCall) -> Token {
        self.output.calls.push(call);
        quoted(format!("{CALL_MARKER}{}", self.output.calls.len() - 1))
    }

    /// Whether the FROM that is next belongs to `IS [NOT] DISTINCT FROM`.
    fn is_distinct_from(&self) -> bool {
        is_word(self.cursor.previous(0), "distinct")
            && ["is", "not"].iter().any(|word| is_word(self.cursor.previous(1), word))
    }

    fn refuse_bracket_after_alias(&self) -> Result<()> {
        let words = ["range", "rows", "slide", "now", "partition", "session"];
        let is_window = words.iter().any(|word| is_word(self.cursor.peek_nth(1), word));
        if !is_window || !matches!(self.cursor.previous(0), Token::Word(_) | Token::RParen) {
            return Ok(());
        }
        let error = Error::new("the window stands after the alias or a subquery")
            .hint("write it directly after the stream's name: t [Range 5 minutes, Slide 1 minute] AS x");
        Err(error.at(self.cursor.location()))
    }

    /// Clauses of a whole statement that stand inside of one.
    fn refuse_clauses(&self) -> Result<()> {
        let cursor = &self.cursor;
        let is_operand = !is_operator(cursor.previous(0)) && *cursor.previous(0) != Token::Comma;
        let in_parentheses = !self.frames.is_empty();
        let after_select = is_word(cursor.previous(0), "select")
            && ["istream", "dstream", "rstream"].iter().any(|word| cursor.at_word(word))
            && matches!(cursor.peek_nth(1), Token::Word(_))
            && !["from", "as"].iter().any(|word| is_word(cursor.peek_nth(1), word));
        if in_parentheses && (after_select || (is_operand && starts_clause(cursor.rest()))) {
            let error = Error::unsupported(format!("{} inside of a query", cursor.peek()), "");
            return Err(error.hint("it belongs to a whole statement, at its start or its end").at(cursor.location()));
        }
        Ok(())
    }

    /// Counts what makes the statement's tree deep without nesting in the text.
    fn count_depth(&mut self) -> Result<()> {
        let token = self.cursor.peek();
        let is_one_of = |words: &[&str]| words.iter().any(|word| is_word(token, word));
        if is_one_of(&["select", "where", "group", "having", "order", "when", "then", "else"]) {
            self.frame.operators = self.frame.outer_operators;
        }
        let counts = is_operator(token)
            || matches!(token, Token::DoubleColon | Token::LBracket | Token::Arrow | Token::LongArrow)
            || is_one_of(&OPERATOR_WORDS);
        self.frame.operators += usize::from(counts);
        self.branches += usize::from(is_one_of(&["union", "except", "intersect", "minus", "join"]));
        if self.frame.operators <= MAX_CHAIN && self.branches <= MAX_CHAIN {
            return Ok(());
        }
        let error = Error::new(format!("nesting too deep: more than {MAX_CHAIN} operators, joins or unions in a row"))
            .hint("write long chains of OR as x IN (…), or split the query into views");
        Err(error.at(self.cursor.location()))
    }
}

fn keyword(keyword: Keyword) -> Token {
    let value = format!("{keyword:?}");
    Token::Word(Word { value, quote_style: None, keyword })
}
