use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{Refusal, UriTls, check_certificates, check_hostname, check_socket, decode};

/// What stands behind the question mark.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) socket: Option<PathBuf>,
    pub(super) tls: UriTls,
    /// The first parameter that has a meaning with TLS only.
    pub(super) says_tls: Option<String>,
}

impl Parameters {
    pub(super) fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.starts_with("tls-") {
                found.says_tls.get_or_insert_with(|| name.to_owned());
            }
            found.note(name, value)?;
        }
        Ok(found)
    }

    fn note(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let path = || Ok(PathBuf::from(OsString::from_vec(decode(value)?)));
        match name {
            "socket" => once(&mut self.socket, "socket", check_socket(path()?)?),
            "tls-certificates" => {
                once(&mut self.tls.certificates, "tls-certificates", check_certificates(path()?)?)
            }
            "tls-hostname" => {
                let host = String::from_utf8(decode(value)?).map_err(|_| Refusal::Hostname)?;
                once(&mut self.tls.hostname, "tls-hostname", check_hostname(&host)?)
            }
            // As libnbd reads it; it is so anyway.
            "tls-verify-peer" => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => Ok(()),
                _ => Err(Refusal::Unverified),
            },
            "tls-psk" | "tls-psk-file" | "tls-username" => Err(Refusal::SharedKey),
            _ => Err(Refusal::Parameter(name.to_owned())),
        }
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), Refusal> {
    if place.replace(value).is_some() { Err(Refusal::Twice(name)) } else { Ok(()) }
}
