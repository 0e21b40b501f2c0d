//! Texts that no output may show: passwords, tokens, addresses that hold one.
//!
//! A [`Secret`] does not show itself. What others make of its text, say the message of a client library that cannot
//! connect, goes through [`redacted`] before it leaves the process; what there is to be hidden is known to the whole
//! process, as logs are of the whole process.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};

/// What stands in the place of a secret.
pub const REDACTED: &str = "***";
/// Shorter texts are part of too many words to be hidden.
const LEAST_BYTES: usize = 4;

static KNOWN: RwLock<BTreeSet<Arc<str>>> = RwLock::new(BTreeSet::new());

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A text that does not show itself.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Has no output of this process show the text from now on.
    ///
    /// # Errors
    /// It is too short to be told from other words.
    pub fn hide(&self) -> Result<()> {
        if self.0.len() < LEAST_BYTES {
            let message =
                format!("a secret has {} bytes, and at least {LEAST_BYTES} can be kept from output", self.0.len());
            return Err(Error::query(message, "take a longer one"));
        }
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(Arc::clone(&self.0));
        known.extend(password_of(&self.0).filter(|password| password.len() >= LEAST_BYTES).map(Arc::from));
        Ok(())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The password in `scheme://user:password@host/…`.
fn password_of(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    Some(user.split_once(':')?.1)
}

/// The text without what is to be hidden.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut found: Vec<&str> = known.iter().map(AsRef::as_ref).filter(|secret| text.contains(secret)).collect();
    // One may be part of another.
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    found.into_iter().fold(Cow::Borrowed(text), |text, secret| match text.contains(secret) {
        true => Cow::Owned(text.replace(secret, REDACTED)),
        false => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter22-of-the-test");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(redacted("it is hunter22-of-the-test"), "it is hunter22-of-the-test", "nobody has said to hide it");
        secret.hide().unwrap();
        assert_eq!(redacted("it is hunter22-of-the-test, twice hunter22-of-the-test"), "it is ***, twice ***");
        assert_eq!(secret.reveal(), "hunter22-of-the-test");
        assert_eq!(redacted("nothing"), "nothing");
    }

    #[test]
    fn the_password_of_an_address_is_hidden_apart_from_it() {
        Secret::new("postgres://ann:p-w-of-the-test@db:5432/x").hide().unwrap();
        assert_eq!(redacted("postgres://ann:p-w-of-the-test@db:5432/x"), "***");
        assert_eq!(redacted("p-w-of-the-test is wrong"), "*** is wrong");
        assert_eq!(password_of("http://host/a:b@c"), None);
        assert_eq!(password_of("s3://bucket"), None);
    }

    #[test]
    fn what_is_too_short_to_be_told_from_words_is_refused() {
        assert!(Secret::new("abc").hide().is_err());
    }
}
