//! NBD URIs: where a server listens, which export is meant, and whether TLS is demanded.

mod parameters;

use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oma_core::{Error, ErrorKind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use self::parameters::Parameters;

/// The port of NBD servers (IANA).
pub const DEFAULT_PORT: u16 = 10809;

/// No export name of the protocol is longer, in bytes.
const MAX_EXPORT: usize = 4096;
/// Room for a path in a unix socket address, less its closing zero.
const MAX_SOCKET: usize = 107;
/// What stands for itself in a path or a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or address, IPv6 without brackets, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`, as the document "NBD URI" of the protocol has them.
///
/// `nbds://` and `nbds+unix://` demand TLS. Of libnbd's parameters they take `tls-certificates=DIRECTORY` and
/// `tls-hostname=NAME`; the server is always verified (`tls-verify-peer`), and keys that are shared beforehand (`tls-psk…`)
/// are refused.
///
/// The export's name may be empty: the server's default export. `Display` writes the shortest form, which parses to the
/// same value again. A URI holds no secret: user information and unknown parameters are refused.
///
/// ```
/// use oma_nbd::Uri;
///
/// let uri: Uri = "nbd+unix:///disk%201?socket=/run/vm.sock".parse()?;
/// assert_eq!(uri.export(), "disk 1");
/// assert_eq!(Uri::parse("nbd://[::1]:10809/a")?.to_string(), "nbd://[::1]/a");
/// # Ok::<(), oma_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    address: Address,
    export: String,
    tls: Option<UriTls>,
}

/// What a URI says of TLS; what it leaves out is [`ClientConfig::tls`](crate::ClientConfig::tls)'s to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UriTls {
    /// A directory as [`TlsClientConfig::in_directory`](crate::TlsClientConfig::in_directory) has it.
    pub certificates: Option<PathBuf>,
    /// The name that must stand in the server's certificate.
    pub hostname: Option<String>,
}

/// Why a text is not a URI that can be used.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "the parameter {0:?} means TLS, which this URI does not demand; write nbds://HOST/EXPORT or nbds+unix:///…"
    )]
    TlsInPlain(String),
    #[error(
        "keys that are shared beforehand are not supported; use certificates: tls-certificates=DIRECTORY"
    )]
    SharedKey,
    #[error(
        "a server that is not verified may be anybody; leave tls-verify-peer out and name its authority with tls-certificates=DIRECTORY"
    )]
    Unverified,
    #[error("the directory of certificates is empty or has a zero byte; write tls-certificates=DIRECTORY")]
    Certificates,
    #[error("the name of the server is neither a host name nor an address; write tls-hostname=NAME")]
    Hostname,
    #[error("the parameter {0:?} stands there twice; write it once")]
    Twice(&'static str),
    #[error(
        "only nbd:// and nbd+unix://, and nbds:// and nbds+unix:// with TLS, are supported; write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH"
    )]
    Transport,
    #[error("it is not an NBD URI; write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")]
    Scheme,
    #[error("NBD knows no users; leave out everything up to the @")]
    User,
    #[error("the host is missing; write nbd://localhost/EXPORT for this machine")]
    NoHost,
    #[error(
        "the host is neither a name nor an address; write nbd://HOST/EXPORT, with an IPv6 address in [brackets]"
    )]
    Host,
    #[error("the port is not a number from 1 to 65535; write nbd://HOST:10809/EXPORT or leave it out")]
    Port,
    #[error("a unix socket has no host; write nbd+unix:///EXPORT?socket=PATH with three slashes")]
    HostAndSocket,
    #[error("the path of the socket is missing; write nbd+unix:///EXPORT?socket=PATH")]
    NoSocket,
    #[error(
        "the path of the socket is empty, has a zero byte or more than {MAX_SOCKET} bytes; a shorter link to it may help"
    )]
    Socket,
    #[error("a TCP address takes no socket; write nbd+unix:///EXPORT?socket=PATH")]
    SocketOverTcp,
    #[error(
        "the parameter {0:?} is not known; socket=PATH of nbd+unix:// is, tls-certificates=DIRECTORY and tls-hostname=NAME of nbds:// are"
    )]
    Parameter(String),
    #[error("a fragment (#…) means nothing here; write # in a name as %23")]
    Fragment,
    #[error("a percent sign is not followed by two hexadecimal digits; write % itself as %25")]
    Percent,
    #[error("the export's name has a zero byte, is not UTF-8 or has more than {MAX_EXPORT} bytes")]
    Export,
}

