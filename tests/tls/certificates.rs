//! Certificates made by `openssl`, and clients that use them.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::common::{self, multibulk};

/// The configuration that two clients share, so that the second resumes the session of the first.
type Shared = Arc<ClientConfig>;

/// A certificate and its key, as paths.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority with a certificate for a server, in a directory for one test.
pub struct Certificates {
    dir: PathBuf,
    pub authority: Signed,
    pub server: Signed,
    /// The port on which the server listens for TLS.
    pub port: u16,
    port_text: String,
}

fn openssl(args: &[&str]) {
    let mut command = Command::new("openssl");
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.expect("the tests of TLS need the command openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {errors}");
}

impl Certificates {
    pub fn new() -> Certificates {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("aeris-tls-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let file = |name: &str| dir.join(name).to_str().expect("text").to_string();
        let authority = Signed {
            certificate: file("ca.crt"),
            key: file("ca.key"),
        };
        let Signed { certificate, key } = &authority;
        let kind = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let out = [
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            "/CN=authority",
        ];
        openssl(&[&["req", "-x509"][..], &kind, &out].concat());
        let port = common::free_port();
        let mut files = Certificates {
            dir,
            server: authority.clone(),
            authority,
            port,
            port_text: port.to_string(),
        };
        files.server = files.signed("server", "server");
        files
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("text").to_string()
    }

    /// A certificate for the common name `cn` and the URI `urn:cn`.
    pub fn signed(&self, name: &str, cn: &str) -> Signed {
        self.signed_for(name, cn, "365")
    }

    /// A certificate that has expired.
    pub fn expired(&self, name: &str) -> Signed {
        self.signed_for(name, name, "-1")
    }

    fn signed_for(&self, name: &str, cn: &str, days: &str) -> Signed {
        let [request, key, certificate, extensions] =
            ["csr", "key", "crt", "ext"].map(|end| self.file(&format!("{name}.{end}")));
        let text =
            format!("subjectAltName=URI:urn:{cn},DNS:localhost\nbasicConstraints=CA:FALSE\n");
        std::fs::write(&extensions, text).expect("a file");
        let kind = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let subject = format!("/CN={cn}");
        let out = ["-keyout", &key, "-out", &request, "-subj", &subject];
        openssl(&[&["req", "-new"][..], &kind, &out].concat());
        let Signed {
            certificate: ca,
            key: ca_key,
        } = &self.authority;
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ]);
        Signed { certificate, key }
    }

    /// Writes `text` into a file, which is used as both the certificate and the key.
    pub fn text(&self, name: &str, text: &str) -> Signed {
        let path = self.file(name);
        std::fs::write(&path, text).expect("a file");
        Signed {
            certificate: path.clone(),
            key: path,
        }
    }

    /// The certificate, with its key encrypted by a passphrase.
    pub fn with_passphrase(&self, signed: &Signed, passphrase: &str) -> Signed {
        let key = self.file("sealed.key");
        let pass = format!("pass:{passphrase}");
        openssl(&[
            "pkcs8",
            "-topk8",
            "-in",
            &signed.key,
            "-passout",
            &pass,
            "-out",
            &key,
        ]);
        Signed {
            certificate: signed.certificate.clone(),
            key,
        }
    }

    /// The arguments for TLS with which a server is started, and `more` arguments.
    pub fn settings<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec![
            "--tls-port",
            &self.port_text,
            "--tls-cert-file",
            &self.server.certificate,
            "--tls-key-file",
            &self.server.key,
            "--tls-ca-cert-file",
            &self.authority.certificate,
        ];
        all.extend_from_slice(more);
        all
    }

    /// A client that trusts the authority.
    pub fn client(&self) -> Client {
        Client {
            authority: self.authority.certificate.clone(),
            port: self.port,
            versions: vec![&rustls::version::TLS12, &rustls::version::TLS13],
            shown: None,
            damage: None,
        }
    }

    /// A client with this configuration, which other clients share.
    pub fn connect_with(&self, config: Shared) -> Secure {
        Secure::open(("127.0.0.1", self.port), config, None).expect("a connection")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // If the directory can't be removed, it stays in the system's directory for temporary
        // files.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// How a TLS client connects: TLS versions, its own certificate, damage to its messages.
pub struct Client {
    authority: String,
    port: u16,
    versions: Vec<&'static SupportedProtocolVersion>,
    shown: Option<Signed>,
    damage: Option<usize>,
}

impl Client {
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Client {
        self.versions = vec![version];
        self
    }

    /// Lets the client show a certificate of its own.
    pub fn shows(mut self, signed: &Signed) -> Client {
        self.shown = Some(signed.clone());
        self
    }

    /// Lets the client damage a byte of its messages, or end the connection there; `round`
    /// determines the byte.
    pub fn damage(mut self, round: usize) -> Client {
        self.damage = Some(round);
        self
    }

    pub fn config(&self) -> Shared {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.authority).expect("a certificate");
        roots.add(authority).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match &self.shown {
            None => builder.with_no_client_auth(),
            Some(Signed { certificate, key }) => {
                let certificate = CertificateDer::from_pem_file(certificate).expect("a file");
                let key = PrivateKeyDer::from_pem_file(key).expect("a file");
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .expect("a pair")
            }
        })
    }

    /// Connects; the handshake takes place with the first request.
    pub fn open(&self) -> Secure {
        self.open_at("127.0.0.1")
    }

    /// Connects to another address of this machine.
    pub fn open_at(&self, host: &str) -> Secure {
        Secure::open((host, self.port), self.config(), self.damage).expect("a connection")
    }

    /// Connects and finishes the handshake.
    pub fn connect(&self) -> Secure {
        let mut client = self.open();
        assert_eq!(client.line("PING"), "+PONG\r\n");
        client
    }

    /// Whether a client can connect and gets a reply to PING.
    pub fn works(&self) -> bool {
        let address = ("127.0.0.1", self.port);
        let opened = Secure::open(address, self.config(), self.damage);
        opened.is_ok_and(|mut client| {
            client
                .try_line("PING")
                .is_some_and(|reply| reply == "+PONG\r\n")
        })
    }
}

