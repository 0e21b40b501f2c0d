//! Bugs that random queries have found and that are not mended yet; their cases are counted and not judged.

/// A text that only the failure of the bug has, and the bug.
const KNOWN: [(&str, &str); 0] = [];

/// The bug that a failure is known to come from.
pub(crate) fn known_bug(failure: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(mark, _)| failure.contains(mark)).map(|(_, bug)| *bug)
}
