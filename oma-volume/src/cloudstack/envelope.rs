//! What the server answers: one object under a key that ends in `response`, a result or a refusal.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The content of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The object under the key.
    Result(Value),
    Refused(Refusal),
    /// It is no answer of CloudStack: its HTTP status, and what is wrong with it.
    Foreign {
        status: u16,
        problem: &'static str,
    },
}

/// Takes an answer apart. The status counts only where the body says nothing. No text in it shows the key (L29): what is cut short
/// later has none of it left.
pub(super) fn read(status: u16, body: &[u8], key: &str) -> Answer {
    let Ok(Value::Object(mut whole)) = serde_json::from_slice(body) else {
        return Answer::Foreign { status, problem: "it is no JSON object" };
    };
    whole.values_mut().for_each(|value| hide(value, key));
    let Some(content) = content(whole) else {
        return Answer::Foreign { status, problem: "no object in it is a response" };
    };
    match content.get("errorcode").and_then(Value::as_u64) {
        Some(code) => Answer::Refused(Refusal::read(code, &content)),
        None if (200..300).contains(&status) => Answer::Result(Value::Object(content)),
        None => Answer::Foreign { status, problem: "its status is an error, its body is not" },
    }
}

/// Answers are no deeper than the parser lets them be.
fn hide(value: &mut Value, key: &str) {
    match value {
        Value::String(text) if text.contains(key) => *text = text.replace(key, "(API key)"),
        Value::Array(rows) => rows.iter_mut().for_each(|row| hide(row, key)),
        Value::Object(fields) => fields.values_mut().for_each(|field| hide(field, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// By its suffix: an error has the key `errorresponse` where the command is not known.
fn content(whole: Map<String, Value>) -> Option<Map<String, Value>> {
    let found = whole.into_iter().find(|(key, _)| key.ends_with("response"));
    match found {
        Some((_, Value::Object(content))) => Some(content),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: u16, body: &[u8]) -> Answer {
        super::read(status, body, "the key")
    }

    fn body(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    #[test]
    fn a_result_is_what_stands_under_the_key() {
        let answer = read(200, &body(&json!({"listvolumesresponse": {"count": 1, "volume": [{"id": "v"}]}})));
        assert_eq!(answer, Answer::Result(json!({"count": 1, "volume": [{"id": "v"}]})));
        assert_eq!(read(200, b"{\"listvolumesresponse\":{}}"), Answer::Result(json!({})));
    }

    #[test]
    fn a_refusal_is_told_by_its_code_under_whatever_key() {
        for key in ["listvolumesresponse", "errorresponse"] {
            let error = json!({"uuidList": [], "errorcode": 431, "cserrorcode": 4350, "errortext": "no"});
            let Answer::Refused(refusal) = read(431, &body(&json!({ key: error }))) else {
                panic!("it is refused")
            };
            assert_eq!(
                (refusal.code, refusal.detail, refusal.text.as_str()),
                (431, Some(4350), "no"),
                "{key}"
            );
        }
    }

    #[test]
    fn the_plain_refusal_of_a_signature_has_no_detail() {
        let error =
            json!({"listzonesresponse": {"uuidList": [], "errorcode": 401, "errortext": "unable to verify"}});
        let Answer::Refused(refusal) = read(401, &body(&error)) else { panic!("it is refused") };
        assert_eq!((refusal.code, refusal.detail), (401, None));
    }

    #[test]
    fn a_failed_job_inside_a_result_is_a_result() {
        let job = json!({"jobstatus": 2, "jobresult": {"errorcode": 530, "errortext": "x"}});
        assert_eq!(read(200, &body(&json!({"queryasyncjobresultresponse": job}))), Answer::Result(job));
    }

    #[test]
    fn what_is_not_of_cloudstack_is_foreign() {
        let foreign: [(u16, &[u8]); 7] = [
            (200, b""),
            (200, b"<html></html>"),
            (502, b"<html></html>"),
            (200, b"[1]"),
            (200, b"{}"),
            (200, b"{\"listzonesresponse\": 7}"),
            (500, b"{\"listzonesresponse\": {}}"),
        ];
        for (status, body) in foreign {
            assert!(matches!(read(status, body), Answer::Foreign { .. }), "{status} {body:?}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_is_foreign() {
        let whole = body(&json!({"listvolumesresponse": {"count": 1, "volume": [{"id": "v"}]}}));
        for length in 0..whole.len() {
            assert!(matches!(read(200, &whole[..length]), Answer::Foreign { .. }), "{length}");
        }
    }
}
