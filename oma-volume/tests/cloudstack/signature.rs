//! The fake's own check of signatures against vectors from outside.

use oma_core::conformance::{self, Trial};
use time::{Duration, OffsetDateTime};

use super::fake::expiry::{is_in_time, parse};
use super::fake::params::Params;
use super::fake::signature::{is_signed, sign, string_to_sign};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("signature::the_official_guide_is_reproduced", &[], official),
        conformance::trial("signature::the_tests_of_cs_are_reproduced", &[], of_cs),
        conformance::trial("signature::what_java_signs_is_reproduced", &[], java),
        conformance::trial("signature::another_value_name_or_secret_is_no_match", &[], other),
        conformance::trial("signature::version_3_expires", &[], expires),
        conformance::trial("signature::times_are_taken_in_javas_forms_only", &[], forms),
    ]
}

type Vector = (&'static [(&'static str, &'static str)], &'static str);

/// Signed with the secret, each; `fixed` are in all.
fn reproduce(secret: &str, fixed: &[(&str, &str)], vectors: &[Vector]) {
    for (pairs, signature) in vectors {
        let mut all = fixed.to_vec();
        all.extend(*pairs);
        let params = Params::of(&all);
        assert_eq!(sign(&params, secret), *signature, "{pairs:?}: {}", string_to_sign(&params));
        all.push(("Signature", signature));
        assert!(is_signed(&Params::of(&all), secret), "{pairs:?}");
    }
}

/// The developer's guide of CloudStack prints key and secret of this one.
async fn official() {
    let key = "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg";
    let secret = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ";
    let vectors: &[Vector] = &[(&[("command", "listUsers")], "TTpdDq/7j/J58XCRHomKoQXEQds=")];
    reproduce(secret, &[("response", "json"), ("apikey", key)], vectors);
}

/// From the tests of exoscale's `cs`.
async fn of_cs() {
    let vectors: &[Vector] = &[
        (&[("command", "listVirtualMachines"), ("listall", "true")], "B0d6hBsZTcFVCiioSxzwKA9Pke8="),
        (
            &[
                ("command", "listVirtualMachines"),
                ("zoneId", "2"),
                ("templateId", "3"),
                ("temPlateidd", "4"),
                ("pageSize", "10"),
                ("page", "1"),
            ],
            "mMS7XALuGkCXk7kj5SywySku0Z0=",
        ),
        (
            &[("command", "listVirtualMachines"), ("listall", "1"), ("unicode_param", "éèààû")],
            "gABU/KFJKD3FLAgKDuxQoryu4sA=",
        ),
        (
            &[
                ("command", "scaleVirtualMachine"),
                ("id", "a"),
                ("details[0].cpunumber", "1000"),
                ("details[0].memory", "640k"),
            ],
            "ZNl66z3gFhnsx2Eo3vvCIM0kAgI=",
        ),
        (&[("command", "createNetwork"), ("name", ""), ("display_text", "")], "CistTEiPt/4Rv1v4qSyILvPbhmg="),
        (&[("command", "listVirtualMachines"), ("blah", "brah")], "58VvLSaVUqHnG9DhXNOAiDFwBoA="),
    ];
    reproduce("bar", &[("apiKey", "foo"), ("response", "json")], vectors);
}