/// A socket that damages one of the bytes that are written to it, or ends at this byte.
struct Damaging {
    stream: TcpStream,
    at: Option<usize>,
    cut: bool,
    written: usize,
}

impl Read for Damaging {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for Damaging {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut bytes = bytes.to_vec();
        if let Some(at) = self.at
            && (self.written..self.written + bytes.len()).contains(&at)
        {
            if self.cut {
                self.stream.write_all(&bytes[..at - self.written])?;
                self.stream.shutdown(std::net::Shutdown::Write)?;
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            bytes[at - self.written] ^= 0x41;
        }
        self.stream.write_all(&bytes)?;
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client's connection over TLS.
pub struct Secure {
    stream: BufReader<StreamOwned<ClientConnection, Damaging>>,
}

impl Secure {
    fn open(
        address: (&str, u16),
        config: Shared,
        damage: Option<usize>,
    ) -> std::io::Result<Secure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let damaging = Damaging {
            stream,
            at: damage.map(|round| round * 13),
            cut: damage.is_some_and(|round| round % 3 == 0),
            written: 0,
        };
        let stream = BufReader::new(StreamOwned::new(session, damaging));
        Ok(Secure { stream })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("sent");
    }

    /// Sends requests, the end of the session (close_notify) and of the connection at once. Returns
    /// all bytes of the replies.
    pub fn last_requests(mut self, bytes: &[u8]) -> Vec<u8> {
        let StreamOwned { conn, sock } = self.stream.get_mut();
        conn.set_buffer_limit(None);
        conn.writer().write_all(bytes).expect("buffered");
        conn.send_close_notify();
        let mut records = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut records).expect("buffered");
        }
        sock.write_all(&records).expect("sent");
        sock.stream
            .shutdown(std::net::Shutdown::Write)
            .expect("an open socket");
        let mut replies = Vec::new();
        self.stream.read_to_end(&mut replies).expect("replies");
        replies
    }

    pub fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        common::read_reply(&mut self.stream, &mut reply).expect("a reply");
        reply
    }

    pub fn cmd<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> Vec<u8> {
        self.send(&multibulk(argv));
        self.reply()
    }

    pub fn line(&mut self, line: &str) -> String {
        let argv: Vec<&str> = line.split(' ').collect();
        String::from_utf8_lossy(&self.cmd(&argv)).into_owned()
    }

    /// Sends a command of words, and returns the reply; `None` if the connection has ended.
    pub fn try_line(&mut self, line: &str) -> Option<String> {
        let argv: Vec<&str> = line.split(' ').collect();
        self.stream.get_mut().write_all(&multibulk(&argv)).ok()?;
        let mut reply = Vec::new();
        common::read_reply(&mut self.stream, &mut reply).ok()?;
        Some(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Whether the handshake began a new TLS session or resumed one.
    pub fn kind(&self) -> HandshakeKind {
        self.stream
            .get_ref()
            .conn
            .handshake_kind()
            .expect("after the handshake")
    }

    /// The serial number of the server's certificate, as INFO shows it.
    pub fn peer_serial(&self) -> String {
        let der = self
            .stream
            .get_ref()
            .conn
            .peer_certificates()
            .expect("a certificate")[0]
            .to_vec();
        let path = std::env::temp_dir().join(format!(
            "aeris-tls-{}-{:?}.der",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, der).expect("a file");
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-inform", "DER", "-noout", "-serial", "-in"])
            .arg(&path);
        let output = command.output().expect("openssl");
        std::fs::remove_file(&path).expect("the file");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().trim_start_matches("serial=").to_string()
    }
}
