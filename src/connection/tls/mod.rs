//! TLS: the settings, turned into the configuration of rustls, and the sessions of connections.
//!
//! ```text
//!   settings ─> Inputs ─> Materials::load ─┬─> ServerConfig ─> accept ──┐
//!               (files)   pem.rs names.rs  ├─> ClientConfig ─> connect ─┴─> Session (session.rs)
//!                         verify.rs        └─> Facts for INFO (certificate.rs)
//! ```
//!
//! `Materials` are built as a whole and replaced as a whole: a running connection keeps the
//! materials that it began with, and if building fails, the present materials stay in use.
//! [`Inputs`] has no reference to the server, so a thread can load from it.
//!
//! **Limits:** rustls speaks TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only. rustls has
//! no parameters for classic Diffie-Hellman (`tls-dh-params-file`), no CBC ciphers and no RSA key
//! exchange. A peer's certificate must be X.509 version 3.
//!
//! The kernel's TLS is not used, not even for replicas: a replica with TLS costs the primary 5 %
//! more than one without for values of 16 bytes, 8 % for 1,000 bytes. Most of the cost of TLS is
//! the encryption itself, which the kernel would do on the same core; only a copy would be saved.

mod certificate;
mod current;
mod names;
mod pem;
mod session;
mod verify;

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::certificate::Facts;
pub use self::current::Current;
pub use self::session::Session;
use self::verify::{Clients, Servers, Sessions, Trust};
use crate::config::{Config, TlsAuthClients, TlsAuthClientsUser};
use crate::sys;

/// A copy of the settings of TLS, from which materials are loaded.
#[derive(Clone, PartialEq, Eq)]
pub struct Inputs {
    server: Pair,
    client: Pair,
    dh_params: PathBuf,
    ca_file: PathBuf,
    ca_dir: PathBuf,
    auth: TlsAuthClients,
    /// Whether this server connects to other servers by TLS (`tls-replication`, `tls-cluster`), so
    /// that it must check their certificates.
    outgoing: bool,
    protocols: String,
    ciphers: String,
    ciphersuites: String,
    prefer_server_ciphers: bool,
    /// The maximum number of cached TLS sessions, and the seconds for which a session is cached;
    /// `None` without caching.
    sessions: Option<(u32, u32)>,
}

/// The paths of a certificate and of its private key, and the key's passphrase.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    passphrase: Vec<u8>,
}

/// The contents of all files of certificates and keys, to see whether a reload changes anything.
#[derive(PartialEq, Eq, Default)]
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = pem::read_file(path)?;
        self.0.push((path.into(), bytes.clone()));
        Ok(bytes)
    }

    /// The contents of the file that was read by this path.
    fn get(&self, path: &Path) -> Option<&[u8]> {
        let mut named = self.0.iter().filter(|(name, _)| name == path);
        named.next().map(|(_, bytes)| &bytes[..])
    }
}

/// Everything that new TLS connections need: rustls's configurations as server and as client, and
/// facts of the certificates.
pub struct Materials {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    inputs: Inputs,
    files: Files,
    server_facts: Option<Facts>,
    client_facts: Option<Facts>,
    ca_facts: Option<Facts>,
}

impl Inputs {
    /// Copies the settings of TLS from the configuration.
    pub fn of(config: &Config) -> Inputs {
        let own = Pair {
            certificate: config.tls_cert_file.as_path().into(),
            key: config.tls_key_file.as_path().into(),
            passphrase: config.tls_key_file_pass.as_bytes().to_vec(),
        };
        let client = Pair {
            certificate: config.tls_client_cert_file.as_path().into(),
            key: config.tls_client_key_file.as_path().into(),
            passphrase: config.tls_client_key_file_pass.as_bytes().to_vec(),
        };
        Inputs {
            server: own,
            client,
            dh_params: config.tls_dh_params_file.as_path().into(),
            ca_file: config.tls_ca_cert_file.as_path().into(),
            ca_dir: config.tls_ca_cert_dir.as_path().into(),
            auth: config.tls_auth_clients,
            outgoing: config.tls_replication || config.tls_cluster,
            protocols: config.tls_protocols.to_str_lossy().into_owned(),
            ciphers: config.tls_ciphers.to_str_lossy().into_owned(),
            ciphersuites: config.tls_ciphersuites.to_str_lossy().into_owned(),
            prefer_server_ciphers: config.tls_prefer_server_ciphers,
            sessions: config.tls_session_caching.then_some((
                config.tls_session_cache_size,
                config.tls_session_cache_timeout,
            )),
        }
    }
}

