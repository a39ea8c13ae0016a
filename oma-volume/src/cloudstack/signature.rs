//! Signatures of requests, version 3: as the server checks them (`ApiServer.verifyRequest`), which is not quite what its clients do.
//!
//! ```text
//!  name=value pairs, sorted by name as sent ─▶ values percent-encoded as Java does ─▶ joined by & ─▶ lower case
//!      ─▶ HMAC-SHA1 with the secret key ─▶ Base64
//! ```
//!
//! Names are signed raw, also where the wire carries `%5B0%5D`. Java leaves only `A-Z a-z 0-9 . - * _` as they are: `*` stays
//! and `~` becomes `%7E`, which several clients get wrong. We send all names in lower case, so that it does not matter whether
//! somebody sorts them before or after folding.

use std::time::Duration;

use oma_core::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

use super::keys::Keys;
use super::request::Request;

/// How long a question is good for. Servers that enforce time stamps refuse more than 15 minutes.
const VALID: Duration = Duration::from_mins(10);
/// The same of a request that changes something: one that arrives late must not undo what came after it.
pub(super) const VALID_CHANGE: Duration = Duration::from_mins(2);

/// What `java.net.URLEncoder` encodes.
const JAVA: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'*').remove(b'_');

/// Parameters of a request: names in lower case, values as they are meant.
pub(super) type Parameters = Vec<(String, String)>;

/// The body of a signed request, `application/x-www-form-urlencoded`. It is good for some minutes and shows who asks, so it is
/// kept out of URLs and logs.
pub(super) fn signed_form(keys: &Keys, now: Timestamp, request: &Request) -> String {
    let mut parameters = request.parameters();
    let valid = if request.only_asks() { VALID } else { VALID_CHANGE };
    let fixed = [
        ("apikey", keys.api().to_owned()),
        ("expires", expiry(now, valid)),
        ("response", "json".to_owned()),
        ("signatureversion", "3".to_owned()),
    ];
    parameters.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    let signature = sign(keys, &parameters);
    let pairs = parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    let mut form: Vec<_> = pairs.collect();
    form.push(format!("signature={}", encoded(&signature)));
    form.join("&")
}

/// The signature of parameters as they are, in Base64.
fn sign(keys: &Keys, parameters: &[(String, String)]) -> String {
    keys.sign(&to_sign(parameters))
}

fn to_sign(parameters: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    let pairs: Vec<_> = sorted.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&").to_lowercase()
}

fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &JAVA)
}

