//! How rustls is set up.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{Error, InconsistentKeys};

use super::explain::explain;
use super::pem;
use super::session::{Session, Side};
use crate::tls::TlsFailure;

/// Ciphers in the order of this side: AES-128-GCM costs least, and nothing is known against it.
fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite as suite;
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let cipher_suites = vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
    };
    PROVIDER.get_or_init(make).clone()
}

/// What rustls says of a certificate and a key of this side.
fn unfit(error: &Error, certificate: &Path, key: &Path) -> TlsFailure {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => pem::problem(
            certificate,
            "does not belong to the private key; put both of the same pair in place",
        ),
        Error::InvalidCertificate(_) => {
            pem::problem(certificate, "has a certificate that cannot be read; make it again")
        }
        _ => pem::problem(
            key,
            "has a private key of a kind that is not supported; make an ECDSA P-256 or RSA key",
        ),
    }
}

/// Refuses a certificate that nobody will take.
fn check_time(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), TlsFailure> {
    let good_until = chain.first().and_then(|certificate| super::names::good_until(certificate));
    match good_until {
        Some(last) if last < UnixTime::now().as_secs() => {
            Err(pem::problem(path, "is out of date; renew it, or mend this machine's clock"))
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "server")]
mod server {
    use rustls::ServerConfig;
    use rustls::pki_types::CertificateRevocationListDer;
    use rustls::server::danger::ClientCertVerifier;
    use rustls::server::{
        NoServerSessionStorage, UnbufferedServerConnection, VerifierBuilderError, WebPkiClientVerifier,
    };
    use rustls::sign::{CertifiedKey, SingleCertAndKey};

    use super::super::kernel;
    use super::{Arc, Path, Session, Side, TlsFailure, check_time, explain, pem, provider, unfit};
    use crate::tls::{ClientCertificates, TlsFiles};

    /// Makes the server's side of sessions.
    #[derive(Debug)]
    pub(crate) struct Acceptor {
        config: Arc<ServerConfig>,
        identity: Arc<SingleCertAndKey>,
        admission: Admission,
    }

    /// Who may come.
    #[derive(Clone, Debug)]
    struct Admission {
        verifier: Arc<dyn ClientCertVerifier>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    }

    impl Acceptor {
        pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsFailure> {
            Self::make(identity(files)?, admission(files, &[])?)
        }

        /// With what can be used of the files as they are now, and what cannot, which is as it was before: who the server is and who may
        /// come are told apart, so that somebody who was shut out stays out while the server's certificate is out of date.
        pub(crate) fn reload(&self, files: &TlsFiles) -> Result<(Self, Result<(), TlsFailure>), TlsFailure> {
            let (identity, admission) = (identity(files), admission(files, &self.admission.revoked));
            let told = identity.as_ref().map(drop).and(admission.as_ref().map(drop)).map_err(Clone::clone);
            let identity = identity.unwrap_or_else(|_| Arc::clone(&self.identity));
            let admission = admission.unwrap_or_else(|_| self.admission.clone());
            Ok((Self::make(identity, admission)?, told))
        }

        fn make(identity: Arc<SingleCertAndKey>, admission: Admission) -> Result<Self, TlsFailure> {
            let builder = ServerConfig::builder_with_provider(provider());
            let builder = builder.with_safe_default_protocol_versions().map_err(|error| explain(&error))?;
            let builder = builder.with_client_cert_verifier(Arc::clone(&admission.verifier));
            let mut config = builder.with_cert_resolver(identity.clone());
            config.ignore_client_order = true;
            // A session that is taken up again would not look at the client's certificate again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.enable_secret_extraction = kernel::is_there();
            Ok(Self { config: Arc::new(config), identity, admission })
        }

        pub(crate) fn session(&self) -> Result<Session, TlsFailure> {
            let side = UnbufferedServerConnection::new(self.config.clone());
            Ok(Session::new(Side::Server(side.map_err(|error| explain(&error))?), kernel::is_there()))
        }
    }

    /// Who the server is.
    fn identity(files: &TlsFiles) -> Result<Arc<SingleCertAndKey>, TlsFailure> {
        let TlsFiles { certificate, key, .. } = files;
        let chain = pem::certificates(certificate)?;
        check_time(certificate, &chain)?;
        let certified = CertifiedKey::from_der(chain, pem::key(key)?, &provider());
        Ok(Arc::new(certified.map_err(|error| unfit(&error, certificate, key))?.into()))
    }

    /// Who may come; `known` is what was revoked before, and is so while a list is away.
    fn admission(
        files: &TlsFiles,
        known: &[CertificateRevocationListDer<'static>],
    ) -> Result<Admission, TlsFailure> {
        let (path, is_optional) = match &files.clients {
            ClientCertificates::NotAsked => {
                let verifier = WebPkiClientVerifier::no_client_auth();
                return Ok(Admission { verifier, revoked: Vec::new() });
            }
            ClientCertificates::Optional(path) => (path, true),
            ClientCertificates::Required(path) => (path, false),
        };
        let authorities = Arc::new(pem::authorities(path)?);
        let builder = WebPkiClientVerifier::builder_with_provider(authorities, provider());
        let read = files.revoked.as_deref().map_or(Ok(None), pem::revoked)?;
        let revoked = read.unwrap_or_else(|| known.to_vec());
        let builder = builder.with_crls(revoked.clone()).allow_unknown_revocation_status();
        let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
        let verifier = builder.build().map_err(|error| unusable(files, path, &error))?;
        Ok(Admission { verifier, revoked })
    }

    fn unusable(files: &TlsFiles, authorities: &Path, error: &VerifierBuilderError) -> TlsFailure {
        match (error, &files.revoked) {
            (VerifierBuilderError::InvalidCrl(_), Some(list)) => {
                pem::problem(list, "has a list of revoked certificates that cannot be read; make it again")
            }
            _ => pem::problem(
                authorities,
                "has no authority that clients could be verified with; make it again",
            ),
        }
    }
}

#[cfg(feature = "client")]
mod client {
    use rustls::client::{Resumption, UnbufferedClientConnection};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};

    use super::{Arc, Session, Side, TlsFailure, check_time, explain, pem, provider, unfit};
    use crate::tls::{TlsClientConfig, TlsIdentity, Trust};

    /// The client's side of a session with a server that must have the configured name, else `host`. It reads files.
    pub(crate) fn connector(config: &TlsClientConfig, host: &str) -> Result<Session, TlsFailure> {
        let name = config.server_name.as_deref().unwrap_or(host);
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| TlsFailure::Name { name: name.to_owned() })?;
        let authorities = match &config.trust {
            Trust::System => system()?,
            Trust::Authorities(path) => pem::authorities(path)?,
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| explain(&error))?;
        let builder = builder.with_root_certificates(authorities);
        let mut settings = match &config.identity {
            None => builder.with_no_client_auth(),
            Some(TlsIdentity { certificate, key }) => {
                let chain = pem::certificates(certificate)?;
                check_time(certificate, &chain)?;
                let made = builder.with_client_auth_cert(chain, pem::key(key)?);
                made.map_err(|error| unfit(&error, certificate, key))?
            }
        };
        settings.resumption = Resumption::disabled();
        let side = UnbufferedClientConnection::new(Arc::new(settings), server);
        Ok(Session::new(Side::Client(side.map_err(|error| explain(&error))?), false))
    }

    fn system() -> Result<RootCertStore, TlsFailure> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added > 0 {
            return Ok(store);
        }
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let none = || "there are none".to_owned();
        Err(TlsFailure::SystemTrust(errors.first().cloned().unwrap_or_else(none)))
    }
}

#[cfg(feature = "client")]
pub(crate) use client::connector;
#[cfg(feature = "server")]
pub(crate) use server::Acceptor;