impl Refusal {
    fn about(self, text: &str) -> Error {
        let kind = match self {
            Self::SharedKey | Self::Unverified | Self::Transport => ErrorKind::Unsupported,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, "read the NBD URI", without_secrets(text)).with_source(self)
    }
}

/// A refused text as an error may show it: no user information, no parameters.
fn without_secrets(text: &str) -> String {
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}***{}", &shown[..scheme + 3], &shown[at..]),
        (None, Some(at)) => format!("***{}", &shown[at..]),
        _ => shown.to_owned(),
    }
}

impl Uri {
    /// Reads a URI.
    ///
    /// # Errors
    /// `Unsupported` for other transports, shared keys and servers that are not to be verified; `Invalid` for everything
    /// else that is not a URI of NBD. Each says what to write instead.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|refusal| refusal.about(text))
    }

    /// An export of a TCP server.
    ///
    /// # Errors
    /// `Invalid` when the host is neither a name nor an address, the port is 0 or the name is none.
    pub fn tcp(host: &str, port: u16, export: &str) -> Result<Self> {
        let checked = || {
            let address = Address::Tcp { host: check_host(host)?, port: check_port(port)? };
            Ok(Self { address, export: check_export(export.to_owned())?, tls: None })
        };
        checked().map_err(|refusal: Refusal| refusal.about(host))
    }

    /// An export of a server on a unix socket.
    ///
    /// # Errors
    /// `Invalid` when the path is empty or longer than a socket's can be, or the name is none.
    pub fn unix(socket: impl AsRef<Path>, export: &str) -> Result<Self> {
        let socket = socket.as_ref();
        let checked = || {
            let address = Address::Unix(check_socket(socket.to_owned())?);
            Ok(Self { address, export: check_export(export.to_owned())?, tls: None })
        };
        checked().map_err(|refusal: Refusal| refusal.about(&socket.to_string_lossy()))
    }

    /// Where the server listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Another export of the same server.
    ///
    /// # Errors
    /// `Invalid` when the name is none.
    pub fn with_export(&self, export: &str) -> Result<Self> {
        let export = check_export(export.to_owned()).map_err(|refusal| refusal.about(export))?;
        Ok(Self { export, ..self.clone() })
    }

    /// The export's name, empty for the default export.
    #[must_use]
    pub fn export(&self) -> &str {
        &self.export
    }

    /// What is said of TLS; `None` when it is not demanded.
    #[must_use]
    pub const fn tls(&self) -> Option<&UriTls> {
        self.tls.as_ref()
    }

    /// The same export, with TLS.
    ///
    /// # Errors
    /// `Invalid` when the directory is no path or the name is neither a host name nor an address.
    pub fn with_tls(self, tls: UriTls) -> Result<Self> {
        let checked = || {
            let UriTls { certificates, hostname } = tls;
            let certificates = certificates.map(check_certificates).transpose()?;
            Ok(UriTls { certificates, hostname: hostname.as_deref().map(check_hostname).transpose()? })
        };
        let tls = checked().map_err(|refusal: Refusal| refusal.about(&self.to_string()))?;
        Ok(Self { tls: Some(tls), ..self })
    }
}

