//! Why the cloud did not do it. Judged by `errorcode` and `cserrorcode`; texts differ between versions and are for people.

use std::fmt;

use oma_core::{ErrorKind, Retry};
use serde_json::{Map, Value};

/// No text of the server is longer in ours.
const LONGEST: usize = 400;

/// An error that the cloud answered, to a request or as the end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The class (`errorcode`), as the HTTP status is.
    pub(super) code: u64,
    /// The exception behind it (`cserrorcode`), where it is told.
    pub(super) detail: Option<u64>,
    /// What the server says of it, on one line.
    pub(super) text: String,
}

/// Numbers of `cserrorcode` that make a difference (`CSExceptionErrorCode`).
mod detail {
    pub(super) const AGENT_UNAVAILABLE: u64 = 4285;
    pub(super) const CONCURRENT: u64 = 4300;
    pub(super) const NO_CAPACITY: u64 = 4325;
    pub(super) const NO_STORAGE: u64 = 4340;
    pub(super) const INVALID_VALUE: u64 = 4350;
    pub(super) const DENIED: u64 = 4365;
    pub(super) const NO_QUOTA: u64 = 4370;
    pub(super) const UNAVAILABLE: u64 = 4380;
    pub(super) const STORAGE_UNAVAILABLE: u64 = 4385;
    pub(super) const TIMED_OUT: u64 = 4560;
    pub(super) const PLAIN: u64 = 9999;
}

impl Refusal {
    pub(super) fn read(code: u64, content: &Map<String, Value>) -> Self {
        let text = content.get("errortext").and_then(Value::as_str).unwrap_or_default();
        Self { code, detail: content.get("cserrorcode").and_then(Value::as_u64), text: one_line(text) }
    }

    /// A number that names nothing the caller may see: an unknown id is refused as a bad parameter. That there is no such project
    /// says nothing of what is looked for in it.
    pub(super) fn is_unknown_id(&self) -> bool {
        let plain = matches!(self.detail, None | Some(detail::PLAIN));
        let is_project = self.text.contains("parameter projectid");
        self.code == 431 && plain && !is_project && self.text.contains("entity does not exist")
    }

    /// The command is not there, or not for this account.
    pub(super) fn is_unknown_command(&self) -> bool {
        matches!(self.code, 401 | 432)
    }

    /// The request was not looked at: ask again later.
    pub(super) fn is_not_now(&self) -> bool {
        matches!(self.code, 429 | 503)
    }

    /// What a caller can act on, whether trying again can help: decided here and nowhere else.
    pub(super) fn judgement(&self) -> (ErrorKind, Retry) {
        match (self.code, self.detail) {
            (_, Some(detail::CONCURRENT)) | (536, _) => (ErrorKind::Busy, Retry::Later),
            (401 | 511 | 531, _) | (_, Some(detail::DENIED)) => (ErrorKind::PermissionDenied, Retry::Never),
            (532 | 533 | 535, _) | (_, Some(detail::NO_CAPACITY | detail::NO_STORAGE | detail::NO_QUOTA)) => {
                (ErrorKind::NoSpace, Retry::Never)
            }
            (429 | 503 | 534, _)
            | (
                _,
                Some(
                    detail::AGENT_UNAVAILABLE
                    | detail::UNAVAILABLE
                    | detail::STORAGE_UNAVAILABLE
                    | detail::TIMED_OUT,
                ),
            ) => (ErrorKind::Unavailable, Retry::Later),
            (400 | 405 | 430 | 431, _) | (_, Some(detail::INVALID_VALUE)) => {
                (ErrorKind::Invalid, Retry::Never)
            }
            (432, _) => (ErrorKind::Unsupported, Retry::Never),
            (537, _) => (ErrorKind::Conflict, Retry::Never),
            _ => (ErrorKind::Unavailable, Retry::Later),
        }
    }

    fn advice(&self) -> &'static str {
        match self.code {
            401 => {
                "; check both keys, that the user is enabled, that its role may call this, and this machine's clock"
            }
            429 => "; too many requests: raise api.throttling.max for this account, or run less at once",
            503 => "; the management server is shutting down or under maintenance: try again when it is back",
            511 => "; use an account without two-factor authentication",
            531 => "; give the account's role the right to do this",
            532 | 535 => "; raise the limits of the account, its domain or its project",
            533 => "; add primary storage or hosts to the zone",
            _ => "",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudStack refuses with {}", self.code)?;
        if let Some(detail) = self.detail {
            write!(f, "/{detail}")?;
        }
        write!(f, ": {}{}", self.text, self.advice())
    }
}

/// A text of somebody else, fit for one line of a log.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64, detail: Option<u64>) -> Refusal {
        Refusal { code, detail, text: "why".to_owned() }
    }

    #[test]
    fn codes_become_what_a_caller_can_act_on() {
        use ErrorKind::{Busy, Invalid, NoSpace, PermissionDenied, Unavailable, Unsupported};
        for (code, detail, kind, retry) in [
            (400, None, Invalid, Retry::Never),
            (401, None, PermissionDenied, Retry::Never),
            (429, None, Unavailable, Retry::Later),
            (431, Some(4350), Invalid, Retry::Never),
            (431, Some(9999), Invalid, Retry::Never),
            (432, None, Unsupported, Retry::Never),
            (503, None, Unavailable, Retry::Later),
            (530, Some(4250), Unavailable, Retry::Later),
            (530, Some(4285), Unavailable, Retry::Later),
            (530, Some(4300), Busy, Retry::Later),
            (530, Some(4340), NoSpace, Retry::Never),
            (530, Some(4365), PermissionDenied, Retry::Never),
            (531, None, PermissionDenied, Retry::Never),
            (533, None, NoSpace, Retry::Never),
            (535, Some(4370), NoSpace, Retry::Never),
            (536, None, Busy, Retry::Later),
            (777, None, Unavailable, Retry::Later),
        ] {
            assert_eq!(refusal(code, detail).judgement(), (kind, retry), "{code} {detail:?}");
        }
    }

    #[test]
    fn an_unknown_id_is_no_other_bad_parameter() {
        let text = "Unable to execute API command listvolumes due to invalid value. Invalid parameter id value=x due to \
                    incorrect long value format, or entity does not exist";
        let unknown = Refusal { text: text.to_owned(), ..refusal(431, Some(9999)) };
        assert!(unknown.is_unknown_id());
        assert!(!Refusal { code: 530, ..unknown.clone() }.is_unknown_id());
        let project = text.replace("parameter id", "parameter projectid");
        assert!(!Refusal { text: project, ..unknown.clone() }.is_unknown_id());
        assert!(!Refusal { detail: Some(4350), ..unknown }.is_unknown_id());
        assert!(!refusal(431, Some(9999)).is_unknown_id());
    }

    #[test]
    fn a_text_of_the_server_stays_on_one_short_line() {
        let mut content = Map::new();
        content.insert("errortext".to_owned(), Value::String(format!("a\nb\u{1b}{}", "x".repeat(9999))));
        let line = Refusal::read(530, &content).to_string();
        assert!(line.starts_with("CloudStack refuses with 530: a b x"), "{line}");
        assert!(line.len() < 500 && !line.contains('\n'));
    }
}
