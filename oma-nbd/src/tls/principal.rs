use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use oma_core::{Error, ErrorKind, Result};

/// No name of a client is longer, in bytes.
const LONGEST: usize = 1024;

/// One name of a client, with what kind of name it is: `dns:agent.example`, `ip:10.0.0.1`, `email:ops@example.com`,
/// `uri:spiffe://example/agent` and `cn:agent` come from its verified certificate, `uid:1000` from its unix socket.
///
/// ```
/// use oma_nbd::ClientName;
///
/// assert_eq!(ClientName::parse("dns:Agent.Example")?.as_str(), "dns:agent.example");
/// assert_eq!(ClientName::parse("ip:2001:DB8::0:1")?.as_str(), "ip:2001:db8::1");
/// assert!(ClientName::parse("agent").is_err());
/// # Ok::<(), oma_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

impl ClientName {
    /// Reads a name. Host names lose their capitals, addresses get their shortest form.
    ///
    /// # Errors
    /// `Invalid` for a name without a kind, with an unknown one, empty, longer than 1024 bytes or with control characters.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |reason: &'static str| {
            Err(Error::new(ErrorKind::Invalid, "read the client's name", text.escape_debug()).because(reason))
        };
        let Some((kind, name)) = text.split_once(':') else {
            return refused(
                "it has no kind; write dns:NAME, ip:ADDRESS, email:ADDRESS, uri:URI, cn:NAME or uid:NUMBER",
            );
        };
        if name.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            return refused("it is empty, too long, or has control characters");
        }
        match kind {
            "dns" => Ok(Self(text.to_ascii_lowercase())),
            "ip" => match name.parse::<IpAddr>() {
                Ok(address) => Ok(Self::ip(address)),
                Err(_) => refused("it is no address; write ip:10.0.0.1 or ip:2001:db8::1"),
            },
            "uid" => match name.parse() {
                Ok(uid) => Ok(Self::uid(uid)),
                Err(_) => refused("it is no user id; write uid:1000"),
            },
            "email" | "uri" | "cn" => Ok(Self(text.to_owned())),
            _ => refused("its kind is not known; dns, ip, email, uri, cn and uid are"),
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a user of this machine, not a name in a certificate.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.0.starts_with("uid:")
    }

    pub(crate) fn uid(uid: u32) -> Self {
        Self(format!("uid:{uid}"))
    }

    pub(crate) fn ip(address: IpAddr) -> Self {
        Self(format!("ip:{}", address.to_canonical()))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClientName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Who a client is: the names in its certificate, once that was verified, and its user on a unix socket. Without either
/// it is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal(BTreeSet<ClientName>);

impl Principal {
    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &ClientName> {
        self.0.iter()
    }
}

impl FromIterator<ClientName> for Principal {
    fn from_iter<I: IntoIterator<Item = ClientName>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Extend<ClientName> for Principal {
    fn extend<I: IntoIterator<Item = ClientName>>(&mut self, names: I) {
        self.0.extend(names);
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.names();
        let Some(first) = names.next() else { return f.write_str("nobody") };
        write!(f, "{first}")?;
        names.try_for_each(|name| write!(f, " {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_kind_and_with_a_wrong_one_are_refused_with_what_to_write() {
        for (text, hint) in [
            ("agent", "dns:NAME"),
            ("host:agent", "is not known"),
            ("dns:", "empty"),
            ("cn:a\nb", "control"),
            ("ip:10.0.0.1/8", "no address"),
            ("ip:10.0.0", "no address"),
            ("uid:-1", "no user id"),
            ("uid:root", "no user id"),
        ] {
            let error = ClientName::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(hint), "{text:?}: {}", error.chain());
        }
        assert!(ClientName::parse(&format!("cn:{}", "x".repeat(LONGEST))).is_err());
    }

    #[test]
    fn the_same_client_has_the_same_name_however_it_is_written() {
        for (one, other) in
            [("ip:::ffff:10.0.0.1", "ip:10.0.0.1"), ("uid:007", "uid:7"), ("dns:A.b", "dns:a.B")]
        {
            assert_eq!(ClientName::parse(one).unwrap(), ClientName::parse(other).unwrap());
        }
        assert_ne!(ClientName::parse("cn:A").unwrap(), ClientName::parse("cn:a").unwrap());
    }

    #[test]
    fn a_principal_is_shown_by_its_names() {
        assert_eq!(Principal::default().to_string(), "nobody");
        let names = ["uid:5", "dns:a"].map(|name| ClientName::parse(name).unwrap());
        assert_eq!(Principal::from_iter(names).to_string(), "dns:a uid:5");
    }
}
