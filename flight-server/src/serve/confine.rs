//! Where connectors may go that clients declare: files under some folders, some hosts.

use std::path::{Component, Path, PathBuf};

use millstream_engine::plan::WithOption;
use millstream_sql::{SecretSource, Statement};
use tonic::Status;

/// The options that name a file or folder, and those that name a host.
const PATHS: [&str; 1] = ["path"];
const HOSTS: [&str; 3] = ["address", "host", "url"];

/// What is allowed; where nothing is said everything is.
#[derive(Debug, Clone, Default)]
pub(super) struct Confinement {
    /// The folders, as they are on the disk.
    pub(super) paths: Option<Vec<PathBuf>>,
    /// `host`, or `host:port`.
    pub(super) hosts: Option<Vec<String>>,
}

impl Confinement {
    /// Refuses a declaration whose connector would go elsewhere.
    ///
    /// # Errors
    /// Names the option and what is allowed.
    pub(super) fn check(&self, statement: &Statement) -> Result<(), Status> {
        let options = match statement {
            Statement::CreateStream { definition, .. } | Statement::CreateTable { definition, .. } => {
                &definition.options
            }
            Statement::CreateSink { definition, .. } => &definition.options,
            Statement::CreateSecret { source: SecretSource::File(path), .. } => {
                return self.check_option(&WithOption::new("path", path, None));
            }
            _ => return Ok(()),
        };
        options.iter().try_for_each(|option| self.check_option(option))
    }

    fn check_option(&self, WithOption { key, value, .. }: &WithOption) -> Result<(), Status> {
        if let (true, Some(allowed)) = (PATHS.contains(&key.as_str()), &self.paths) {
            let real = real_path(Path::new(value));
            if !real.is_some_and(|path| allowed.iter().any(|root| path.starts_with(root))) {
                let roots: Vec<_> = allowed.iter().map(|root| root.display().to_string()).collect();
                let message = format!("the option {key} is under none of the folders that are allowed: {roots:?}");
                return Err(Status::permission_denied(message));
            }
        }
        let names_host = HOSTS.contains(&key.as_str()) || PATHS.contains(&key.as_str()) && value.contains("://");
        if let (true, Some(allowed)) = (names_host, &self.hosts) {
            let is_allowed = |given: &str| {
                let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
                allowed.iter().any(|allowed| allowed == given || allowed == host)
            };
            if !host_of(value).is_some_and(is_allowed) {
                let message = format!("the option {key} names a host that is not allowed; those that are: {allowed:?}");
                return Err(Status::permission_denied(message));
            }
        }
        Ok(())
    }
}

/// Where a path leads, through links, as far as it exists; what is made behind it stays there. A pattern counts as the
/// folder before it and may stand at the end alone. None for a path that leaves what exists by `..`, and for a URL.
fn real_path(path: &Path) -> Option<PathBuf> {
    let is_pattern = |path: &Path| path.to_string_lossy().contains(['*', '?', '[']);
    if path.to_string_lossy().contains("://") || path.parent().is_some_and(is_pattern) {
        return None;
    }
    let absolute = std::path::absolute(path).ok()?;
    let mut existing = absolute.as_path();
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return Some(rest.iter().rev().fold(real, |path, part| path.join(part)));
        }
        match existing.components().next_back()? {
            Component::Normal(part) => rest.push(part.to_owned()),
            _ => return None,
        }
        existing = existing.parent()?;
    }
}

/// The host with its port, if it has one, of an address or URL; none where clients could read another one out of it.
fn host_of(value: &str) -> Option<&str> {
    let is_plain = |c: char| c.is_ascii_graphic() && c != '\\' && c != ',';
    let names_others = ["host=", "hostaddr=", "host%"].iter().any(|name| value.to_ascii_lowercase().contains(name));
    if !value.chars().all(is_plain) || names_others {
        return None;
    }
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &str, value: &str) -> WithOption {
        WithOption::new(key, value, None)
    }

    #[test]
    fn a_path_is_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("in")).unwrap();
        std::os::unix::fs::symlink("/", root.join("in/link")).unwrap();
        let confined = Confinement { paths: Some(vec![root.join("in")]), hosts: None };
        let check = |path: &str| confined.check_option(&option("path", &root.join(path).display().to_string()));
        for inside in ["in", "in/new/file.csv", "in/*.csv", "in/x/../y.csv"] {
            // A pattern with `..` behind something that is not there is refused.
            assert_eq!(check(inside).is_ok(), inside != "in/x/../y.csv", "{inside}");
        }
        for outside in ["", "other", "in/../other", "in/link/etc/passwd", "in/link/*", "in/l?nk/etc/passwd"] {
            assert!(check(outside).is_err(), "{outside}");
        }
        assert!(confined.check_option(&option("path", "file:///etc/passwd")).is_err());
        assert!(confined.check_option(&option("format", "/etc/passwd")).is_ok());
        assert!(Confinement::default().check_option(&option("path", "/etc/passwd")).is_ok());
    }

    #[test]
    fn a_host_is_that_of_the_address_or_url() {
        let hosts = Some(vec!["db".to_owned(), "127.0.0.1:80".to_owned()]);
        let confined = Confinement { paths: None, hosts };
        let check = |key: &str, value: &str| confined.check_option(&option(key, value)).is_ok();
        assert!(check("url", "postgres://me:pass@db:5432/x") && check("address", "127.0.0.1:80"));
        assert!(check("url", "http://127.0.0.1:80/db") && check("host", "db"));
        for wrong in [
            "postgres://db@evil/x",
            "http://127.0.0.1:81/",
            "http://evil/?@db",
            "evil#@db",
            "http://evil\\@db/x",
            "postgres://db/x?hostaddr=10.0.0.5",
            "postgres://db,evil/x",
            "host=evil user=me password='://db/'",
        ] {
            assert!(!check("url", wrong), "{wrong}");
        }
        assert!(!check("path", "s3://bucket/x"), "a store is a host too");
    }
}
