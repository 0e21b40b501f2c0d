//! Tokens of a text and a cursor over them.
//!
//! Every token keeps its line and column, also those that the rewriting moves or adds, so that each later error
//! points into the text as it was typed.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};
use millstream_engine::plan::Location;

use crate::error::{Error, Result, location};

const END: Token = Token::EOF;

/// The tokens of `text` without white space and comments.
///
/// # Errors
/// A quote or comment that is not closed.
pub(crate) fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(&GenericDialect, text).tokenize_with_location().map_err(|error| {
        Error::new(format!("cannot read the text: {}", lower_first(&error.message))).at(location(error.location))
    })?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    Ok(tokens)
}

/// Whether `token` is the unquoted word `word`, in any case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// A word that stands for a name even if it is a keyword.
pub(crate) fn quoted(name: impl Into<String>) -> Token {
    Token::Word(Word { value: name.into(), quote_style: Some('"'), keyword: Keyword::NoKeyword })
}

/// The name a word stands for: folded to lower case unless it is quoted.
pub(crate) fn fold(word: &Word) -> String {
    if word.quote_style.is_none() { word.value.to_lowercase() } else { word.value.clone() }
}

/// The text with its first letter in lower case, unless it starts with an abbreviation.
pub(crate) fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// A reader of tokens, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first of `tokens`.
    pub(crate) const fn new(tokens: &'a [TokenWithSpan]) -> Self {
        Self { tokens, position: 0 }
    }

    /// The next token, or the end.
    pub(crate) fn peek(&self) -> &'a Token {
        self.peek_nth(0)
    }

    /// The token `distance` after the next one, or the end.
    pub(crate) fn peek_nth(&self, distance: usize) -> &'a Token {
        self.tokens.get(self.position.saturating_add(distance)).map_or(&END, |token| &token.token)
    }

    /// The place of the next token; at the end, that of the last one.
    pub(crate) fn location(&self) -> Option<Location> {
        match self.tokens.get(self.position) {
            Some(token) => location(token.span.start),
            None => self.tokens.last().and_then(|token| location(token.span.end)),
        }
    }

    /// The extent of the next token.
    pub(crate) fn span(&self) -> Span {
        self.tokens.get(self.position).or(self.tokens.last()).map_or_else(Span::empty, |token| token.span)
    }

    /// Takes the next token.
    pub(crate) fn next(&mut self) -> Option<&'a TokenWithSpan> {
        let token = self.tokens.get(self.position)?;
        self.position += 1;
        Some(token)
    }

    /// Whether all tokens are taken.
    pub(crate) const fn is_done(&self) -> bool {
        self.position >= self.tokens.len()
    }

    /// The tokens not yet taken.
    pub(crate) fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens.get(self.position..).unwrap_or_default()
    }

    /// The token before the next one, or the end at the start.
    pub(crate) fn previous(&self, distance: usize) -> &'a Token {
        let index = self.position.checked_sub(distance.saturating_add(1));
        index.and_then(|index| self.tokens.get(index)).map_or(&END, |token| &token.token)
    }

    /// Whether the next token is the unquoted word `word`.
    pub(crate) fn at_word(&self, word: &str) -> bool {
        is_word(self.peek(), word)
    }

    /// Whether the next tokens are these words.
    pub(crate) fn at_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(distance, word)| is_word(self.peek_nth(distance), word))
    }

    /// Takes these words if they are next.
    pub(crate) fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = self.at_words(words);
        if found {
            self.position += words.len();
        }
        found
    }

    /// Takes the word if it is next.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        self.eat_words(&[word])
    }

    /// Takes the token if it is next.
    pub(crate) fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.position += 1;
        }
        found
    }

    /// Takes the token.
    ///
    /// # Errors
    /// Another one is next.
    pub(crate) fn expect(&mut self, token: &Token) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("\"{token}\""))) }
    }

    /// Takes the word.
    ///
    /// # Errors
    /// Another token is next.
    pub(crate) fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.eat_word(word) { Ok(()) } else { Err(self.expected(&word.to_uppercase())) }
    }

    /// Takes a name: any word, keyword or not.
    ///
    /// # Errors
    /// Something else is next.
    pub(crate) fn expect_name(&mut self, what: &str) -> Result<&'a Word> {
        match self.peek() {
            Token::Word(word) => {
                self.position += 1;
                Ok(word)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Takes a name of one or more parts, `market.trades`, and folds each part.
    ///
    /// # Errors
    /// Something else is next.
    pub(crate) fn expect_object_name(&mut self, what: &str) -> Result<String> {
        let mut name = fold(self.expect_name(what)?);
        while self.eat(&Token::Period) {
            name.push('.');
            name.push_str(&fold(self.expect_name(what)?));
        }
        Ok(name)
    }

    /// Checks that nothing follows.
    ///
    /// # Errors
    /// Something does.
    pub(crate) fn expect_end(&self) -> Result<()> {
        if self.is_done() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// The error that says what should be next.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = match self.peek() {
            Token::EOF => "the end of the statement".to_owned(),
            token => format!("\"{token}\""),
        };
        Error::new(format!("expected {what}, found {found}")).at(self.location())
    }
}