fn parse(text: &str) -> Result<Uri, Refusal> {
    let (scheme, rest) = text.split_once("://").ok_or(Refusal::Scheme)?;
    if rest.contains('#') {
        return Err(Refusal::Fragment);
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Parameters { socket, tls, says_tls } = Parameters::read(query)?;
    let scheme = scheme.to_ascii_lowercase();
    let (transport, secure) = match scheme.strip_prefix("nbds") {
        Some(rest) => (rest, true),
        None => (scheme.strip_prefix("nbd").ok_or(Refusal::Scheme)?, false),
    };
    let address = match transport {
        "" if socket.is_some() => return Err(Refusal::SocketOverTcp),
        "" => tcp_address(authority)?,
        "+unix" if authority.is_empty() => Address::Unix(socket.ok_or(Refusal::NoSocket)?),
        "+unix" => return Err(Refusal::HostAndSocket),
        _ => return Err(Refusal::Transport),
    };
    if let (false, Some(parameter)) = (secure, says_tls) {
        return Err(Refusal::TlsInPlain(parameter));
    }
    let export = String::from_utf8(decode(path)?).map_err(|_| Refusal::Export)?;
    Ok(Uri { address, export: check_export(export)?, tls: secure.then_some(tls) })
}

fn tcp_address(authority: &str) -> Result<Address, Refusal> {
    if authority.contains('@') {
        return Err(Refusal::User);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(Refusal::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| Refusal::Host)?;
            let port = match port.strip_prefix(':') {
                None if port.is_empty() => None,
                None => return Err(Refusal::Host),
                Some(port) => Some(port),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| Refusal::Port)?
        }
        Some(_) => return Err(Refusal::Port),
    };
    Ok(Address::Tcp { host: check_host(&host)?, port: check_port(port)? })
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    let well_formed = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(well_formed) {
        return Err(Refusal::Percent);
    }
    Ok(percent_decode_str(text).collect())
}

fn check_host(host: &str) -> Result<String, Refusal> {
    if host.is_empty() {
        return Err(Refusal::NoHost);
    }
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if (is_name && !host.starts_with('-') && host.len() <= 253) || host.parse::<Ipv6Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    Err(Refusal::Host)
}

const fn check_port(port: u16) -> Result<u16, Refusal> {
    if port == 0 { Err(Refusal::Port) } else { Ok(port) }
}

fn check_socket(path: PathBuf) -> Result<PathBuf, Refusal> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_SOCKET || bytes.contains(&0) {
        return Err(Refusal::Socket);
    }
    Ok(path)
}

fn check_certificates(directory: PathBuf) -> Result<PathBuf, Refusal> {
    let bytes = directory.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) { Err(Refusal::Certificates) } else { Ok(directory) }
}

fn check_hostname(name: &str) -> Result<String, Refusal> {
    check_host(name).map_err(|_| Refusal::Hostname)
}

fn check_export(name: String) -> Result<String, Refusal> {
    if name.len() > MAX_EXPORT || name.contains('\0') { Err(Refusal::Export) } else { Ok(name) }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = percent_encode(self.export.as_bytes(), ENCODED);
        let secure = if self.tls.is_some() { "s" } else { "" };
        let mut parameters = Vec::new();
        match &self.address {
            Address::Unix(path) => {
                write!(f, "nbd{secure}+unix:///{export}")?;
                parameters.push(("socket", path.as_os_str().as_bytes()));
            }
            Address::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd{secure}://{open}{host}{close}")?;
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{export}")?;
            }
        }
        if let Some(UriTls { certificates, hostname }) = &self.tls {
            let certificates = certificates.as_ref().map(|path| path.as_os_str().as_bytes());
            parameters.extend(certificates.map(|path| ("tls-certificates", path)));
            parameters.extend(hostname.as_ref().map(|name| ("tls-hostname", name.as_bytes())));
        }
        for (number, (name, value)) in parameters.into_iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={}", percent_encode(value, ENCODED))?;
        }
        Ok(())
    }
}

impl FromStr for Uri {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
