//! Envelopes, refusals, pages: what every command has in common.

use std::time::Duration;

use oma_core::conformance::{self, Trial};
use serde_json::json;
use uuid::Uuid;

use super::caller::{Caller, form};
use super::fake::{Fake, Keys, Options};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("protocol::get_and_post_are_served_and_the_query_wins", &[], get_and_post),
        conformance::trial("protocol::names_and_values_are_taken_as_the_server_takes_them", &[], names),
        conformance::trial("protocol::who_cannot_be_believed_gets_a_plain_401", &[], unauthorized),
        conformance::trial("protocol::a_request_that_expired_is_refused", &[], expired),
        conformance::trial("protocol::where_it_is_enforced_changes_come_by_post_with_a_time", &[], enforced),
        conformance::trial("protocol::parameters_are_checked_before_the_command_runs", &[], parameters),
        conformance::trial("protocol::whatever_a_parameter_says_there_is_an_answer", &[], strange),
        conformance::trial("protocol::pages_are_given_whole_or_refused", &[], pages),
        conformance::trial("protocol::without_response_json_the_answer_is_xml", &[], xml),
        conformance::trial("protocol::another_path_or_method_is_no_api", &[], no_api),
        conformance::trial("protocol::an_older_version_ignores_what_came_later", &[], older),
        conformance::trial("protocol::the_endpoint_tells_what_it_knows", &[], discovery),
    ]
}

async fn fake() -> Fake {
    Fake::start(Options::default()).await
}

async fn get_and_post() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let signed = user.signed("listZones", &[("name", "zone-1")]);
    for (method, query, body) in [("GET", signed.as_str(), ""), ("POST", "", &signed), ("POST", &signed, "")]
    {
        let answer = user.send(method, query, body).await.unwrap();
        let (key, body) = answer.envelope();
        assert_eq!((key.as_str(), &body["count"]), ("listzonesresponse", &json!(1)), "{method}");
        assert_eq!(answer.headers["content-type"], "application/json; charset=UTF-8");
    }
    // Only what counts is signed: the query's value.
    let both = user.send("POST", &signed, "name=zone-2&name=zone-3").await.unwrap();
    assert_eq!(both.body()["zone"][0]["name"], "zone-1");
    let twice = user.send("GET", &format!("{signed}&name=zone-2&without-a-value"), "").await.unwrap();
    assert_eq!(twice.body()["zone"][0]["name"], "zone-1");
}

async fn names() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "a b+c*~ä", "1").await;
    assert_eq!(fake.volume(volume).unwrap().name, "a b+c*~ä");
    let unknown =
        user.done("listVolumes", &[("LISTALL", "true"), ("Type", "DATADISK"), ("colour", "red")]).await;
    assert_eq!(unknown["count"], 1, "an unknown name is ignored, and names have no case");
    assert_eq!(user.done("listVolumes", &[("name", "a b")]).await, json!({}), "a name is the whole name");
    assert_eq!(user.done("listVolumes", &[("keyword", "B+")]).await["count"], 1);
}

async fn unauthorized() {
    let fake = fake().await;
    let wrong = |key: &str, secret: &str| {
        Caller::new(&fake, &Keys { key: key.to_owned(), secret: secret.to_owned() })
    };
    let strangers = [wrong("nobody", &fake.user.secret), wrong(&fake.user.key, &fake.admin.secret)];
    for stranger in &strangers {
        let answer = stranger.call("listZones", &[]).await;
        let (key, body) = answer.envelope();
        assert_eq!(
            (answer.status, key.as_str(), &body["errorcode"]),
            (401, "listzonesresponse", &json!(401))
        );
        assert!(body.get("cserrorcode").is_none() && !answer.headers.contains_key("x-description"));
    }
    let user = Caller::user(&fake);
    let unknown = user.call("listEverything", &[]).await;
    assert_eq!((unknown.status, unknown.envelope().0.as_str()), (401, "errorresponse"));
    let nothing = user.send("GET", "response=json", "").await.unwrap();
    assert_eq!(nothing.status, 401);
    fake.set_enabled(false);
    assert_eq!(user.call("listZones", &[]).await.status, 401, "a disabled account");
    fake.set_enabled(true);
    let form = user.signed("listZones", &[]);
    let unsigned = user.send("GET", &form[..form.rfind("&signature").unwrap()], "").await.unwrap();
    assert_eq!(unsigned.status, 401);
}

const V3: (&str, &str) = ("signatureversion", "3");

/// So many minutes from now.
fn expires(minutes: i64) -> String {
    let moment = time::OffsetDateTime::now_utc() + time::Duration::minutes(minutes);
    let (date, time) = (moment.date(), moment.time());
    format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
}

