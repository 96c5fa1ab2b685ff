//! `[outgoing]`, and the standard environment variables for proxies and certificates. The variable for certificates is
//! used; the variables for proxies only cause a warning.

use std::collections::BTreeMap;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::{FileFingerprint, Problems, Warnings};
use crate::session::backends::outgoing::{Outgoing, OutgoingConfig};

/// The environment variable that names the file with the system's certificates. OpenSSL reads it too.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// The standard variables for proxies. Both spellings are listed, because programs use upper and lower case.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// The settings of outgoing calls, from `[outgoing]` and the environment. The file that `SSL_CERT_FILE` names is added
/// to `files`.
pub(super) fn check(
    config: &OutgoingConfig,
    environment: &BTreeMap<String, String>,
    files: &mut Vec<FileFingerprint>,
    problems: &mut Problems,
    warnings: &mut Warnings,
) -> Outgoing {
    let system = environment
        .get(SSL_CERT_FILE)
        .filter(|path| !path.is_empty())
        .and_then(|path| problems.accept(SSL_CERT_FILE, read_system(Path::new(path), files)));
    let outgoing =
        Outgoing::of_system(system).with(config, |key| format!("outgoing.{key}"), problems);
    let is_set = |name: &&str| environment.get(*name).is_some_and(|text| !text.is_empty());
    if let (None, Some(name)) = (
        &config.proxy,
        PROXY_VARIABLES.iter().find(|name| is_set(name)),
    ) {
        warnings.add(
            *name,
            "is set but not used: calls are made directly. Set outgoing.proxy (ROLLOUT__OUTGOING__PROXY) to use the proxy, \
             or set it to \"\" if calls need no proxy",
        );
    }
    outgoing
}

fn read_system(path: &Path, files: &mut Vec<FileFingerprint>) -> Result<Vec<u8>, String> {
    let (pem, file) = FileFingerprint::read(path).map_err(|error| {
        format!(
            "names {}, which cannot be read: {error}. Check that it is mounted, and fix the path or unset the variable",
            path.display()
        )
    })?;
    files.push(file);
    // Certificates that cannot be parsed are skipped, as in other programs. At least one must be valid.
    if !CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok()) {
        return Err(format!(
            "names {}, which contains no PEM certificate",
            path.display()
        ));
    }
    Ok(pem)
}
