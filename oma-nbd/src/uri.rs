//! NBD URIs: where a server listens and which export is meant.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oma_core::{Error, ErrorKind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

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
}

/// Why a text is not a URI that can be used.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("TLS is not supported yet; use {0} over a network that you trust, or a tunnel")]
    Tls(&'static str),
    #[error(
        "only nbd:// and nbd+unix:// are supported; write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH"
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
    #[error("the path of the socket stands there twice; name it once")]
    TwoSockets,
    #[error(
        "the path of the socket is empty, has a zero byte or more than {MAX_SOCKET} bytes; a shorter link to it may help"
    )]
    Socket,
    #[error("a TCP address takes no socket; write nbd+unix:///EXPORT?socket=PATH")]
    SocketOverTcp,
    #[error("the parameter {0:?} is not known; only socket=PATH of nbd+unix:// is")]
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
            Self::Tls(_) | Self::Transport => ErrorKind::Unsupported,
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
    /// `Unsupported` for `nbds://` and other transports; `Invalid` for everything else that is not a URI of NBD. Each says
    /// what to write instead.
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
            Ok(Self { address, export: check_export(export.to_owned())? })
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
            Ok(Self { address, export: check_export(export.to_owned())? })
        };
        checked().map_err(|refusal: Refusal| refusal.about(&socket.to_string_lossy()))
    }

    /// Where the server listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The export's name, empty for the default export.
    #[must_use]
    pub fn export(&self) -> &str {
        &self.export
    }
}

fn parse(text: &str) -> Result<Uri, Refusal> {
    let (scheme, rest) = text.split_once("://").ok_or(Refusal::Scheme)?;
    if rest.contains('#') {
        return Err(Refusal::Fragment);
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let socket = socket_of(query)?;
    let address = match scheme.to_ascii_lowercase().as_str() {
        "nbd" => {
            if socket.is_some() {
                return Err(Refusal::SocketOverTcp);
            }
            tcp_address(authority)?
        }
        "nbd+unix" if authority.is_empty() => Address::Unix(socket.ok_or(Refusal::NoSocket)?),
        "nbd+unix" => return Err(Refusal::HostAndSocket),
        "nbds" => return Err(Refusal::Tls("nbd://")),
        "nbds+unix" => return Err(Refusal::Tls("nbd+unix://")),
        other if other.starts_with("nbd") => return Err(Refusal::Transport),
        _ => return Err(Refusal::Scheme),
    };
    let export = String::from_utf8(decode(path)?).map_err(|_| Refusal::Export)?;
    Ok(Uri { address, export: check_export(export)? })
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

fn socket_of(query: Option<&str>) -> Result<Option<PathBuf>, Refusal> {
    let mut socket = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "socket" {
            return Err(Refusal::Parameter(name.to_owned()));
        }
        let path = check_socket(PathBuf::from(OsString::from_vec(decode(value)?)))?;
        if socket.replace(path).is_some() {
            return Err(Refusal::TwoSockets);
        }
    }
    Ok(socket)
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

fn check_export(name: String) -> Result<String, Refusal> {
    if name.len() > MAX_EXPORT || name.contains('\0') { Err(Refusal::Export) } else { Ok(name) }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = percent_encode(self.export.as_bytes(), ENCODED);
        match &self.address {
            Address::Unix(path) => {
                write!(
                    f,
                    "nbd+unix:///{export}?socket={}",
                    percent_encode(path.as_os_str().as_bytes(), ENCODED)
                )
            }
            Address::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd://{open}{host}{close}")?;
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{export}")
            }
        }
    }
}

