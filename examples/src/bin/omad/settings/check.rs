//! Which settings cannot be, by themselves or beside each other.

use std::collections::BTreeSet;

use oma_core::audit::KEPT;
use oma_core::{ByteSize, Error, ErrorKind, Result};
use oma_examples::authority;
use oma_examples::daemon::Backend;

use super::{KeepSettings, Settings, SourceSettings, VolumeSettings, WorkSettings};

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        self.work.check()?;
        self.check_doors()?;
        self.volumes.check()?;
        self.keep.check()?;
        self.sources.check()
    }

    fn check_doors(&self) -> Result<()> {
        let (api, nbd, beside) = (&self.api, &self.nbd, self.volume_api.listen.address());
        if api.tls_certificate.is_some() != api.tls_key.is_some() {
            return wrong("api.tls_certificate and api.tls_key", "one is nothing without the other");
        }
        if api.no_auth && api.tls_certificate.is_some() {
            return wrong("api.no_auth", "it is for an address of this machine, without a certificate");
        }
        if api.no_auth && api.is_far(beside) {
            return wrong(
                "api.no_auth",
                "--no-auth is for an address of this machine, such as 127.0.0.1: api.listen and volume_api.listen have to be some",
            );
        }
        if api.tls && (api.no_auth || api.tls_certificate.is_some()) {
            return wrong(
                "api.tls",
                "it is for a certificate of the appliance's own: neither with another one nor with api.no_auth",
            );
        }
        api.tls_names.iter().try_for_each(|name| authority::check_name(name))?;
        if nbd.address().is_none() && (nbd.nbd_tls_certificates.is_some() || nbd.nbd_host.is_some()) {
            return wrong("nbd.listen", "the other settings of [nbd] are nothing without it");
        }
        let all = [api.listen, beside, nbd.address()].into_iter().flatten();
        // The system chooses another port for each 0.
        let chosen: Vec<_> = all.filter(|address| address.port() != 0).collect();
        if chosen.iter().collect::<BTreeSet<_>>().len() < chosen.len() {
            return wrong(
                "api.listen, volume_api.listen and nbd.listen",
                "one address is there twice; each needs one of its own",
            );
        }
        Ok(())
    }
}

impl WorkSettings {
    fn check(&self) -> Result<()> {
        if self.jobs == 0 {
            return wrong("work.jobs", "no job would ever be driven; name at least 1");
        }
        if self.attempts == 0 {
            return wrong("work.attempts", "each job has one attempt at least");
        }
        if self.memory < ByteSize::mib(1) {
            return wrong("work.memory", "a copy needs 1 MiB at least");
        }
        if self.per_source == Some(0) || self.per_target == Some(0) {
            return wrong(
                "work.per_source and work.per_target",
                "no job would ever be driven; name at least 1, or leave it out",
            );
        }
        if self.per_agent == 0 {
            return wrong("work.per_agent", "no agent could push; name at least 1");
        }
        Ok(())
    }
}

impl VolumeSettings {
    fn check(&self) -> Result<()> {
        let cloud = self.backend == Backend::Cloudstack;
        if cloud != self.cloudstack.is_some() || cloud != self.cloudstack_keys.is_some() {
            return wrong(
                "volumes.cloudstack and volumes.cloudstack_keys",
                "both go with volumes.backend = \"cloudstack\", and only with it",
            );
        }
        let remote = self.remote.is_some();
        let beside = self.remote_token.is_some() || self.remote_certificates.is_some();
        if (self.backend == Backend::Remote) != remote || (beside && !remote) {
            return wrong(
                "volumes.remote",
                "it goes with volumes.backend = \"remote\", and only with it; volumes.remote_token and volumes.remote_certificates go with it",
            );
        }
        Ok(())
    }
}

impl KeepSettings {
    fn check(&self) -> Result<()> {
        match self.audit {
            Some(kept) if kept < KEPT => wrong("keep.audit", "the audit trail is kept for 365d at least"),
            _ => Ok(()),
        }
    }
}

impl SourceSettings {
    fn check(&self) -> Result<()> {
        match self.directories.iter().all(|directory| directory.is_absolute()) {
            true => Ok(()),
            false => wrong("sources.directories", "they begin with `/`"),
        }
    }
}

fn wrong(key: &'static str, reason: &'static str) -> Result<()> {
    Err(Error::new(ErrorKind::Invalid, "read setting", key).because(reason))
}