async fn expired() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let soon = expires(10);
    let params = [V3, ("expires", soon.as_str())];
    assert_eq!(user.call("listZones", &params).await.status, 200);
    fake.advance(Duration::from_mins(11));
    assert_eq!(user.call("listZones", &params).await.status, 401);
}

async fn enforced() {
    let fake = Fake::start(Options { post_and_timestamps: true, ..Options::default() }).await;
    let user = Caller::user(&fake);
    assert_eq!(user.call("listZones", &[]).await.status, 401, "version 3 is mandatory");
    let (soon, late) = (expires(10), expires(20));
    assert_eq!(user.call("listZones", &[V3, ("expires", &late)]).await.status, 401);
    let signed = user.signed("listZones", &[V3, ("expires", &soon)]);
    assert_eq!(user.send("GET", &signed, "").await.unwrap().status, 200);
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let change = [V3, ("expires", &soon), ("zoneid", &zone), ("diskofferingid", &offering), ("size", "1")];
    let signed = user.signed("createVolume", &change);
    let got = user.send("GET", &signed, "").await.unwrap();
    assert_eq!(got.refusal().0, 400);
    assert_eq!(got.headers["x-description"], got.refusal().2);
    assert!(fake.data_volumes().is_empty());
    assert_eq!(user.send("POST", "", &signed).await.unwrap().status, 200);
    assert_eq!(fake.data_volumes().len(), 1);
}

/// A command, its parameters and what its refusal says.
type Refusal<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

async fn parameters() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let (nobody, machine) = (Uuid::new_v4().to_string(), fake.appliance.to_string());
    let long = "n".repeat(256);
    let refusals: [Refusal; 6] = [
        ("attachVolume", &[("virtualmachineid", &machine)], "due to missing parameter id"),
        (
            "deleteVolume",
            &[("id", &nobody)],
            &format!(
                "Invalid parameter id value={nobody} due to incorrect long value format, or entity does not exist"
            ),
        ),
        ("deleteVolume", &[("id", &machine)], "entity does not exist"),
        ("deleteVolume", &[("id", "17")], "entity does not exist"),
        ("createVolume", &[("name", &long)], "max allowed length"),
        ("createVolume", &[("name", "a\u{7}b")], "non-printable"),
    ];
    for (command, pairs, wanted) in refusals {
        let answer = user.call(command, pairs).await;
        let (code, class, text) = answer.refusal();
        assert_eq!((code, class), (431, 9999), "{text}");
        assert!(text.contains(wanted), "{text}");
        assert_eq!(answer.envelope().0, format!("{}response", command.to_lowercase()));
        assert!(answer.headers.contains_key("x-description"));
    }
    let no_number = user.refused("listVolumes", &[("page", "one"), ("pagesize", "1")]).await;
    assert_eq!((no_number.0, no_number.1), (431, 9999));
    assert_eq!(user.refused("listVolumes", &[("tags", "a=b")]).await.0, 430);
}

/// Each parameter of each command in turn, the others as they should be.
async fn strange() {
    let fake = fake().await;
    let admin = Caller::admin(&fake);
    let volume = admin.create(&fake, "v", "1").await;
    let (id, machine) = (volume.to_string(), fake.appliance.to_string());
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let good = |name: &str| match name {
        "zoneid" => zone.clone(),
        "diskofferingid" => offering.clone(),
        "virtualmachineid" => machine.clone(),
        "size" => "1".to_owned(),
        "resourcetype" => "Volume".to_owned(),
        _ => id.clone(),
    };
    let mut refusals = 0;
    for command in admin.done("listApis", &[]).await["api"].as_array().unwrap() {
        let names: Vec<_> = command["params"]
            .as_array()
            .unwrap()
            .iter()
            .map(|param| param["name"].as_str().unwrap())
            .collect();
        let required = |name: &str| {
            command["params"]
                .as_array()
                .unwrap()
                .iter()
                .any(|param| param["name"] == name && param["required"] == true)
        };
        for name in &names {
            for value in
                ["", " ", "ä,~", "-1", "99999999999999999999", &id, "00000000-0000-0000-0000-000000000000"]
            {
                let others = names.iter().filter(|other| **other != *name && required(other));
                let mut pairs: Vec<_> = others.map(|name| (*name, good(name))).collect();
                pairs.push((name, value.to_owned()));
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let answer = admin.call(command["name"].as_str().unwrap(), &pairs).await;
                let (key, body) = answer.envelope();
                assert!(key.ends_with("response"), "{key}");
                if let Some(job) = body["jobid"].as_str() {
                    let _ = admin.result(job).await;
                }
                refusals += u32::from(answer.status != 200);
            }
        }
    }
    assert!(refusals > 200, "{refusals}");
}

