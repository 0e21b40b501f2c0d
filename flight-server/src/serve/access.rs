//! Who may use the server: users with hashed passwords and tokens, each with a role.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use millstream_sql::Statement;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::roles::{Right, Role, rights_for};

/// Somebody who may use the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    /// The name of a role.
    pub(super) role: String,
    /// The password as `millstream hash` writes it; none for one who has tokens only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// Tokens, hashed as the password.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<String>,
}

/// Who a client has turned out to be.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) role: Role,
}

/// All who may use the server; everybody may do everything if there is nobody.
#[derive(Debug)]
pub(super) struct Access {
    users: Vec<(User, Arc<Identity>)>,
    anybody: Arc<Identity>,
    /// Tokens that were found right, as finding that out takes a while on purpose.
    known: Mutex<HashMap<String, Arc<Identity>>>,
    /// One guess at a time.
    guessing: tokio::sync::Mutex<()>,
}

impl Identity {
    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// Names the user, and what it is.
    pub(super) fn check(&self, right: &Right) -> Result<(), Status> {
        if self.role.permits(right) {
            return Ok(());
        }
        let deed = right.deed();
        tracing::warn!(target: "millstream::audit", user = self.name, "refused: may not {deed}");
        Err(Status::permission_denied(format!("user {:?} may not {deed}", self.name)))
    }

    /// Refuses a statement that the user may not run.
    ///
    /// # Errors
    /// Names the user, and what it may not do.
    pub(super) fn check_statement(&self, statement: &Statement) -> Result<(), Status> {
        rights_for(statement).iter().try_for_each(|right| self.check(right))
    }
}

impl User {
    /// What is wrong with the declaration of a user, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        let hashes = self.password.iter().chain(&self.tokens);
        let bad = hashes.into_iter().any(|hash| PasswordHash::new(hash).is_err());
        bad.then(|| format!("user {:?} has a password or token that is not hashed: use millstream hash", self.name))
    }
}

impl Access {
    /// These users, with the roles that they name.
    ///
    /// # Errors
    /// Names a user without one, and a role that is there twice.
    pub(super) fn new(users: &[User], declared: &[Role]) -> Result<Self, String> {
        let roles: Vec<Role> = Role::built_in().into_iter().chain(declared.iter().cloned()).collect();
        for (index, role) in roles.iter().enumerate() {
            if roles.iter().take(index).any(|other| other.name == role.name) {
                return Err(format!("there are two roles {:?}", role.name));
            }
        }
        let identified = users.iter().map(|user| {
            let role = roles.iter().find(|role| role.name == user.role).cloned();
            let names: Vec<_> = roles.iter().map(|role| role.name.as_str()).collect();
            let unknown = || format!("user {:?} has the role {:?}, and there are {names:?}", user.name, user.role);
            let identity = Identity { name: user.name.clone(), role: role.ok_or_else(unknown)? };
            Ok::<_, String>((user.clone(), Arc::new(identity)))
        });
        let users = identified.collect::<Result<_, _>>()?;
        let anybody = Identity { name: "anybody".to_owned(), role: Role::of_anybody() };
        Ok(Self { users, anybody: Arc::new(anybody), known: Mutex::default(), guessing: tokio::sync::Mutex::default() })
    }

    /// The user that stands for everybody, where there are no others.
    pub(super) fn anybody(&self) -> Option<&Arc<Identity>> {
        self.users.is_empty().then_some(&self.anybody)
    }

    /// The user with this name and password.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn by_password(&self, name: &str, password: &str) -> Result<Arc<Identity>, Status> {
        if let Some(anybody) = self.anybody() {
            return Ok(Arc::clone(anybody));
        }
        let user = self.users.iter().find(|(user, _)| user.name == name);
        // Of a name that is not there the answer takes as long.
        let hash = user.and_then(|(user, _)| user.password.clone()).unwrap_or_else(|| NOBODY.to_owned());
        let is_right = self.is_any(password, vec![hash]).await?;
        user.filter(|_| is_right).map(|(_, identity)| Arc::clone(identity)).ok_or_else(|| refused(name))
    }

    /// The user with this token.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn by_token(&self, token: &str) -> Result<Arc<Identity>, Status> {
        if let Some(anybody) = self.anybody() {
            return Ok(Arc::clone(anybody));
        }
        if let Some(user) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
            return Ok(Arc::clone(user));
        }
        for (user, identity) in &self.users {
            if !user.tokens.is_empty() && self.is_any(token, user.tokens.clone()).await? {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(token.to_owned(), Arc::clone(identity));
                return Ok(Arc::clone(identity));
            }
        }
        Err(refused("a token"))
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

fn refused(name: &str) -> Status {
    tracing::warn!(target: "millstream::audit", user = name, "a login was refused");
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

    fn user(name: &str, role: &str) -> User {
        let password = Some(hash("secret").unwrap());
        User { name: name.to_owned(), role: role.to_owned(), password, tokens: vec![hash("token").unwrap()] }
    }

    #[tokio::test]
    async fn a_password_or_token_opens_and_nothing_else_does() {
        let access = Access::new(&[user("ann", "reader")], &[]).unwrap();
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
    fn a_role_must_be_there_once() {
        let desk: Role = toml::from_str("name = 'desk'\nread = ['v']").unwrap();
        let access = Access::new(&[user("ann", "desk")], std::slice::from_ref(&desk)).unwrap();
        assert!(access.users[0].1.check(&Right::Read("v".to_owned())).is_ok());
        assert!(access.users[0].1.check(&Right::Read("w".to_owned())).is_err());
        assert!(Access::new(&[user("ann", "desk")], &[]).unwrap_err().contains("desk"));
        assert!(Access::new(&[], &[desk.clone(), desk]).is_err());
    }

    #[test]
    fn a_password_that_is_not_hashed_is_a_fault() {
        let plain = User { password: Some("secret".to_owned()), ..user("ann", "admin") };
        assert!(plain.fault().is_some());
        assert!(user("ann", "admin").fault().is_none());
    }
}
