//! Who may do what: users with hashed passwords and tokens, and what each is allowed to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use tonic::Status;

/// What a statement or call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// Read what there is.
    Read,
    /// Append to streams.
    Write,
    /// Declare, drop, start and stop.
    Administer,
}

/// What a user is allowed to do; each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Queries.
    Reader,
    /// Queries, and rows into streams.
    Writer,
    /// Everything.
    Admin,
}

/// Somebody who may use the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) role: Role,
    /// The password as `millstream hash` writes it; none for one who has tokens only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// Tokens, hashed as the password.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<String>,
}

/// All who may use the server; everybody may do everything if there is nobody.
#[derive(Debug)]
pub(super) struct Access {
    users: Vec<Arc<User>>,
    anybody: Arc<User>,
    /// Tokens that were found right, as finding that out takes a while on purpose.
    known: Mutex<HashMap<String, Arc<User>>>,
    /// One guess at a time.
    guessing: tokio::sync::Mutex<()>,
}

impl User {
    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// Names the user, and what is needed.
    pub(super) fn check(&self, right: Right) -> Result<(), Status> {
        let allowed = match self.role {
            Role::Reader => Right::Read,
            Role::Writer => Right::Write,
            Role::Admin => Right::Administer,
        };
        if right <= allowed {
            return Ok(());
        }
        let needed = match right {
            Right::Read => "reader",
            Right::Write => "writer",
            Right::Administer => "admin",
        };
        Err(Status::permission_denied(format!("user {:?} may not do this: it needs the role {needed}", self.name)))
    }

    /// What is wrong with the declaration of a user, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        let hashes = self.password.iter().chain(&self.tokens);
        let bad = hashes.into_iter().any(|hash| PasswordHash::new(hash).is_err());
        bad.then(|| format!("user {:?} has a password or token that is not hashed: use millstream hash", self.name))
    }
}

impl Access {
    pub(super) fn new(users: &[User]) -> Self {
        let anybody = User { name: "anybody".to_owned(), role: Role::Admin, password: None, tokens: Vec::new() };
        Self {
            users: users.iter().cloned().map(Arc::new).collect(),
            anybody: Arc::new(anybody),
            known: Mutex::default(),
            guessing: tokio::sync::Mutex::default(),
        }
    }

    /// The user that stands for everybody, where there are no others.
    pub(super) fn anybody(&self) -> Option<&Arc<User>> {
        self.users.is_empty().then_some(&self.anybody)
    }

    /// The user with this name and password.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn by_password(&self, name: &str, password: &str) -> Result<Arc<User>, Status> {
        if let Some(anybody) = self.anybody() {
            return Ok(Arc::clone(anybody));
        }
        let user = self.users.iter().find(|user| user.name == name).cloned();
        // Of a name that is not there the answer takes as long.
        let hash = user.as_ref().and_then(|user| user.password.clone()).unwrap_or_else(|| NOBODY.to_owned());
        let is_right = self.is_any(password, vec![hash]).await?;
        user.filter(|_| is_right).ok_or_else(refused)
    }

    /// The user with this token.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn by_token(&self, token: &str) -> Result<Arc<User>, Status> {
        if let Some(anybody) = self.anybody() {
            return Ok(Arc::clone(anybody));
        }
        if let Some(user) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
            return Ok(Arc::clone(user));
        }
        for user in &self.users {
            if !user.tokens.is_empty() && self.is_any(token, user.tokens.clone()).await? {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(token.to_owned(), Arc::clone(user));
                return Ok(Arc::clone(user));
            }
        }
        Err(refused())
    }

    /// Whether a secret has one of these hashes.
    async fn is_any(&self, secret: &str, hashes: Vec<String>) -> Result<bool, Status> {
        let _one = self.guessing.lock().await;
        let secret = secret.to_owned();
        let checking = tokio::task::spawn_blocking(move || {
            let is_right = |hash: &String| {
                let hash = PasswordHash::new(hash);
                hash.is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
            };
            hashes.iter().any(is_right)
        });
        checking.await.map_err(|error| Status::internal(error.to_string()))
    }
}

/// The hash of a password that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5a25vd3NpdA$8o0Nq0Jv0yZ6m1l4m3p0S1p0Zr4tq7m2cX1bYw3sT0E";

fn refused() -> Status {
    Status::unauthenticated("the name, password or token is wrong")
}

/// A secret as the configuration has it.
///
/// # Errors
/// Fails if there is no randomness.
pub(super) fn hash(secret: &str) -> Result<String, String> {
    Argon2::default().hash_password(secret.as_bytes()).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, role: Role) -> User {
        let password = Some(hash("secret").unwrap());
        User { name: name.to_owned(), role, password, tokens: vec![hash("token").unwrap()] }
    }

    #[tokio::test]
    async fn a_password_or_token_opens_and_nothing_else_does() {
        let access = Access::new(&[user("ann", Role::Reader)]);
        assert_eq!(access.by_password("ann", "secret").await.unwrap().name, "ann");
        assert!(access.by_password("ann", "Secret").await.is_err());
        assert!(access.by_password("bob", "secret").await.is_err());
        for _ in 0..2 {
            assert_eq!(access.by_token("token").await.unwrap().name, "ann");
        }
        assert!(access.by_token("secret").await.is_err());
        assert!(PasswordHash::new(NOBODY).is_ok());
    }

    #[test]
    fn a_role_includes_those_before_it() {
        assert!(user("ann", Role::Reader).check(Right::Write).is_err());
        assert!(user("ann", Role::Writer).check(Right::Read).is_ok());
        assert!(user("ann", Role::Writer).check(Right::Administer).is_err());
        assert!(user("ann", Role::Admin).check(Right::Administer).is_ok());
    }

    #[test]
    fn a_password_that_is_not_hashed_is_a_fault() {
        let plain = User { password: Some("secret".to_owned()), ..user("ann", Role::Admin) };
        assert!(plain.fault().is_some());
        assert!(user("ann", Role::Admin).fault().is_none());
    }
}