/// `yyyy-MM-dd'T'HH:mm:ss+0000`: the form of the developer's guide, which all versions read.
fn expiry(now: Timestamp, valid: Duration) -> String {
    let until = now.after(valid).to_string();
    format!("{}+0000", until.get(..19).unwrap_or(&until))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command, its further parameters, the signature.
    type Vector = (&'static str, &'static [(&'static str, &'static str)], &'static str);

    fn signature(key: (&str, &str), parameters: &[(&str, &str)]) -> String {
        let keys = Keys::new(key.0, key.1).unwrap();
        sign(&keys, &parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
    }

    /// From outside: the developer's guide of CloudStack prints key, secret and signature of this request.
    #[test]
    fn the_example_of_the_developers_guide_is_reproduced() {
        let api = "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg";
        let secret = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ";
        let signed =
            signature((api, secret), &[("command", "listUsers"), ("response", "json"), ("apikey", api)]);
        assert_eq!(signed, "TTpdDq/7j/J58XCRHomKoQXEQds=");
    }

    /// From outside: the tests of the client `cs` of Exoscale, with its key `foo` and its secret `bar`.
    #[test]
    fn the_vectors_of_exoscales_client_are_reproduced() {
        let vectors: [Vector; 6] = [
            ("listVirtualMachines", &[("listall", "true")], "B0d6hBsZTcFVCiioSxzwKA9Pke8="),
            (
                "listVirtualMachines",
                &[
                    ("zoneId", "2"),
                    ("templateId", "3"),
                    ("temPlateidd", "4"),
                    ("pageSize", "10"),
                    ("page", "1"),
                ],
                "mMS7XALuGkCXk7kj5SywySku0Z0=",
            ),
            (
                "listVirtualMachines",
                &[("listall", "1"), ("unicode_param", "éèààû")],
                "gABU/KFJKD3FLAgKDuxQoryu4sA=",
            ),
            (
                "scaleVirtualMachine",
                &[("id", "a"), ("details[0].cpunumber", "1000"), ("details[0].memory", "640k")],
                "ZNl66z3gFhnsx2Eo3vvCIM0kAgI=",
            ),
            ("createNetwork", &[("name", ""), ("display_text", "")], "CistTEiPt/4Rv1v4qSyILvPbhmg="),
            ("listVirtualMachines", &[("blah", "brah")], "58VvLSaVUqHnG9DhXNOAiDFwBoA="),
        ];
        for (command, extra, expected) in vectors {
            let mut all = vec![("command", command), ("apiKey", "foo"), ("response", "json")];
            all.extend(extra);
            assert_eq!(signature(("foo", "bar"), &all), expected, "{command} {extra:?}");
        }
    }

    /// Our own requests; the signatures were computed with Java's `URLEncoder` and `Mac`, and a second time with Python.
    #[test]
    fn what_java_computes_is_reproduced() {
        let vectors: [Vector; 11] = [
            ("listZones", &[], "+N/t/kr5J3uMAOJZsuBoxZwvF/w="),
            ("createVolume", &[("name", "a b+c")], "516jN1KKDw+kOeRK4f+JGPuS7f4="),
            ("createVolume", &[("name", "a*b")], "48qgwMpGkhZATMPtsg8TWWLWqSE="),
            ("createVolume", &[("name", "a~b")], "RVzy73EfnSdR4RUjd+FfqPRxHfk="),
            ("createVolume", &[("name", "a/b=c&d:e@f,g;h")], "IBzwBn7H2WDIB+r5X0sN6r238qQ="),
            ("createVolume", &[("name", "Größe-日本")], "BMyaxuo6VjkfFcBp/SMgG79hJTw="),
            ("createVolume", &[("name", "!'()$")], "PM/f4lnE7lxBUIrcmXnYYCFEKmE="),
            (
                "createTags",
                &[
                    ("resourcetype", "Volume"),
                    ("resourceids", "u1,u2"),
                    ("tags[0].key", "oma.owner"),
                    ("tags[0].value", "site A/1"),
                ],
                "nbXrqD1rISa4tTGwtoMZmQkzmmk=",
            ),
            ("listVolumes", &[("Zoneid", "z"), ("listall", "true")], "//EnYW1snBYi55mHEq/Em0uFzGc="),
            (
                "listZones",
                &[("signatureversion", "3"), ("expires", "2030-01-02T03:04:05+0000")],
                "BVUJg/AeuJe85tQSAyiKNvWGrZ8=",
            ),
            (
                "listZones",
                &[("signatureversion", "3"), ("expires", "2030-01-02T03:04:05Z")],
                "RDWUPdPJ/y0yBt9J2jN99LeLsNw=",
            ),
        ];
        for (command, extra, expected) in vectors {
            // The vector that sorts raw names spells this one as it did.
            let key = if extra.iter().any(|(name, _)| *name == "Zoneid") { "apiKey" } else { "apikey" };
            let mut all = vec![("command", command), (key, "KEY-abc_123"), ("response", "json")];
            all.extend(extra);
            assert_eq!(signature(("KEY-abc_123", "SECRET-xyz_789"), &all), expected, "{command} {extra:?}");
        }
    }

    #[test]
    fn a_request_is_good_for_ten_minutes_and_carries_its_signature_encoded() {
        let keys = Keys::new("KEY-abc_123", "SECRET-xyz_789").unwrap();
        let now = Timestamp::from_millis(1_893_553_445_000 - 600_000);
        let form = signed_form(&keys, now, &Request::new("listZones"));
        assert_eq!(
            form,
            "command=listZones&apikey=KEY-abc_123&expires=2030-01-02T03%3A04%3A05%2B0000&response=json\
             &signatureversion=3&signature=BVUJg%2FAeuJe85tQSAyiKNvWGrZ8%3D"
        );
    }

    #[test]
    fn brackets_are_encoded_on_the_wire_only() {
        let keys = Keys::new("k", "s").unwrap();
        let parameters = vec![("tags[0].key".to_owned(), "a b".to_owned())];
        assert_eq!(to_sign(&parameters), "tags[0].key=a%20b");
        let request = Request::new("createTags").with_tags([("a b", "v")]);
        let form = signed_form(&keys, Timestamp::from_millis(0), &request);
        assert!(form.starts_with("command=createTags&tags%5B0%5D.key=a%20b&"), "{form}");
    }

    #[test]
    fn a_change_is_good_for_two_minutes() {
        let keys = Keys::new("k", "s").unwrap();
        let form = signed_form(&keys, Timestamp::from_millis(0), &Request::new("detachVolume"));
        assert!(form.contains("expires=1970-01-01T00%3A02%3A00%2B0000"), "{form}");
    }
}
