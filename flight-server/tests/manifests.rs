//! The arrows between the crates, and the single arrow and object_store of the tree, read from the manifests.

#![expect(clippy::panic, reason = "a test that cannot read the manifests ends there")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Which packages each of ours may see.
const ARROWS: [(&str, &str, &[&str]); 5] = [
    ("engine", "millstream-engine", &[]),
    ("sql", "millstream-sql", &["millstream-engine"]),
    ("connectors", "millstream-connectors", &["millstream-engine"]),
    ("flight-server", "millstream", &["millstream-engine", "millstream-sql", "millstream-connectors"]),
    (
        "benchmarks",
        "millstream-benchmarks",
        &["millstream", "millstream-engine", "millstream-sql", "millstream-connectors"],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys of a manifest's dependency tables, development and build ones included.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_table = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            is_table = line.ends_with("dependencies]");
        } else if is_table && !line.is_empty() && !line.starts_with('#') {
            names.insert(line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned());
        }
    }
    names
}

#[test]
fn crates_see_only_what_the_design_allows() {
    for (folder, package, allowed) in ARROWS {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{folder} is not {package}");
        let seen = dependencies(&manifest);
        let ours: Vec<_> = seen.iter().filter(|name| name.starts_with("millstream")).collect();
        assert!(!seen.is_empty(), "no dependency of {folder} was read");
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{package} must not see {name}");
        }
    }
}

#[test]
fn every_member_is_listed_and_takes_the_common_lints() {
    let workspace = read("Cargo.toml");
    for (folder, ..) in ARROWS {
        assert!(workspace.contains(&format!("\"{folder}\"")), "{folder} is no member");
        let manifest = read(&format!("{folder}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder} does not take the workspace's lints");
        let versions = manifest.lines().filter(|line| line.contains("version = \"") && !line.starts_with("version"));
        assert_eq!(versions.count(), 0, "{folder} names a version that belongs into the workspace manifest");
    }
}

#[test]
fn the_tree_has_one_arrow_and_one_object_store() {
    let lock = read("Cargo.lock");
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(found) = line.strip_prefix("name = \"") {
            name = found.trim_end_matches('"');
        } else if let Some(found) = line.strip_prefix("version = \"") {
            versions.entry(name).or_default().push(found.trim_end_matches('"'));
        }
    }
    for single in ["arrow", "arrow-array", "arrow-schema", "parquet", "object_store", "datafusion", "sqlparser"] {
        let found = versions.get(single).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(found.len(), 1, "{single}: {found:?}");
    }
}
