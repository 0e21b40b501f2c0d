//! A cluster with certificates: the rows are those of one process, and strangers stay out.

use std::process::Command;

use super::{STREAM, SUMS, VIEW, ends_at, undisturbed};
use crate::process::{Folder, Running};
use crate::serve::Server;

const ROWS: u64 = 200_000;
/// What has `openssl` make a key that needs no password.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// Who signs certificates; its files lie in a folder.
struct Authority<'a> {
    folder: &'a Folder,
    pem: String,
    key: String,
}

/// The files that a process of a cluster needs.
struct Certificate {
    /// Who must have signed what others show.
    ca: String,
    pem: String,
    key: String,
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Folder, name: &str) -> Self {
        let [pem, key] = ["pem", "key"].map(|ending| folder.path(&format!("{name}.{ending}")));
        let subject = format!("/CN={name}");
        let request = ["req", "-x509", "-days", "1", "-subj", &subject, "-keyout", &key, "-out", &pem];
        openssl(&[request.as_slice(), &NEW_KEY].concat());
        Self { folder, pem, key }
    }

    /// A certificate for a process of this machine, made as the documentation says.
    fn certify(&self, name: &str) -> Certificate {
        let [pem, key, csr] = ["pem", "key", "csr"].map(|ending| self.folder.path(&format!("{name}.{ending}")));
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name},DNS:localhost"));
        let request = ["req", "-subj", &subject, "-addext", &names, "-keyout", &key, "-out", &csr];
        openssl(&[request.as_slice(), &NEW_KEY].concat());
        let signed = ["x509", "-req", "-in", &csr, "-copy_extensions", "copy", "-CA", &self.pem, "-CAkey", &self.key];
        openssl(&[signed.as_slice(), &["-CAcreateserial", "-days", "1", "-out", &pem]].concat());
        Certificate { ca: self.pem.clone(), pem, key }
    }
}

impl Certificate {
    fn arguments(&self) -> [&str; 6] {
        ["--cluster-ca", &self.ca, "--cluster-cert", &self.pem, "--cluster-key", &self.key]
    }
}

fn openssl(arguments: &[&str]) {
    let ran = Command::new("openssl").args(arguments).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn start(name: &str, driver: &str, certificate: &[&str]) -> Running {
    let executor = ["executor", "--driver", driver, "--name", name, "--advertise", "localhost"];
    Running::start(&[executor.as_slice(), certificate].concat())
}

#[test]
fn with_certificates_the_rows_are_the_same_and_strangers_stay_out() {
    let folder = Folder::new();
    let (ours, theirs) = (Authority::new(&folder, "ours"), Authority::new(&folder, "theirs"));
    let certificate = ours.certify("driver");
    let advertised = ["--advertise", "localhost"];
    let (server, driver) =
        Server::awaiting(&folder, &[advertised.as_slice(), certificate.arguments().as_slice()].concat());
    assert!(driver.starts_with("https://localhost:"), "{driver}");
    let _workers = ["worker-1", "worker-2"].map(|name| start(name, &driver, &ours.certify(name).arguments()));
    server.executors_until(|executors| executors.len() == 2);
    let other = theirs.certify("other");
    let unknown = Certificate { ca: ours.pem.clone(), pem: other.pem.clone(), key: other.key.clone() };
    let mut strangers = [
        // The driver is who it should be, and does not know who signed this one's certificate.
        start("unknown", &driver, &unknown.arguments()),
        start("distrustful", &driver, &other.arguments()),
        start("bare", &driver.replace("https://", "http://"), &[]),
    ];
    for stranger in &mut strangers {
        stranger.wait_for_note("cannot register; trying again and again");
    }
    server.ask(&format!("{STREAM} rows = {ROWS})"));
    server.ask(VIEW);
    let sums = server.ask_until(SUMS, |sums| ends_at(sums, ROWS));
    assert_eq!(sums, undisturbed(ROWS));
    let workers = server.executors_until(|executors| executors.iter().all(|executor| executor.rows > 0));
    let names: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);
    // Those that were ever there and are lost would be listed too.
    let shown = server.ask("SHOW EXECUTORS");
    assert_eq!(shown.lines().count(), 3, "{shown}");
    for stranger in &mut strangers {
        assert!(stranger.is_running(), "it tries on");
    }
}
