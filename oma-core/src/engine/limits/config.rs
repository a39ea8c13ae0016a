use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Endpoint};

/// Limits on hosts, datastores and the link of this appliance. Without any, nothing is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Each source host that is not named.
    pub per_host: LimitConfig,
    /// Source hosts by name: that of a disk's URI, without its port, or the endpoint of the source.
    pub hosts: BTreeMap<Endpoint, LimitConfig>,
    /// Each datastore that is not named.
    pub per_datastore: LimitConfig,
    /// Datastores by name.
    pub datastores: BTreeMap<String, LimitConfig>,
    /// Everything together.
    pub link: LimitConfig,
}

/// What may be taken from one place by all copies together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Data read and not yet written.
    pub bytes_in_flight: Option<ByteSize>,
    /// Pieces read and not yet written.
    pub operations: Option<u32>,
    /// Bytes per second, in hours that are not named.
    pub bandwidth: Option<ByteSize>,
    /// Bytes per second in some hours of the day.
    pub hours: Vec<HourlyRate>,
}

/// A bandwidth in some hours of each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HourlyRate {
    /// First hour, 0 to 23, UTC.
    pub from: u8,
    /// First hour that is not meant any more, 1 to 24; smaller than `from`: over midnight.
    pub to: u8,
    /// Bytes per second.
    pub bandwidth: ByteSize,
}

impl HourlyRate {
    pub(super) const fn has(&self, hour: u8) -> bool {
        if self.from < self.to {
            self.from <= hour && hour < self.to
        } else {
            self.from <= hour || hour < self.to
        }
    }
}

impl LimitConfig {
    /// Bytes per second in an hour of the day; `None` when that is not limited.
    #[must_use]
    pub fn bandwidth_at(&self, hour: u8) -> Option<ByteSize> {
        self.hours.iter().find(|rate| rate.has(hour)).map_or(self.bandwidth, |rate| Some(rate.bandwidth))
    }

    /// Why it is no limit.
    pub(super) fn check(&self) -> Result<(), String> {
        let sizes = [self.bytes_in_flight, self.bandwidth].into_iter().flatten();
        let sizes = sizes.chain(self.hours.iter().map(|rate| rate.bandwidth));
        if sizes.into_iter().any(|size| size == ByteSize::ZERO) || self.operations == Some(0) {
            return Err("a limit of zero would stop every copy; leave it out, or name at least 1".to_owned());
        }
        for rate in &self.hours {
            if rate.from > 23 || !(1..=24).contains(&rate.to) || rate.from == rate.to {
                let HourlyRate { from, to, .. } = rate;
                return Err(format!(
                    "hours {from}-{to} are none; the first is 0 to 23, the end 1 to 24 and another"
                ));
            }
        }
        match (0..24).find(|hour| self.hours.iter().filter(|rate| rate.has(*hour)).count() > 1) {
            Some(hour) => Err(format!("hour {hour} has two bandwidths; leave one out")),
            None => Ok(()),
        }
    }
}