/// Whether the settings need TLS at all.
pub fn is_needed(config: &Config) -> bool {
    config.tls_port != 0 || config.tls_replication || config.tls_cluster
}

impl Materials {
    /// Reads all files of certificates and keys, and builds rustls's configurations. `Err` is a
    /// line for the log.
    pub fn load(inputs: &Inputs) -> Result<Materials, String> {
        let missing = |what: &str| Err(format!("No {what} configured!"));
        if inputs.server.certificate.as_os_str().is_empty() {
            return missing("tls-cert-file");
        }
        if inputs.server.key.as_os_str().is_empty() {
            return missing("tls-key-file");
        }
        let no_ca = inputs.ca_file.as_os_str().is_empty() && inputs.ca_dir.as_os_str().is_empty();
        if no_ca && (inputs.auth != TlsAuthClients::No || inputs.outgoing) {
            return Err(
                "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                 tls-auth-clients are enabled!"
                    .into(),
            );
        }
        let mut files = Files::default();
        check_dh_params(inputs, &mut files)?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: names::suites(&inputs.ciphersuites, &inputs.ciphers)?,
            ..aws_lc_rs::default_provider()
        });
        let own = key_pair(&inputs.server, &provider, &mut files)?;
        let client_pair = &inputs.client;
        let separate = !client_pair.certificate.as_os_str().is_empty();
        let client = match separate {
            true => key_pair(client_pair, &provider, &mut files)?,
            false => own.clone(),
        };
        let given = trusted(inputs, &mut files)?;
        let soonest = |given: &[CertificateDer]| {
            let facts = given.iter().filter_map(|der| certificate::read(der));
            facts.min_by_key(|facts| facts.not_after_s)
        };
        let ca_facts = soonest(&given);
        let trust = Trust::new(given, &provider)
            .map_err(|e| format!("Failed to configure CA certificate(s) file/directory: {e}"))?;
        let trust = Arc::new(trust);
        let facts = |key: &CertifiedKey| key.cert.first().and_then(|der| certificate::read(der));
        seed(&provider)?;
        Ok(Materials {
            server: Arc::new(server_config(inputs, &provider, own.clone(), &trust)?),
            client: Arc::new(client_config(inputs, &provider, client.clone(), &trust)?),
            inputs: inputs.clone(),
            files,
            server_facts: facts(&own),
            client_facts: facts(&client).filter(|_| separate),
            ca_facts,
        })
    }

    /// Whether these materials and `other` have equal settings of TLS and equal contents of files.
    pub fn is_same(&self, other: &Materials) -> bool {
        self.inputs == other.inputs && self.files == other.files
    }

    /// Whether this server's own certificates are the same in these materials and in `other`: the
    /// paths of the files and their contents.
    pub fn has_same_certificates(&self, other: &Materials) -> bool {
        let own = |materials: &Materials| {
            let inputs = &materials.inputs;
            [&inputs.server, &inputs.client].map(|pair| pair.certificate.clone())
        };
        let paths = own(self);
        paths == own(other)
            && paths
                .iter()
                .all(|path| self.files.get(path) == other.files.get(path))
    }

    /// A line for the log about the first of this server's own certificates that is not valid at
    /// `now_s`.
    pub fn not_valid(&self, now_s: i64) -> Option<String> {
        let own = [
            (&self.server_facts, &self.inputs.server),
            (&self.client_facts, &self.inputs.client),
        ];
        own.iter().find_map(|(facts, pair)| {
            let facts = facts.as_ref()?;
            let problem = match () {
                () if now_s > facts.not_after_s => "has expired",
                () if now_s < facts.not_before_s => "is not valid yet",
                () => return None,
            };
            Some(format!(
                "The certificate {} {problem}",
                pair.certificate.display()
            ))
        })
    }

    /// The fields of INFO's section tls: serial number and remaining seconds of each certificate.
    pub fn info(&self, now_s: i64) -> [(&'static str, String); 6] {
        info_of(
            [&self.server_facts, &self.client_facts, &self.ca_facts].map(Option::as_ref),
            now_s,
        )
    }

    /// Begins a TLS session with a client that has connected.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Session> {
        let session = UnbufferedServerConnection::new(self.server.clone());
        Ok(Session::server(socket, session.map_err(io::Error::other)?))
    }

    /// Begins a TLS session with the server at `address`, to which `socket` is connected.
    pub fn connect(&self, socket: TcpStream, address: SocketAddr) -> io::Result<Session> {
        let name = ServerName::from(address.ip());
        let session = UnbufferedClientConnection::new(self.client.clone(), name);
        Ok(Session::client(socket, session.map_err(io::Error::other)?))
    }
}