async fn pages() {
    let fake = Fake::start(Options { page_size: 3, ..Options::default() }).await;
    let user = Caller::user(&fake);
    assert_eq!(user.done("listSnapshots", &[]).await, json!({}), "no count and no array");
    for number in 0..5 {
        user.create(&fake, &format!("v{number}"), "1").await;
    }
    let list = |pairs: &[(&'static str, &'static str)]| {
        let mut all = vec![("type", "DATADISK")];
        all.extend(pairs);
        let user = user.clone();
        async move { user.call("listVolumes", &all).await }
    };
    let names = |answer: super::caller::Answer| {
        let body = answer.body();
        assert_eq!(body["count"], 5, "of all pages");
        let rows = body["volume"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(list(&[]).await), ["v4", "v3", "v2"], "silently no more than a page");
    assert_eq!(names(list(&[("page", "2"), ("pagesize", "3")]).await), ["v1", "v0"]);
    assert_eq!(names(list(&[("pagesize", "-1")]).await).len(), 5);
    assert_eq!(list(&[("page", "3"), ("pagesize", "3")]).await.body(), json!({"count": 5}));
    for refused in [
        &[("page", "1")][..],
        &[("pagesize", "2")],
        &[("page", "1"), ("pagesize", "4")],
        &[("page", "0"), ("pagesize", "1")],
        &[("page", "1"), ("pagesize", "-1")],
    ] {
        let (code, class, text) = list(refused).await.refusal();
        assert_eq!((code, class), (431, 4350), "{refused:?}: {text}");
    }
}

async fn xml() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let mut pairs = vec![("command", "listZones"), ("apikey", user.keys.key.as_str()), ("name", "zone-1")];
    let signature = super::fake::signature::sign(&super::fake::params::Params::of(&pairs), &user.keys.secret);
    pairs.push(("signature", &signature));
    let answer = user.send("GET", &form(&pairs), "").await.unwrap();
    assert_eq!(answer.headers["content-type"], "text/xml; charset=UTF-8");
    let begin = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><listzonesresponse><count>1</count><zone>";
    assert!(answer.text.starts_with(begin), "{}", answer.text);
    assert!(answer.text.contains("<name>zone-1</name>"), "{}", answer.text);
}

async fn no_api() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    assert_eq!(user.send("DELETE", &user.signed("listZones", &[]), "").await.unwrap().status, 405);
    assert_eq!(fake.take_calls(), 0);
}

async fn older() {
    let fake = Fake::start(Options { version: "4.9.3.0", ..Options::default() }).await;
    let user = Caller::user(&fake);
    let told = user.done("listApis", &[("name", "updateVolume")]).await;
    let params = told["api"][0]["params"].as_array().unwrap();
    assert_eq!(params.iter().map(|param| param["name"].as_str().unwrap()).collect::<Vec<_>>(), ["id"]);
    let volume = user.create(&fake, "v", "1").await.to_string();
    user.job("updateVolume", &[("id", &volume), ("DeleteProtection", "true"), ("name", "w")]).await.unwrap();
    assert_eq!(fake.data_volumes()[0].name, "v");
    user.done("deleteVolume", &[("id", &volume)]).await;
    assert!(user.done("listVolumes", &[("ids", &volume)]).await.get("volume").is_none(), "known since 4.9");
}

async fn discovery() {
    let fake = fake().await;
    let (user, admin) = (Caller::user(&fake), Caller::admin(&fake));
    let capability = user.done("listCapabilities", &[]).await["capability"].clone();
    assert_eq!(capability["cloudstackversion"], "4.22.0.0");
    let all = user.done("listApis", &[]).await;
    assert_eq!(all["count"].as_u64(), all["api"].as_array().map(|rows| u64::try_from(rows.len()).unwrap()));
    let one = user.done("listApis", &[("name", "updateVolume")]).await;
    let params = one["api"][0]["params"].as_array().unwrap();
    let protection = params.iter().find(|param| param["name"] == "deleteprotection").unwrap();
    assert_eq!((protection["since"].as_str(), &one["api"][0]["isasync"]), (Some("4.20.0"), &json!(true)));
    assert_eq!(user.refused("listApis", &[("name", "listEverything")]).await.0, 530);
    assert_eq!(user.done("listAccounts", &[("listall", "true")]).await["count"], 1);
    let accounts = admin.done("listAccounts", &[("listall", "true")]).await;
    assert_eq!((&accounts["count"], &accounts["account"][0]["roletype"]), (&json!(3), &json!("Admin")));
    assert_eq!(user.done("listZones", &[]).await["count"], 2, "a closed zone is an administrator's");
    let offerings = user.done("listDiskOfferings", &[]).await;
    assert_eq!(offerings["count"], 4, "a retired offering is not listed");
}