impl FromStr for Uri {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_and_names_are_read() {
        let tcp = |host: &str, port, export: &str| Uri::tcp(host, port, export).unwrap();
        let unix = |path: &str, export: &str| Uri::unix(path, export).unwrap();
        for (text, expected) in [
            ("nbd://example.com", tcp("example.com", 10809, "")),
            ("nbd://Example.com:/", tcp("example.com", 10809, "")),
            ("NBD://10.0.0.1:99/disk-2000", tcp("10.0.0.1", 99, "disk-2000")),
            ("nbd://[::1]/a/b", tcp("::1", 10809, "a/b")),
            ("nbd://[0:0::2]:7/%C3%A9%20?", tcp("::2", 7, "é ")),
            ("nbd://h//a", tcp("h", 10809, "/a")),
            ("nbd+unix:///?socket=/run/a.sock", unix("/run/a.sock", "")),
            ("nbd+unix://?socket=rel%2Bative", unix("rel+ative", "")),
            ("nbd+unix:///x%3Fy?socket=/a%20b%26", unix("/a b&", "x?y")),
        ] {
            assert_eq!(Uri::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        for (text, kind, hint) in [
            ("nbds://h/a", ErrorKind::Unsupported, "TLS"),
            ("nbds+unix:///a?socket=/s", ErrorKind::Unsupported, "TLS"),
            ("nbd+vsock://2/a", ErrorKind::Unsupported, "nbd+unix://"),
            ("http://h/a", ErrorKind::Invalid, "not an NBD URI"),
            ("/some/file", ErrorKind::Invalid, "not an NBD URI"),
            ("nbd:///a", ErrorKind::Invalid, "localhost"),
            ("nbd://h:0/", ErrorKind::Invalid, "port"),
            ("nbd://h:65536/", ErrorKind::Invalid, "port"),
            ("nbd://h:+1/", ErrorKind::Invalid, "port"),
            ("nbd://::1/", ErrorKind::Invalid, "port"),
            ("nbd://[::1/", ErrorKind::Invalid, "brackets"),
            ("nbd://[::1]x/", ErrorKind::Invalid, "brackets"),
            ("nbd://-oProxyCommand=x/", ErrorKind::Invalid, "host"),
            ("nbd://h/a?socket=/s", ErrorKind::Invalid, "nbd+unix://"),
            ("nbd://h/a?tls-psk=k", ErrorKind::Invalid, "\"tls-psk\" is not known"),
            ("nbd+unix:///a", ErrorKind::Invalid, "socket=PATH"),
            ("nbd+unix:///a?socket=", ErrorKind::Invalid, "empty"),
            ("nbd+unix:///a?socket=/s&socket=/t", ErrorKind::Invalid, "once"),
            ("nbd+unix://host/a?socket=/s", ErrorKind::Invalid, "three slashes"),
            ("nbd://h/%zz", ErrorKind::Invalid, "%25"),
            ("nbd://h/%ff", ErrorKind::Invalid, "UTF-8"),
            ("nbd://h/%00", ErrorKind::Invalid, "zero byte"),
            ("nbd://h/a#b", ErrorKind::Invalid, "%23"),
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.chain().contains(hint), "{text}: {}", error.chain());
        }
        assert!(Uri::unix("/".repeat(108), "").is_err());
        assert!(Uri::tcp("h", 1, &"x".repeat(4097)).is_err());
    }

    #[test]
    fn l29_refused_secrets_are_not_repeated() {
        for text in ["nbd://me:hunter2@h/a", "nbd://me:hunt/hunter2@h/", "nbd://h/a?password=hunter2"] {
            let error = Uri::parse(text).unwrap_err();
            assert!(!error.chain().contains("hunter2"), "{}", error.chain());
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(
            host in prop_oneof!["[a-z0-9][a-z0-9.-]{0,20}", any::<Ipv6Addr>().prop_map(|a| a.to_string())],
            port in 1u16.., export in "[^\0]{0,60}", socket in prop::collection::vec(1u8.., 1..100), tcp: bool
        ) {
            let uri = if tcp {
                Uri::tcp(&host, port, &export).unwrap()
            } else {
                Uri::unix(OsString::from_vec(socket), &export).unwrap()
            };
            let text = uri.to_string();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(Uri::parse(&text).unwrap(), uri);
        }

        #[test]
        fn no_text_panics(text in "(nbd(\\+unix)?://)?.{0,60}") {
            let _ = Uri::parse(&text);
        }
    }
}
