//! The trust in certificates of peers, and the cache of TLS sessions that clients can resume.
//!
//! A certificate is trusted if a chain leads from it to one of the given authorities, or if the
//! certificate itself is one of those in `tls-ca-cert-file` or `tls-ca-cert-dir`: a self-signed
//! certificate is often its own authority. The name of a server is not compared, as in Redis:
//! servers are configured by address, and their certificates often have other names.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, StoresServerSessions, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::certificate;

/// The trusted certificates, both as roots of chains and as whole certificates to compare with.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    exact: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// Builds the trust in the given certificates; `Err` is the reason if one of them can't be a
    /// root.
    pub fn new(
        given: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &given {
            roots.add(certificate.clone()).map_err(|e| e.to_string())?;
        }
        Ok(Trust {
            roots: Arc::new(roots),
            exact: given,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Whether the peer's certificate is itself one of the trusted certificates. Fails if a trusted
    /// certificate has expired or is not valid yet.
    fn is_given(&self, peer: &CertificateDer, now: UnixTime) -> Result<bool, Error> {
        if !self.exact.iter().any(|given| given == peer) {
            return Ok(false);
        }
        let facts = certificate::read(peer).ok_or(CertificateError::BadEncoding)?;
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now_s > facts.not_after_s {
            return Err(CertificateError::Expired.into());
        }
        if now_s < facts.not_before_s {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(true)
    }
}

/// The check, for rustls, of the certificates of servers that this server connects to.
#[derive(Debug)]
pub struct Servers(pub Arc<Trust>);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        peer: &CertificateDer,
        intermediates: &[CertificateDer],
        _name: &ServerName,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Servers(trust) = self;
        if !trust.is_given(peer, now)? {
            let parsed = ParsedCertificate::try_from(peer)?;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trust.roots,
                intermediates,
                now,
                trust.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, peer, signed, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, peer, signed, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}

/// The check, for rustls, of the certificates of clients.
#[derive(Debug)]
pub struct Clients {
    trust: Arc<Trust>,
    chains: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// A check of clients' certificates; if `optional`, a client without certificate is accepted,
    /// too.
    pub fn new(
        trust: Arc<Trust>,
        provider: Arc<CryptoProvider>,
        optional: bool,
    ) -> Result<Clients, String> {
        let roots = trust.roots.clone();
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if optional {
            builder = builder.allow_unauthenticated();
        }
        let chains = builder.build().map_err(|e| e.to_string())?;
        Ok(Clients { trust, chains })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        peer: &CertificateDer,
        intermediates: &[CertificateDer],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.trust.is_given(peer, now)? {
            true => Ok(ClientCertVerified::assertion()),
            false => self.chains.verify_client_cert(peer, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, peer, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, peer, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// The maximum number of cached TLS sessions if `tls-session-cache-size` is 0, and for larger
/// values.
const SESSIONS_MAX: usize = 1 << 20;

/// The cache of TLS sessions that clients can resume: at most `size` sessions, each for `timeout`.
#[derive(Debug)]
pub struct Sessions {
    size: usize,
    timeout: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default, Debug)]
struct Kept {
    by_id: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// The ids of the sessions, the oldest first. Ids of sessions that were removed from `by_id`
    /// are still in this list.
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl Sessions {
    /// An empty cache; a `size` of 0 means [`SESSIONS_MAX`].
    pub fn new(size: usize, timeout: Duration) -> Sessions {
        Sessions {
            size: if size == 0 {
                SESSIONS_MAX
            } else {
                size.min(SESSIONS_MAX)
            },
            timeout,
            kept: Mutex::default(),
        }
    }
}

impl Kept {
    /// Removes the oldest sessions, down to `size` sessions, and all sessions that have timed out.
    fn shrink(&mut self, size: usize, timeout: Duration) {
        while let Some((since, _)) = self.order.front()
            && (self.order.len() > size || since.elapsed() > timeout)
        {
            let Some((since, id)) = self.order.pop_front() else {
                return;
            };
            if self.by_id.get(&id).is_some_and(|kept| kept.0 == since) {
                self.by_id.remove(&id);
            }
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let Ok(mut kept) = self.kept.lock() else {
            return false;
        };
        let now = Instant::now();
        kept.order.push_back((now, id.clone()));
        kept.by_id.insert(id, (now, session));
        kept.shrink(self.size, self.timeout);
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock().ok()?;
        let (since, session) = kept.by_id.get(id)?;
        (since.elapsed() <= self.timeout).then(|| session.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock().ok()?;
        let (since, session) = kept.by_id.remove(id)?;
        (since.elapsed() <= self.timeout).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_and_end() {
        let sessions = Sessions::new(2, Duration::from_secs(3600));
        for id in 1..=3u8 {
            assert!(sessions.put(vec![id], vec![id]));
        }
        assert_eq!(sessions.get(&[1]), None, "the oldest made room");
        assert_eq!(sessions.take(&[2]), Some(vec![2]));
        assert_eq!(sessions.take(&[2]), None);
        assert_eq!(sessions.get(&[3]), Some(vec![3]));
        let brief = Sessions::new(0, Duration::ZERO);
        brief.put(vec![1], vec![1]);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(brief.get(&[1]), None);
    }
}
