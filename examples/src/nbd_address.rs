use std::path::PathBuf;

use oma_api::server::{ExportAddress, Origin};
use oma_core::{ExportName, Result};
use oma_nbd::{Uri, UriTls};

/// Where an NBD server of this process is reached, as clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdAddress {
    /// By TCP.
    Tcp {
        /// The name or address of this machine, as clients see it.
        host: String,
        /// The port.
        port: u16,
        /// Whether clients must speak TLS.
        tls: bool,
    },
    /// By a unix socket, for clients on this machine.
    Unix(PathBuf),
}

impl ExportAddress for NbdAddress {
    fn uri(&self, name: &ExportName, _: Origin) -> Result<String> {
        let uri = match self {
            Self::Unix(socket) => Uri::unix(socket, name.as_str())?,
            Self::Tcp { host, port, tls: false } => Uri::tcp(host, *port, name.as_str())?,
            Self::Tcp { host, port, tls: true } => {
                Uri::tcp(host, *port, name.as_str())?.with_tls(UriTls::default())?
            }
        };
        Ok(uri.to_string())
    }
}

/// Where an NBD server of this process is reached that listens on a socket and on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdAddresses {
    /// For clients on this machine, which came by a socket too.
    pub near: NbdAddress,
    /// For all others.
    pub far: NbdAddress,
}

impl ExportAddress for NbdAddresses {
    fn uri(&self, name: &ExportName, asker: Origin) -> Result<String> {
        match asker {
            Origin::Socket => self.near.uri(name, asker),
            Origin::Network => self.far.uri(name, asker),
        }
    }
}

#[cfg(test)]
mod tests {
    use oma_nbd::Address;

    use super::*;

    #[test]
    fn clients_read_what_they_are_told() {
        let name = ExportName::parse("oma-1").unwrap();
        for (tls, scheme) in [(false, "nbd://"), (true, "nbds://")] {
            for host in ["volumes.example", "192.0.2.7", "2001:db8::7"] {
                let address = NbdAddress::Tcp { host: host.to_owned(), port: 10810, tls };
                let told = address.uri(&name, Origin::Network).unwrap();
                assert!(told.starts_with(scheme), "{told}");
                let uri = Uri::parse(&told).unwrap();
                assert_eq!((uri.export(), uri.tls().is_some()), ("oma-1", tls));
                assert_eq!(*uri.address(), Address::Tcp { host: host.to_owned(), port: 10810 });
            }
        }
        let socket = NbdAddress::Unix("/run/volumed/nbd.sock".into());
        let told = socket.uri(&name, Origin::Network).unwrap();
        assert_eq!(*Uri::parse(&told).unwrap().address(), Address::Unix("/run/volumed/nbd.sock".into()));
    }

    #[test]
    fn clients_are_told_what_leads_there_from_where_they_are() {
        let name = ExportName::parse("oma-1").unwrap();
        let near = NbdAddress::Unix("/run/volumed/nbd.sock".into());
        let far = NbdAddress::Tcp { host: "volumes.example".to_owned(), port: 10809, tls: true };
        let both = NbdAddresses { near: near.clone(), far: far.clone() };
        for (asker, only) in [(Origin::Socket, near), (Origin::Network, far)] {
            assert_eq!(both.uri(&name, asker).unwrap(), only.uri(&name, asker).unwrap());
        }
    }
}
