//! Where a state directory is: a folder, or a prefix of an object store.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use datafusion::object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::object_store::{ClientConfigKey, RetryConfig};

use super::directory::lock;
use super::files::{Durability, Files, LocalFiles};
use super::object_files::ObjectFiles;
use crate::error::{Error, Result};

/// How long a request is tried again while a store cannot be reached …
const OUTAGE: Duration = Duration::from_secs(60);
/// … and while it has never answered.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long one request may take with its body, unless AWS_TIMEOUT says something else: files of state are large.
const REQUEST_TIMEOUT: &str = "10 minutes";

/// Where a state directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatePlace {
    /// A folder on a local disk.
    Folder(PathBuf),
    /// `s3://bucket/prefix`: objects in an S3-compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all names of objects begin with.
        prefix: String,
    },
}

impl FromStr for StatePlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(text.into())) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let hint = "name a folder, or s3://BUCKET/PREFIX";
        if scheme != "s3" {
            return Err(Error::state(format!("state cannot be kept at {text:?}"), hint));
        }
        if bucket.is_empty() || prefix.is_empty() {
            let message = format!("{text:?} names no {}", if bucket.is_empty() { "bucket" } else { "prefix" });
            return Err(Error::state(message, hint));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl From<&Path> for StatePlace {
    fn from(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }
}

impl fmt::Display for StatePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl StatePlace {
    /// The disk there, which is made if need be, and the lock on it; a store has none, it has terms and conditional
    /// puts.
    pub(super) fn open(&self, durability: Durability) -> Result<(Arc<dyn Files>, Option<File>)> {
        let fail = |error| Error::external(format!("opening state directory {self}"), error);
        match self {
            Self::Folder(path) => {
                let files = LocalFiles::open(path, durability).map_err(fail)?;
                Ok((Arc::new(files), Some(lock(path)?)))
            }
            Self::S3 { .. } if durability == Durability::ProcessCrash => {
                let message = format!("{self} keeps what it has acknowledged whether the power goes off or not");
                Err(Error::state(message, "leave --durability out"))
            }
            Self::S3 { bucket, prefix } => {
                let files = self.store(bucket, prefix)?;
                files.check_conditional_put().map_err(fail)?;
                Ok((Arc::new(files), None))
            }
        }
    }

    /// The disk there, which another process owns, for files of its.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn share(&self, durability: Durability) -> Result<Arc<dyn Files>> {
        match self {
            Self::Folder(path) if path.is_dir() => {
                let files = LocalFiles::open(path, durability);
                Ok(Arc::new(files.map_err(|error| Error::external(format!("opening {self}"), error))?))
            }
            _ => self.look(),
        }
    }

    /// The disk there, which is left as it is.
    pub(super) fn look(&self) -> Result<Arc<dyn Files>> {
        match self {
            Self::Folder(path) if path.is_dir() => {
                let files = LocalFiles::open(path, Durability::ProcessCrash);
                Ok(Arc::new(files.map_err(|error| Error::external(format!("opening {self}"), error))?))
            }
            Self::Folder(_) => {
                let message = format!("{self} is no state directory");
                Err(Error::state(message, "name the folder that was given to --state-dir"))
            }
            Self::S3 { bucket, prefix } => Ok(Arc::new(self.store(bucket, prefix)?)),
        }
    }

    /// The store that the environment describes, once it has answered.
    fn store(&self, bucket: &str, prefix: &str) -> Result<ObjectFiles> {
        let fail = |error: std::io::Error| {
            let hint = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL for a store \
                        that is not Amazon's";
            Error::state(format!("opening state directory {self}: {error}"), hint)
        };
        // A store that has never answered is not waited for.
        self.connect(bucket, prefix, FIRST_ANSWER).and_then(|files| files.list("")).map_err(fail)?;
        self.connect(bucket, prefix, OUTAGE).map_err(fail)
    }

    /// A store whose requests are tried again for `patience`, however often they fail.
    fn connect(&self, bucket: &str, prefix: &str, patience: Duration) -> std::io::Result<ObjectFiles> {
        let retry = RetryConfig { max_retries: usize::MAX, retry_timeout: patience, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
        let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        if builder.get_config_value(&timeout).is_none() {
            builder = builder.with_config(timeout, REQUEST_TIMEOUT);
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
        // Whoever writes http:// means it.
        let key = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let builder = if endpoint.starts_with("http://") { builder.with_config(key, "true") } else { builder };
        let store = builder.build().map_err(std::io::Error::other)?;
        let prefix = ObjectPath::parse(prefix).map_err(std::io::Error::other)?;
        Ok(ObjectFiles::new(Arc::new(store), prefix, self.to_string())?.with_patience(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_prefix_of_a_bucket() {
        for text in ["state", "/var/lib/state", "s3://bucket/a/b"] {
            assert_eq!(text.parse::<StatePlace>().unwrap().to_string(), text);
        }
        let place = "s3://bucket/a/".parse::<StatePlace>().unwrap();
        assert_eq!(place, StatePlace::S3 { bucket: "bucket".to_owned(), prefix: "a".to_owned() });
        for (text, reason) in [
            ("gs://bucket/a", "state cannot be kept at \"gs://bucket/a\""),
            ("s3://bucket", "\"s3://bucket\" names no prefix"),
            ("s3:///a", "\"s3:///a\" names no bucket"),
        ] {
            let error = text.parse::<StatePlace>().unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
