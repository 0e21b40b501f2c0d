//! `document -> 'key'` and `document ->> 'key'` as calls of the JSON functions, token by token.
//!
//! | typed | parsed |
//! |---|---|
//! | `d -> 'a' -> 0` | `json_get_json(d, 'a', 0)` |
//! | `d -> 'a' ->> 'b'` | `json_as_text(d, 'a', 'b')` |
//!
//! The SQL parser has operators of that look, but for it they bind weaker than `=`, and a name before `->` starts a
//! function of its own (`x -> x + 1`). Here they bind tighter than everything else, casts included, as in SQLite: that
//! is what `d ->> 'a' = 'b'` and `d ->> 'a'::INT` are meant to be. Behind `->` stands a literal; that tells it from
//! such a function.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::token::quoted;

const JSON: &str = "json_get_json";
const TEXT: &str = "json_as_text";

/// Words before an operand that are no function, so that the parenthesis behind them starts the operand.
const NOT_CALLED: [&str; 16] = [
    "select", "distinct", "all", "and", "or", "not", "where", "on", "by", "having", "when", "then", "else", "between",
    "like", "in",
];

/// The tokens with calls in the place of operators.
pub(crate) fn call_json_functions(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|token| matches!(token.token, Token::Arrow | Token::LongArrow)) {
        return tokens;
    }
    let mut output: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    let mut rest = tokens.as_slice();
    while let [token, behind @ ..] = rest {
        let function = match token.token {
            Token::Arrow => JSON,
            Token::LongArrow => TEXT,
            _ => "",
        };
        let key = if function.is_empty() { 0 } else { literal_length(behind) };
        match (key, operand_start(&output)) {
            (1.., Some(start)) => {
                call(&mut output, start, function, token);
                output.extend(behind.iter().take(key).cloned());
                output.push(TokenWithSpan::new(Token::RParen, token.span));
                rest = behind.get(key..).unwrap_or_default();
            }
            _ => {
                output.push(token.clone());
                rest = behind;
            }
        }
    }
    output
}

/// Opens a call whose first argument is the output from `start`, or adds an argument to the call that this is already.
fn call(output: &mut Vec<TokenWithSpan>, start: usize, function: &str, operator: &TokenWithSpan) {
    let is_chain = output.get(start).is_some_and(|first| first.token == quoted(JSON));
    if is_chain {
        output.pop();
        if let Some(first) = output.get_mut(start) {
            first.token = quoted(function);
        }
    } else {
        let span = output.get(start).map_or(operator.span, |first| first.span);
        let opening = [quoted(function), Token::LParen].map(|token| TokenWithSpan::new(token, span));
        output.splice(start..start, opening);
    }
    output.push(TokenWithSpan::new(Token::Comma, operator.span));
}

/// How many tokens the literal that starts `tokens` has; 0 if none does.
fn literal_length(tokens: &[TokenWithSpan]) -> usize {
    match tokens {
        [first, second, ..] if first.token == Token::Minus && matches!(second.token, Token::Number(..)) => 2,
        [first, ..] if matches!(first.token, Token::SingleQuotedString(_) | Token::Number(..)) => 1,
        _ => 0,
    }
}

/// Where the operand starts that ends the output; `None` if there is none.
fn operand_start(output: &[TokenWithSpan]) -> Option<usize> {
    let mut start = primary_start(output)?;
    loop {
        let before = output.get(..start)?;
        start = match before {
            // The type of a cast, a part of a name.
            [operand @ .., last] if matches!(last.token, Token::DoubleColon | Token::Period) => primary_start(operand)?,
            _ => return Some(start),
        };
    }
}

/// Where the last name, literal, parenthesis or call starts.
fn primary_start(output: &[TokenWithSpan]) -> Option<usize> {
    let last = output.len().checked_sub(1)?;
    match &output.get(last)?.token {
        Token::RParen => {
            let open = opening(output)?;
            let called = open.checked_sub(1).filter(|before| is_called(output.get(*before)));
            Some(called.unwrap_or(open))
        }
        Token::RBracket => {
            let open = opening(output)?;
            let indexed = output.get(..open)?;
            Some(if ends_operand(indexed.last()) { primary_start(indexed)? } else { open })
        }
        Token::Word(_) | Token::SingleQuotedString(_) | Token::Number(..) | Token::Placeholder(_) => Some(last),
        _ => None,
    }
}

fn ends_operand(token: Option<&TokenWithSpan>) -> bool {
    token.is_some_and(|token| matches!(token.token, Token::RParen | Token::RBracket) || is_called(Some(token)))
}

/// Whether a word may be a function with its arguments behind it, or an array with its index.
fn is_called(token: Option<&TokenWithSpan>) -> bool {
    matches!(token.map(|token| &token.token), Some(Token::Word(word))
        if word.quote_style.is_some() || !NOT_CALLED.iter().any(|other| word.value.eq_ignore_ascii_case(other)))
}

/// Where the parenthesis or bracket opens that ends the output.
fn opening(output: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in output.iter().enumerate().rev() {
        match token.token {
            Token::RParen | Token::RBracket => depth += 1,
            Token::LParen | Token::LBracket => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tokenize;

    fn rewritten(text: &str) -> String {
        let tokens = call_json_functions(tokenize(text).unwrap());
        tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ").replace('"', "")
    }

    #[test]
    fn operators_are_calls_that_bind_tighter_than_everything_else() {
        let cases = [
            ("d -> 'a'", "json_get_json ( d , 'a' )"),
            ("d ->> 'a' = 'b'", "json_as_text ( d , 'a' ) = 'b'"),
            ("x = d ->> 'a'", "x = json_as_text ( d , 'a' )"),
            ("s.d -> 'a' -> 0 ->> -1", "json_as_text ( s . d , 'a' , 0 , - 1 )"),
            ("d ->> 'a'::INT + 1", "json_as_text ( d , 'a' ) :: INT + 1"),
            ("d ->> 'a' ->> 'b'", "json_as_text ( json_as_text ( d , 'a' ) , 'b' )"),
            ("f(a, b -> 'x') -> 'y'", "json_get_json ( f ( a , json_get_json ( b , 'x' ) ) , 'y' )"),
            ("NOT (d -> 'a') IS NULL", "NOT ( json_get_json ( d , 'a' ) ) IS NULL"),
            ("a AND (d) ->> 'a' LIKE 'b'", "a AND json_as_text ( ( d ) , 'a' ) LIKE 'b'"),
            ("list[1] -> 'a'", "json_get_json ( list [ 1 ] , 'a' )"),
            ("d::VARCHAR(9) -> 'a'", "json_get_json ( d :: VARCHAR ( 9 ) , 'a' )"),
            ("'{}' -> 'a'", "json_get_json ( '{}' , 'a' )"),
            ("f(l, x -> x + 1)", "f ( l , x -> x + 1 )"),
            ("-> 'a'", "-> 'a'"),
            ("d ->", "d ->"),
        ];
        for (typed, parsed) in cases {
            assert_eq!(rewritten(typed), parsed, "{typed}");
        }
    }
}
