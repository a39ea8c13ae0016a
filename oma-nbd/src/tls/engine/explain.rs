//! What rustls says, with what to do.

use rustls::{AlertDescription, CertificateError, Error};

use crate::tls::TlsFailure;

/// The connection ended in the middle of the handshake.
pub(super) fn explain_end() -> TlsFailure {
    TlsFailure::Protocol("it ended the handshake before it was done".to_owned())
}

pub(super) fn explain(error: &Error) -> TlsFailure {
    match error {
        Error::InvalidCertificate(problem) => TlsFailure::Certificate(certificate(problem)),
        Error::NoCertificatesPresented => TlsFailure::Certificate(
            "it showed none, and one is demanded; give the client a certificate and its key".to_owned(),
        ),
        Error::AlertReceived(alert) if is_about_certificates(*alert) => {
            TlsFailure::Refused(format!("{alert:?}"))
        }
        Error::DecryptError | Error::EncryptError | Error::PeerSentOversizedRecord => {
            TlsFailure::Broken(error.to_string())
        }
        other => TlsFailure::Protocol(other.to_string()),
    }
}

fn certificate(problem: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName,
        NotValidForNameContext, NotValidYet, NotValidYetContext, Revoked, UnknownIssuer,
    };
    let advice = match problem {
        Expired | ExpiredContext { .. } => "renew it, or mend this machine's clock",
        NotValidYet | NotValidYetContext { .. } => "mend this machine's clock, or wait",
        BadSignature | UnknownIssuer => {
            "it is from an authority that is not trusted here; trust that one, if this is who it should be"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "ask for a name that stands in it (tls-hostname=NAME), if this is the right server"
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "it was made for another use; servers need serverAuth, clients clientAuth"
        }
        Revoked => "whoever shows it was shut out; make another one if that was a mistake",
        _ => "replace it",
    };
    format!("{problem}; {advice}")
}

const fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            // A signature of it was found wrong.
            | AlertDescription::DecryptError
    )
}
