//! Zones, disk offerings, accounts.

use serde_json::{Value, json};

use super::super::model::{Kind, Role};
use super::super::world::World;
use super::listing::{is_asked_for, is_equal, is_like, is_shown, paged};
use super::{Answered, Body, Call, Command, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listZones",
        "user.zone.ListZonesCmd",
        Body::Sync(zones),
        &[
            uuid("id", Kind::Zone),
            param("ids", Type::Uuids(Kind::Zone)).since("4.19.0"),
            text("name"),
            param("available", Type::Boolean),
        ],
    ),
    Command::new(
        "listDiskOfferings",
        "user.offering.ListDiskOfferingsCmd",
        Body::Sync(offerings),
        &[
            uuid("id", Kind::Offering),
            text("name"),
            uuid("zoneid", Kind::Zone).since("4.13"),
            text("state").since("4.19"),
            param("listall", Type::Boolean),
            param("encrypt", Type::Boolean).since("4.18"),
        ],
    ),
    Command::new(
        "listAccounts",
        "user.account.ListAccountsCmd",
        Body::Sync(accounts),
        &[uuid("id", Kind::Account), text("name"), text("accounttype"), param("listall", Type::Boolean)],
    ),
];

fn zones(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let wanted = world.zones.iter().filter(|zone| {
        is_asked_for(params, zone.id) && is_equal(params, "name", zone.name) && is_like(params, zone.name)
    });
    // A disabled zone is an administrator's.
    let seen = wanted.filter(|zone| zone.enabled || call.caller.is_admin());
    let rows: Vec<_> = seen
        .map(|zone| {
            json!({
                "id": zone.id, "name": zone.name, "networktype": "Advanced", "localstorageenabled": false,
                "securitygroupsenabled": false, "allocationstate": if zone.enabled { "Enabled" } else { "Disabled" },
                "type": "Core",
            })
        })
        .collect();
    paged(world, call, "zone", rows)
}

fn offerings(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let rows: Vec<_> = world
        .offerings
        .iter()
        .filter(|offering| is_asked_for(params, offering.id) && is_like(params, offering.name))
        .filter(|offering| is_equal(params, "name", offering.name))
        .filter(|offering| offering.active || is_equal(params, "state", "Inactive") && params.text("state").is_some())
        .filter(|offering| params.text("encrypt").is_none() || params.flag("encrypt") == offering.encrypted)
        .map(|offering| {
            json!({
                "id": offering.id, "name": offering.name, "displaytext": offering.name,
                "disksize": offering.gib.unwrap_or(0), "iscustomized": offering.gib.is_none(), "iscustomizediops": false,
                "storagetype": "shared", "provisioningtype": "thin", "disksizestrictness": offering.strict,
                "encrypt": offering.encrypted, "state": if offering.active { "Active" } else { "Inactive" },
                "displayoffering": true, "cacheMode": "none",
            })
        })
        .collect();
    paged(world, call, "diskoffering", rows)
}

fn accounts(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let limit = |number: Option<u64>| number.map_or("Unlimited".to_owned(), |number| number.to_string());
    let rows: Vec<Value> = world
        .accounts
        .iter()
        .filter(|account| is_shown(world, call, account.id) && is_asked_for(params, account.id))
        .filter(|account| is_equal(params, "name", account.name))
        .map(|account| {
            let admin = account.role == Role::RootAdmin;
            json!({
                "id": account.id, "name": account.name, "accounttype": u8::from(admin),
                "roletype": if admin { "Admin" } else { "User" }, "domainid": world.domain, "domain": "ROOT",
                "state": if account.enabled { "enabled" } else { "disabled" },
                "volumelimit": limit(world.options.max_volumes.filter(|_| !admin)),
                "primarystoragelimit": limit(world.options.max_gib.filter(|_| !admin)),
            })
        })
        .collect();
    paged(world, call, "account", rows)
}
