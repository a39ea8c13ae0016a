//! What copies and comparisons may take from a source host, a datastore and a link: shared by all disks and jobs of a replicator.
//!
//! ```text
//! disk A ─ gate ─┐
//! disk B ─ gate ─┼─► host ─► datastore ─► link ─► memory ─► read
//! disk C ─ gate ─┘   first come, first served
//! ```
//!
//! Each disk has one piece waiting at a time, so disks take turns whatever their depth. All take their rights in the same order,
//! so that none holds what another waits for in a circle. What a source hashes by itself is read at its host and in its datastore,
//! but takes nothing of the link and no memory.

mod config;
mod limit;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use config::{HourlyRate, LimitConfig, LimitsConfig};
pub(super) use limit::Admitted;
pub use limit::Limit;

use crate::{Clock, Endpoint, Error, ErrorKind, Result};

/// The limits of a replicator; clones share them.
#[derive(Clone, Debug)]
pub struct Limits {
    config: Arc<LimitsConfig>,
    clock: Arc<dyn Clock>,
    /// Made when first needed.
    made: Arc<Mutex<BTreeMap<Place, Arc<Limit>>>>,
}

/// The limits on the way of a disk, in the order in which they are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    /// Of where it is read: its host, its datastore.
    pub(super) source: Vec<Arc<Limit>>,
    /// Of what comes over from there.
    pub(super) link: Option<Arc<Limit>>,
}

/// What a limit is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Host(Endpoint),
    Datastore(Endpoint, String),
    Link,
}

impl Limits {
    /// Limits; the clock tells the hour of the day.
    ///
    /// # Errors
    /// `Invalid` for a limit of zero and for hours that are none or overlap.
    pub fn new(config: LimitsConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let named = [
            ("the link", &config.link),
            ("each host", &config.per_host),
            ("each datastore", &config.per_datastore),
        ];
        let hosts = config.hosts.iter().map(|(host, limit)| (host.as_str(), limit));
        let datastores = config.datastores.iter().map(|(name, limit)| (name.as_str(), limit));
        for (name, limit) in named.into_iter().chain(hosts).chain(datastores) {
            limit.check().map_err(|reason| Error::new(ErrorKind::Invalid, "limit", name).because(reason))?;
        }
        Ok(Self { config: Arc::new(config), clock, made: Arc::default() })
    }

    /// The hosts and datastores that are limited by name and were on the way of no disk yet, as the configuration has them:
    /// `hosts.esx1`, `datastores.gold`. After a run they tell of misspelt names.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_host =
            |name: &Endpoint| made.keys().any(|place| matches!(place, Place::Host(host) if host == name));
        let is_datastore = |name: &str| {
            made.keys().any(|place| matches!(place, Place::Datastore(_, found) if found == name))
        };
        let limits = |limit: &LimitConfig| *limit != LimitConfig::default();
        let hosts = self.config.hosts.iter().filter(|(name, limit)| limits(limit) && !is_host(name));
        let datastores =
            self.config.datastores.iter().filter(|(name, limit)| limits(limit) && !is_datastore(name));
        let hosts = hosts.map(|(name, _)| format!("hosts.{name}"));
        hosts.chain(datastores.map(|(name, _)| format!("datastores.{name}"))).collect()
    }

    /// The host that a disk is read from, and its limit: one of a name that was given, of the disk's own host before that of its
    /// source; else each host has its own.
    fn host(&self, endpoint: &Endpoint, location: &str) -> (Place, &LimitConfig) {
        let LimitsConfig { hosts, per_host, .. } = &*self.config;
        let own = authority(location).unwrap_or_else(|| endpoint.clone());
        let named = hosts.get_key_value(&own).or_else(|| hosts.get_key_value(endpoint));
        let (name, limit) = named.unwrap_or((&own, per_host));
        (Place::Host(name.clone()), limit)
    }

    /// The limits on the way of a disk.
    pub(super) fn on_the_way(&self, host: &Endpoint, location: &str) -> Way {
        let config = &self.config;
        let mut source = vec![self.host(host, location)];
        if let Some(name) = datastore(location) {
            let limit = config.datastores.get(name).unwrap_or(&config.per_datastore);
            source.push((Place::Datastore(host.clone(), name.to_owned()), limit));
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut limit = |(place, config): (Place, &LimitConfig)| {
            let make = || Arc::new(Limit::of(config, Arc::clone(&self.clock)));
            (*config != LimitConfig::default()).then(|| Arc::clone(made.entry(place).or_insert_with(make)))
        };
        Way {
            source: source.into_iter().filter_map(&mut limit).collect(),
            link: limit((Place::Link, &config.link)),
        }
    }
}

/// The datastore of a path as vSphere writes it: `[datastore1] web01/web01.vmdk`.
fn datastore(location: &str) -> Option<&str> {
    let (name, _) = location.strip_prefix('[')?.split_once(']')?;
    (!name.is_empty()).then_some(name)
}

/// The host of a URI, without its port: `nbd://nas1:10809/web01` is at `nas1`. A path has none, nor has a local socket.
fn authority(location: &str) -> Option<Endpoint> {
    let (_, rest) = location.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(address) => address.split_once(']')?.0,
        None => host.split(':').next()?,
    };
    Endpoint::parse(name.to_ascii_lowercase()).ok()
}

#[cfg(test)]
mod tests;
