//! Whom a daemon says it is, for somebody who decides whether to trust it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oma_core::Result;
use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use super::config::RemoteConfig;
use super::error::Failure;
use super::http;

/// The port of an address that names none.
const HTTPS: u16 = 443;

/// A daemon that is reached over HTTPS, and nothing of what it says is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    host: String,
    port: u16,
    limit: Duration,
}

impl Stranger {
    /// The one at an address; `None` for a socket of this machine, and for one without TLS, where nobody says who he is.
    ///
    /// # Errors
    /// `Invalid` for what is no address of a daemon.
    pub fn at(config: &RemoteConfig) -> Result<Option<Self>> {
        if config.address.starts_with("unix:") {
            return Ok(None);
        }
        let url = http::url(config).map_err(|failure| failure.at("read", "the address"))?;
        Ok(Self::of(&url, config.connect_limit).filter(|_| url.scheme() == "https"))
    }

    fn of(url: &Url, limit: Duration) -> Option<Self> {
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: url.port().unwrap_or(HTTPS), limit })
    }

    /// `HOST:PORT`, the same for all addresses that lead there.
    #[must_use]
    pub fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The authority that it shows, as DER: the last certificate of its chain, by which alone all of the chain is good for this host, now.
    /// Nothing is told to the daemon but the beginning of TLS.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers there in time, or not in TLS; `PermissionDenied` when not even that authority makes the
    /// certificate good: it is out of date, or for another host.
    pub async fn authority(&self) -> Result<Vec<u8>> {
        let (asked, limit) = (self.clone(), self.limit);
        let shaken = tokio::task::spawn_blocking(move || asked.shake());
        let shown = match tokio::time::timeout(limit * 2, shaken).await {
            Err(_) => Err(Failure::Late(limit * 2)),
            Ok(Err(lost)) => Err(Failure::Unreachable(io::Error::other(lost))),
            Ok(Ok(shown)) => shown,
        };
        shown.map_err(|failure| failure.at("look who answers at", self.place()))
    }

    fn shake(&self) -> std::result::Result<Vec<u8>, Failure> {
        let shown = Arc::new(Shown::new());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&shown.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|_| Failure::Tls)?;
        let verifier = Arc::clone(&shown);
        let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| Failure::Address("its host is neither a name nor an address"))?;
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|_| Failure::Tls)?;
        let mut tcp = self.connect().map_err(Failure::Unreachable)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(Failure::of_handshake)?;
        }
        shown.authority().ok_or(Failure::Tls)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (&*self.host, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.limit) {
                Ok(tcp) => {
                    tcp.set_read_timeout(Some(self.limit))?;
                    tcp.set_write_timeout(Some(self.limit))?;
                    return Ok(tcp);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Takes whatever authority is shown, and checks all else by it.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
    authority: Mutex<Option<Vec<u8>>>,
}

impl Shown {
    fn new() -> Self {
        Self { provider: Arc::new(ring::default_provider()), authority: Mutex::default() }
    }

    fn authority(&self) -> Option<Vec<u8>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let authority = intermediates.last().unwrap_or(end_entity);
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| TlsError::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)?;
        *self.authority.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::ErrorKind;

    #[test]
    fn addresses_that_lead_to_one_place_are_one() {
        let place = |address: &str| {
            let stranger = Stranger::at(&RemoteConfig::new(address)).unwrap();
            stranger.map(|stranger| stranger.place())
        };
        for (address, wanted) in [
            ("https://oma.example:8082", Some("oma.example:8082")),
            ("https://OMA.example:8082/", Some("oma.example:8082")),
            ("https://oma.example", Some("oma.example:443")),
            ("https://[2001:DB8::7]:8082", Some("[2001:db8::7]:8082")),
            ("http://127.0.0.1:8082", None),
            ("unix:/run/omad.sock", None),
        ] {
            assert_eq!(place(address).as_deref(), wanted, "{address}");
        }
        let error = Stranger::at(&RemoteConfig::new("oma.example:8082")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
