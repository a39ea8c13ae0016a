use std::collections::BTreeSet;

use super::{ClientName, Principal};

/// Who may open an export.
///
/// To others the export does not exist: it is missing in lists, and asking for it is answered as for any unknown name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// Whoever reaches the server.
    #[default]
    Anybody,
    /// Clients that have one of these names; compared whole, never by a part.
    Named(BTreeSet<ClientName>),
}

impl Clients {
    /// Clients that have one of these names.
    #[must_use]
    pub fn named(names: impl IntoIterator<Item = ClientName>) -> Self {
        Self::Named(names.into_iter().collect())
    }

    /// Whether a client may open the export.
    #[must_use]
    pub fn admit(&self, principal: &Principal) -> bool {
        match self {
            Self::Anybody => true,
            Self::Named(names) => principal.names().any(|name| names.contains(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<ClientName> {
        texts.iter().map(|text| ClientName::parse(text).unwrap()).collect()
    }

    #[test]
    fn cve_2013_6410_names_and_addresses_are_compared_whole() {
        let clients = Clients::named(names(&["dns:agent.example", "ip:10.0.0.1", "uid:10"]));
        for (client, admitted) in [
            ("dns:agent.example", true),
            ("dns:AGENT.example", true),
            ("dns:agent.example.org", false),
            ("dns:my.agent.example", false),
            ("cn:agent.example", false),
            ("ip:10.0.0.1", true),
            ("ip:10.0.0.10", false),
            ("ip:10.0.0.11", false),
            ("uid:10", true),
            ("uid:1", false),
            ("uid:100", false),
        ] {
            let principal: Principal = names(&[client]).into_iter().collect();
            assert_eq!(clients.admit(&principal), admitted, "{client}");
        }
    }

    #[test]
    fn nobody_is_admitted_only_where_anybody_is() {
        assert!(Clients::Anybody.admit(&Principal::default()));
        assert!(!Clients::named(names(&["uid:0"])).admit(&Principal::default()));
        assert!(!Clients::named([]).admit(&Principal::default()));
    }
}
