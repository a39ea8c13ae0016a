use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A zone.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Zone {
    pub(in super::super) name: String,
    #[serde(default)]
    pub(in super::super) allocationstate: Option<String>,
}

/// What new volumes are made with.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct DiskOffering {
    pub(in super::super) name: String,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) iscustomized: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) iscustomizediops: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) disksizestrictness: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) encrypt: bool,
    #[serde(default)]
    pub(in super::super) state: Option<String>,
    #[serde(default)]
    pub(in super::super) storagetype: Option<String>,
    /// The zones that it is for; absent where it is for all.
    #[serde(default)]
    pub(in super::super) zoneid: Option<String>,
}

/// A virtual machine.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Machine {
    pub(in super::super) name: String,
    #[serde(default)]
    pub(in super::super) state: String,
    #[serde(default)]
    pub(in super::super) hypervisor: Option<String>,
    #[serde(default)]
    pub(in super::super) zoneid: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) haenable: bool,
}

/// A snapshot of a whole machine.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct VmSnapshot {
    pub(in super::super) id: String,
    #[serde(default)]
    pub(in super::super) displayname: Option<String>,
}

/// What the server tells of itself.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Capabilities {
    #[serde(default)]
    pub(in super::super) cloudstackversion: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(in super::super) kvmsnapshotenabled: bool,
    /// Requests in [`apilimitinterval`](Self::apilimitinterval) seconds; absent where they are not counted.
    #[serde(default)]
    pub(in super::super) apilimitmax: Option<u64>,
    #[serde(default)]
    pub(in super::super) apilimitinterval: Option<u64>,
}

/// The room of an account or a project, as texts: a number, or `Unlimited`.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Resources {
    #[serde(default)]
    pub(in super::super) name: String,
    #[serde(default)]
    pub(in super::super) volumeavailable: Option<String>,
    /// In GiB.
    #[serde(default)]
    pub(in super::super) primarystorageavailable: Option<String>,
    #[serde(default)]
    pub(in super::super) roletype: Option<String>,
    /// Of a project: `Active`, or something else.
    #[serde(default)]
    pub(in super::super) state: Option<String>,
}

/// A command that the account may call.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct ApiCommand {
    pub(in super::super) name: String,
}

/// Older versions send texts.
fn flag<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    match Value::deserialize(input)? {
        Value::Bool(flag) => Ok(flag),
        Value::String(text) => Ok(text.eq_ignore_ascii_case("true")),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(serde::de::Error::custom("neither true nor false"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_as_flags_and_as_texts() {
        let text = r#"{"name": "o", "iscustomized": "true", "disksizestrictness": false}"#;
        let offering: DiskOffering = serde_json::from_str(text).unwrap();
        assert!(offering.iscustomized && !offering.disksizestrictness && !offering.encrypt);
        serde_json::from_str::<DiskOffering>(r#"{"name": "o", "iscustomized": 7}"#).unwrap_err();
    }

    #[test]
    fn capabilities_are_read_as_the_documents_show_them() {
        let text = r#"{"securitygroupsenabled":false,"supportELB":"false","cloudstackversion":"4.22.0.0","userpublictemplateenabled":true,
            "customdiskofferingmaxsize":1024,"customdiskofferingminsize":1,"regionsecondaryenabled":false,"kvmsnapshotenabled":true}"#;
        let found: Capabilities = serde_json::from_str(text).unwrap();
        assert_eq!(found.cloudstackversion.as_deref(), Some("4.22.0.0"));
        assert!(found.kvmsnapshotenabled && found.apilimitmax.is_none());
    }
}