/// Lets the provider collect the entropy of its random numbers now. It takes 0.1 to 0.3 seconds,
/// once for each process and thread, for which the first handshake would stop the loop.
fn seed(provider: &CryptoProvider) -> Result<(), String> {
    let filled = provider.secure_random.fill(&mut [0; 16]);
    filled.map_err(|_| "Failed to get random bytes".into())
}

/// The fields of INFO's section tls if TLS is off: there is no certificate.
pub fn info_without() -> [(&'static str, String); 6] {
    info_of([None; 3], 0)
}

fn info_of(facts: [Option<&Facts>; 3], now_s: i64) -> [(&'static str, String); 6] {
    let serial = |i: usize| facts[i].map_or("none".to_string(), |facts| facts.serial.clone());
    let left = |i: usize| {
        facts[i]
            .map_or(0, |facts| facts.not_after_s - now_s)
            .to_string()
    };
    [
        ("tls_server_cert_serial", serial(0)),
        ("tls_server_cert_expires_in_seconds", left(0)),
        ("tls_client_cert_serial", serial(1)),
        ("tls_client_cert_expires_in_seconds", left(1)),
        ("tls_ca_cert_serial", serial(2)),
        ("tls_ca_cert_expires_in_seconds", left(2)),
    ]
}

/// The names in a client's certificate that `tls-auth-clients-user` allows as the name of the
/// client's ACL user.
pub fn user_names(session: &Session, field: TlsAuthClientsUser) -> Vec<Vec<u8>> {
    let Some(facts) = session
        .peer_certificate()
        .and_then(|der| certificate::read(der))
    else {
        return Vec::new();
    };
    match field {
        TlsAuthClientsUser::Off => Vec::new(),
        TlsAuthClientsUser::CommonName => facts.common_name.into_iter().collect(),
        TlsAuthClientsUser::Uri => facts.uris,
    }
}

/// `tls-dh-params-file`: the file must exist, as in Redis and Valkey, but has no effect.
fn check_dh_params(inputs: &Inputs, files: &mut Files) -> Result<(), String> {
    let path = &inputs.dh_params;
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let failed = |e| format!("Failed to load {}: {e}", path.display());
    files.read(path).map_err(failed)?;
    log::warn!("tls-dh-params-file has no effect: no cipher of this server uses such parameters");
    Ok(())
}

fn key_pair(
    pair: &Pair,
    provider: &CryptoProvider,
    files: &mut Files,
) -> Result<Arc<CertifiedKey>, String> {
    let certificate = pair.certificate.display();
    let failed = |e| format!("Failed to load certificate: {certificate}: {e}");
    let text = files.read(&pair.certificate).map_err(failed)?;
    let chain = pem::certificates(&text).map_err(failed)?;
    if certificate::read(&chain[0]).is_none() {
        return Err(failed("malformed certificate".into()));
    }
    let path = pair.key.display();
    let failed = |e| format!("Failed to load private key: {path}: {e}");
    let text = files.read(&pair.key).map_err(failed)?;
    let key = pem::private_key(&text, &pair.passphrase).map_err(failed)?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|e| failed(e.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(failed("key values mismatch".into()))
        }
        // A certificate of X.509 version 1 can't be compared with its key, but can be used.
        _ => Ok(Arc::new(certified)),
    }
}

/// The certificates of `tls-ca-cert-file` and of all files of `tls-ca-cert-dir`.
fn trusted(inputs: &Inputs, files: &mut Files) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut given = Vec::new();
    let failed = |path: &Path, e: String| {
        format!(
            "Failed to configure CA certificate(s) file/directory: {}: {e}",
            path.display()
        )
    };
    let file = &inputs.ca_file;
    if !file.as_os_str().is_empty() {
        let text = files.read(file).map_err(|e| failed(file, e))?;
        given.extend(pem::certificates(&text).map_err(|e| failed(file, e))?);
    }
    let dir = &inputs.ca_dir;
    if !dir.as_os_str().is_empty() {
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(dir) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
            Err(e) => return Err(failed(dir, sys::error_text(&e))),
        };
        paths.sort();
        for path in paths {
            // Files that can't be read are skipped, as `tls-ca-cert-dir` may also have other files
            // than certificates.
            let Ok(text) = files.read(&path) else {
                continue;
            };
            let found = pem::certificates(&text).unwrap_or_default();
            given.extend(
                found
                    .into_iter()
                    .filter(|der| certificate::read(der).is_some()),
            );
        }
        if given.is_empty() {
            log::warn!("tls-ca-cert-dir {} has no certificate", dir.display());
        }
    }
    Ok(given)
}

