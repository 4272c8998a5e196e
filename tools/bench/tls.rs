//! TLS for the load generator: a session that trusts every server, and many handshakes at a time.
//!
//! Certificates are not checked and sessions are not resumed: the client must cost less than the
//! server, and each handshake must be a full one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// A verifier that accepts the certificate of every server.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The TLS configuration of all sessions.
pub fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// A connected socket, with a TLS session or without.
pub struct Stream {
    socket: TcpStream,
    session: Option<Box<ClientConnection>>,
}

impl Stream {
    /// Connects; with `tls`, the handshake is left to [`Stream::handshake`].
    pub fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let session = match tls {
            Some(config) => {
                let name = ServerName::from(address.ip());
                let session = ClientConnection::new(config.clone(), name);
                Some(Box::new(session.map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Stream {
            socket: TcpStream::from_std(socket),
            session,
        })
    }

    /// Whether the bytes come in TLS records, so that a short read does not mean an empty socket.
    pub fn is_tls(&self) -> bool {
        self.session.is_some()
    }

    /// Continues the TLS handshake; returns whether it has ended.
    pub fn handshake(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.session else {
            return Ok(true);
        };
        loop {
            send_records(session, &mut self.socket)?;
            if session.wants_write() {
                return Ok(false);
            }
            if !session.is_handshaking() {
                return Ok(true);
            }
            match receive_records(session, &mut self.socket) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends the TLS records that wait for room in the socket.
    pub fn push(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => send_records(session, &mut self.socket),
            None => Ok(()),
        }
    }

    /// Ends the TLS session; the socket is closed when it is dropped.
    fn finish(mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
        }
        self.push()
    }
}

fn send_records(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn receive_records(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    if session.read_tls(socket)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    session.process_new_packets().map_err(io::Error::other)?;
    Ok(())
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.socket.read(into);
        };
        loop {
            match session.reader().read(into) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            receive_records(session, &mut self.socket)?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.socket.write(bytes);
        };
        send_records(session, &mut self.socket)?;
        let accepted = session.writer().write(bytes)?;
        send_records(session, &mut self.socket)?;
        match accepted {
            0 => Err(ErrorKind::WouldBlock.into()),
            accepted => Ok(accepted),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        self.socket.register(registry, token, what)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, what)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

/// Makes `count` full handshakes, `at_once` at a time, each of them on a new connection. Returns
/// the duration of all handshakes.
pub fn storm(address: SocketAddr, count: u64, at_once: usize) -> io::Result<Duration> {
    let config = config().map_err(io::Error::other)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let both = Interest::READABLE | Interest::WRITABLE;
    let began = Instant::now();
    let (mut started, mut done) = (0, 0);
    let mut streams: Vec<Option<Stream>> = Vec::new();
    streams.resize_with(at_once, || None);
    while done < count {
        for (i, place) in streams.iter_mut().enumerate() {
            if place.is_none() && started < count {
                let mut stream = Stream::connect(address, Some(&config))?;
                poll.registry().register(&mut stream, Token(i), both)?;
                *place = Some(stream);
                started += 1;
            }
        }
        poll.poll(&mut events, Some(Duration::from_secs(30)))?;
        if events.is_empty() {
            return Err(io::Error::other("no handshake went on for 30 s"));
        }
        for event in &events {
            let place = &mut streams[event.token().0];
            if let Some(stream) = place
                && stream.handshake()?
                && let Some(stream) = place.take()
            {
                stream.finish()?;
                done += 1;
            }
        }
    }
    Ok(began.elapsed())
}
