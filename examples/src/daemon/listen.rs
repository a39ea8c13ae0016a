//! Where something listens, or that it does not.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The word for nowhere.
const NONE: &str = "none";

/// A port that is listened on unless it is turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// On this address.
    At(SocketAddr),
    /// Nowhere: `none`.
    Nowhere,
}

impl Listen {
    /// On a port of this machine that no other machine reaches.
    #[must_use]
    pub const fn here(port: u16) -> Self {
        Self::At(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port))
    }

    /// The address, if there is one.
    #[must_use]
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Nowhere => None,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            NONE => Ok(Self::Nowhere),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| format!("{text:?} is neither ADDRESS:PORT nor `{NONE}`, e.g. 127.0.0.1:8090")),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Nowhere => f.write_str(NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_address_or_none() {
        assert_eq!("none".parse(), Ok(Listen::Nowhere));
        assert_eq!("127.0.0.1:8090".parse(), Ok(Listen::here(8090)));
        for text in ["[::1]:1", "0.0.0.0:0", "none"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "None", "8090", "localhost:8090", "127.0.0.1"] {
            assert!(text.parse::<Listen>().unwrap_err().contains("nor `none`"), "{text}");
        }
    }
}
