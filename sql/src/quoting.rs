//! Words that are keywords to the parser but names to the user: `end`, `start`, `timestamp`, `window`, `range`, `rows`.
//!
//! Where an operand must follow, none of them can be a keyword, so there they are quoted.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::token::{Cursor, is_word, quoted};

const WORDS: [&str; 6] = ["end", "start", "timestamp", "window", "range", "rows"];

/// Words after which an operand must follow.
const BEFORE_OPERAND: [&str; 20] = [
    "select", "distinct", "all", "and", "or", "not", "where", "on", "by", "having", "when", "then", "else", "case",
    "between", "like", "ilike", "in", "from", "join",
];

/// The next token of `cursor`, as a quoted name if it stands where only a name can.
pub(crate) fn quote_operand(cursor: &Cursor<'_>, token: &TokenWithSpan) -> TokenWithSpan {
    let Token::Word(word) = &token.token else { return token.clone() };
    let is_candidate = WORDS.iter().any(|candidate| is_word(&token.token, candidate));
    if is_candidate && is_operand(cursor) && !starts_literal(cursor) && !starts_frame(cursor) {
        return TokenWithSpan::new(quoted(word.value.to_lowercase()), token.span);
    }
    token.clone()
}

/// Whether an operand must follow the token before the next one.
fn is_operand(cursor: &Cursor<'_>) -> bool {
    match cursor.previous(0) {
        Token::Word(word) => {
            word.quote_style.is_none() && BEFORE_OPERAND.iter().any(|before| word.value.eq_ignore_ascii_case(before))
        }
        token => is_operator(token) || matches!(token, Token::Comma | Token::LParen | Token::LBracket | Token::Period),
    }
}

/// Whether the token joins two operands or stands before one.
pub(crate) const fn is_operator(token: &Token) -> bool {
    matches!(
        token,
        Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::Ampersand
            | Token::Pipe
            | Token::Caret
            | Token::RArrow
    )
}

/// `TIMESTAMP '2024-01-01'`, `TIMESTAMP(3)`, `RANGE(…)`.
fn starts_literal(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.peek_nth(1), Token::LParen | Token::SingleQuotedString(_))
}

/// `OVER (ROWS BETWEEN …)`, `WINDOW w AS (RANGE …)`.
fn starts_frame(cursor: &Cursor<'_>) -> bool {
    *cursor.previous(0) == Token::LParen && (is_word(cursor.previous(1), "over") || is_word(cursor.previous(1), "as"))
}