fn server_config(
    inputs: &Inputs,
    provider: &Arc<CryptoProvider>,
    own: Arc<CertifiedKey>,
    trust: &Arc<Trust>,
) -> Result<ServerConfig, String> {
    let (versions, missing) = names::protocols(&inputs.protocols)?;
    if !missing.is_empty() {
        log::warn!(
            "tls-protocols: {} is insecure and left out",
            missing.join(" ")
        );
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|e| no_common_suite(&e))?;
    let builder = match inputs.auth {
        TlsAuthClients::No => builder.with_no_client_auth(),
        auth => {
            let optional = auth == TlsAuthClients::Optional;
            let clients = Clients::new(trust.clone(), provider.clone(), optional).map_err(|e| {
                format!("Failed to configure CA certificate(s) file/directory: {e}")
            })?;
            builder.with_client_cert_verifier(Arc::new(clients))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.ignore_client_order = inputs.prefer_server_ciphers;
    config.send_tls13_tickets = usize::from(inputs.sessions.is_some());
    config.session_storage = match inputs.sessions {
        Some((size, timeout)) => {
            let timeout = Duration::from_secs(timeout.into());
            Arc::new(Sessions::new(size as usize, timeout))
        }
        None => Arc::new(NoServerSessionStorage {}),
    };
    Ok(config)
}

fn client_config(
    inputs: &Inputs,
    provider: &Arc<CryptoProvider>,
    client: Arc<CertifiedKey>,
    trust: &Arc<Trust>,
) -> Result<ClientConfig, String> {
    let (versions, _) = names::protocols(&inputs.protocols)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|e| no_common_suite(&e))?;
    let servers = Arc::new(Servers(trust.clone()));
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client)));
    config.enable_sni = false;
    Ok(config)
}

fn no_common_suite(e: &rustls::Error) -> String {
    format!("tls-protocols and the ciphers do not fit together: {e}")
}