/// Computed with `URLEncoder` and `Mac` of a JDK.
async fn java() {
    const CREATE: (&str, &str) = ("command", "createVolume");
    let lower: &[Vector] = &[
        (&[("command", "listZones")], "+N/t/kr5J3uMAOJZsuBoxZwvF/w="),
        (&[CREATE, ("name", "a b+c")], "516jN1KKDw+kOeRK4f+JGPuS7f4="),
        (&[CREATE, ("name", "a*b")], "48qgwMpGkhZATMPtsg8TWWLWqSE="),
        (&[CREATE, ("name", "a~b")], "RVzy73EfnSdR4RUjd+FfqPRxHfk="),
        (&[CREATE, ("name", "a/b=c&d:e@f,g;h")], "IBzwBn7H2WDIB+r5X0sN6r238qQ="),
        (&[CREATE, ("name", "Größe-日本")], "BMyaxuo6VjkfFcBp/SMgG79hJTw="),
        (&[CREATE, ("name", "!'()$")], "PM/f4lnE7lxBUIrcmXnYYCFEKmE="),
        (
            &[
                ("command", "createTags"),
                ("resourcetype", "Volume"),
                ("resourceids", "u1,u2"),
                ("tags[0].key", "oma.owner"),
                ("tags[0].value", "site A/1"),
            ],
            "nbXrqD1rISa4tTGwtoMZmQkzmmk=",
        ),
        (
            &[("command", "listZones"), ("signatureversion", "3"), ("expires", "2030-01-02T03:04:05+0000")],
            "BVUJg/AeuJe85tQSAyiKNvWGrZ8=",
        ),
        (
            &[("command", "listZones"), ("signatureversion", "3"), ("expires", "2030-01-02T03:04:05Z")],
            "RDWUPdPJ/y0yBt9J2jN99LeLsNw=",
        ),
    ];
    let (key, secret) = ("KEY-abc_123", "SECRET-xyz_789");
    reproduce(secret, &[("apikey", key), ("response", "json")], lower);
    // Names are sorted as they came: capital letters first.
    let mixed: &[Vector] = &[(
        &[("command", "listVolumes"), ("Zoneid", "z"), ("listall", "true")],
        "//EnYW1snBYi55mHEq/Em0uFzGc=",
    )];
    reproduce(secret, &[("apiKey", key), ("response", "json")], mixed);
}

async fn other() {
    let signed = [("command", "listZones"), ("apikey", "KEY-abc_123"), ("response", "json")];
    let signature = ("signature", "+N/t/kr5J3uMAOJZsuBoxZwvF/w=");
    let mut params = signed.to_vec();
    params.push(signature);
    assert!(is_signed(&Params::of(&params), "SECRET-xyz_789"));
    assert!(!is_signed(&Params::of(&params), "SECRET-xyz_788"));
    assert!(!is_signed(&Params::of(&signed), "SECRET-xyz_789"));
    params.push(("expires", "2030-01-02T03:04:05Z"));
    assert!(!is_signed(&Params::of(&params), "SECRET-xyz_789"), "what is added is signed too");
}

async fn expires() {
    let now = OffsetDateTime::from_unix_timestamp(1_893_553_445).unwrap();
    let at = |text: &'static str| Params::of(&[("signatureversion", "3"), ("expires", text)]);
    let in_time =
        |params: &Params, ahead: i64, enforced| is_in_time(params, now + Duration::minutes(ahead), enforced);
    let params = at("2030-01-02T03:04:05Z");
    assert!(in_time(&params, 0, false) && !in_time(&params, 1, false) && in_time(&params, -600, false));
    assert!(in_time(&params, -15, true) && !in_time(&params, -16, true), "15 minutes ahead at most");
    for params in [at("soon"), Params::of(&[("signatureversion", "3")])] {
        assert!(!in_time(&params, 0, false));
    }
    let first = Params::of(&[("expires", "2001-01-01T00:00:00Z")]);
    assert!(in_time(&first, 0, false) && !in_time(&first, 0, true), "version 1 has no time");
}

async fn forms() {
    let moment = parse("2030-01-02T03:04:05Z").unwrap();
    assert_eq!(moment.unix_timestamp(), 1_893_553_445);
    for same in [
        "2030-01-02T03:04:05+0000",
        "2030-01-02T08:34:05+0530",
        "2030-01-02T03:04:05+00:00",
        "2030-01-02T03:04:05.999Z",
    ] {
        assert_eq!(parse(same), Some(moment), "{same}");
    }
    for refused in [
        "2030-01-02T03:04:05",
        "2030-01-02 03:04:05Z",
        "1893553445",
        "2030-13-02T03:04:05Z",
        "2030-1-2T03:04:05Z",
        "2030-01-02T03:04:05+",
        "2030-01-02T03:04:05+0é0",
        "",
    ] {
        assert_eq!(parse(refused), None, "{refused}");
    }
}
