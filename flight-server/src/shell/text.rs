//! Where statements end in text that is typed line by line.

/// Whether a text is whole: a command of the shell, or statements of which the last one has its semicolon.
///
/// Semicolons in quotes and comments end nothing, and neither do those between `BEGIN` and `END` of a test, which has no
/// place here.
pub(crate) fn is_whole(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('\\') || ends_statement(text)
}

/// Whether nothing but comments stands behind the last semicolon.
fn ends_statement(text: &str) -> bool {
    let (mut ended, mut rest) = (false, text);
    while let Some(next) = rest.chars().next() {
        let token = match next {
            '\'' | '"' => quoted(rest, next),
            '-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => rest.get(2..).and_then(|rest| rest.find("*/")).map(|length| length + 4),
            _ => Some(next.len_utf8()),
        };
        // What is opened and not closed goes on in the next line.
        let Some((token, after)) = token.and_then(|length| rest.split_at_checked(length)) else { return false };
        let is_silent = token.starts_with("--") || token.starts_with("/*") || next.is_whitespace();
        if !is_silent {
            ended = next == ';';
        }
        rest = after;
    }
    ended
}

/// Whether a text tells a secret, and so is not to be remembered.
pub(crate) fn names_secret(text: &str) -> bool {
    let words = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    words.contains("create secret") || words.contains("replace secret")
}

/// The length of a quoted text with its quotes; none if it has no end.
fn quoted(text: &str, quote: char) -> Option<usize> {
    text.get(1..)?.find(quote).map(|length| length + 2)
}

#[cfg(test)]
mod tests {
    use super::{is_whole, names_secret};

    #[test]
    fn secrets_are_not_remembered() {
        assert!(names_secret("create\n  SECRET pw AS 'x';") && names_secret("CREATE OR REPLACE SECRET pw AS 'x'"));
        assert!(!names_secret("SHOW SECRETS;"));
    }

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        for whole in ["", " \\q", "SELECT 1;", "SELECT ';' AS a; -- done", "SELECT 1; /* ; */ \n", "SELECT 'it''s';"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "SELECT 1 -- ;", "SELECT /* ;", "SELECT \";\""] {
            assert!(!is_whole(part), "{part}");
        }
    }
}
