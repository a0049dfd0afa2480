//! Certificates that `openssl` makes for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const CURVE: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days"];

/// An authority, and what it issued.
pub struct Authority {
    directory: tempfile::TempDir,
}

/// A certificate with its private key.
pub struct Leaf {
    /// Certificate and key, PEM.
    pub pem: String,
    pub der: Vec<u8>,
}

impl Authority {
    /// A fresh authority; `extensions` are those of its own certificate.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with further extensions in its own certificate.
    pub fn with(extensions: &[&str]) -> Self {
        Self::called("authority", extensions)
    }

    /// The same under another name.
    pub fn called(name: &str, extensions: &[&str]) -> Self {
        let authority = Self { directory: tempfile::tempdir().unwrap() };
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509"];
        arguments.extend(CURVE);
        arguments.extend(["2", "-subj", &subject, "-keyout", "ca.key", "-out", "ca.crt"]);
        extensions.iter().for_each(|extension| arguments.extend(["-addext", extension]));
        authority.openssl(&arguments);
        authority
    }

    /// Its own certificate, PEM.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Its own certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        der(&self.path())
    }

    /// Its own certificate, base64 DER as JWKs have it.
    pub fn x5c(&self) -> String {
        STANDARD.encode(self.der())
    }

    /// Withdraws a certificate; its list of those, DER.
    pub fn withdraws(&self, name: &str) -> Vec<u8> {
        let file = |name: &str| self.directory.path().join(name);
        let config = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n\
                      default_crl_days=1\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid:always\n";
        std::fs::write(file("ca.conf"), config).unwrap();
        std::fs::write(file("index"), "").unwrap();
        std::fs::write(file("number"), "01\n").unwrap();
        let own = ["ca", "-config", "ca.conf", "-keyfile", "ca.key", "-cert", "ca.crt"];
        let certificate = format!("{name}.crt");
        self.openssl(&[&own[..], &["-revoke", &certificate]].concat());
        self.openssl(&[&own[..], &["-gencrl", "-out", "list.pem"]].concat());
        self.openssl(&["crl", "-in", "list.pem", "-outform", "DER", "-out", "list.der"]);
        std::fs::read(file("list.der")).unwrap()
    }

    /// Certificate and key files of a server on this machine.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        self.issue("server", &["subjectAltName=IP:127.0.0.1,DNS:localhost", "basicConstraints=critical,CA:FALSE"]);
        (self.directory.path().join("server.crt"), self.directory.path().join("server.key"))
    }

    /// A certificate with exactly these extensions, for a day.
    pub fn issue(&self, name: &str, extensions: &[&str]) -> Leaf {
        self.issue_for("1", name, extensions)
    }

    /// The same for so many days.
    pub fn issue_for(&self, days: &str, name: &str, extensions: &[&str]) -> Leaf {
        let (subject, key, certificate) = (format!("/CN={name}"), format!("{name}.key"), format!("{name}.crt"));
        let mut arguments = vec!["req", "-x509"];
        arguments.extend(CURVE);
        arguments.extend([days, "-subj", &subject, "-keyout", &key, "-out", &certificate]);
        arguments.extend(["-CA", "ca.crt", "-CAkey", "ca.key"]);
        extensions.iter().for_each(|extension| arguments.extend(["-addext", extension]));
        self.openssl(&arguments);
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap();
        Leaf { pem: read(&certificate) + read(&key).as_str(), der: der(&self.directory.path().join(&certificate)) }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Leaf {
    /// What `cnf` of a token says that is bound to the certificate.
    pub fn confirmation(&self) -> serde_json::Value {
        let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der);
        serde_json::json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint) })
    }
}

fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}
