//! What the server refuses with: error codes of the API and of its exceptions.

use serde_json::{Value, json};
use uuid::Uuid;

/// An error as the API tells it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    /// HTTP status and `errorcode`.
    pub(crate) code: u16,
    /// `cserrorcode`, the class of the exception; absent on a plain 401 and 400.
    pub(crate) class: Option<u32>,
    pub(crate) text: String,
    /// `uuidList`: what the text is about.
    pub(crate) about: Vec<(Uuid, &'static str)>,
    /// Header `Retry-After` in seconds.
    pub(crate) retry_after: Option<u32>,
}

impl ApiError {
    fn new(code: u16, class: Option<u32>, text: impl Into<String>) -> Self {
        Self { code, class, text: text.into(), about: Vec::new(), retry_after: None }
    }

    /// `InvalidParameterValueException`.
    pub(crate) fn parameter(text: impl Into<String>) -> Self {
        Self::new(431, Some(4350), text)
    }

    /// A parameter refused before the command saw it: `ServerApiException`.
    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::new(431, Some(9999), text)
    }

    /// `CloudRuntimeException`.
    pub(crate) fn runtime(text: impl Into<String>) -> Self {
        Self::new(530, Some(4250), text)
    }

    /// A violated key of the database and other exceptions without a class of their own.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(530, Some(9999), text)
    }

    /// `PermissionDeniedException`.
    pub(crate) fn denied(text: impl Into<String>) -> Self {
        Self::new(531, Some(4365), text)
    }

    /// `ResourceAllocationException`: a quota.
    pub(crate) fn quota(text: impl Into<String>) -> Self {
        Self::new(535, Some(4370), text)
    }

    /// The plain 401: bad key, bad signature, expired, unknown command.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401, None, "unable to verify user credentials and/or request signature")
    }

    /// 400.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(400, None, text)
    }

    /// 429 of the rate limiter.
    pub(crate) fn throttled(retry_after: Option<u32>) -> Self {
        let text = "The given user has reached his/her account api limit, please retry after 1000 ms.";
        Self { retry_after, ..Self::new(429, Some(4545), text) }
    }

    /// 503 of a management server that shuts down.
    pub(crate) fn unavailable() -> Self {
        Self::new(
            503,
            Some(9999),
            "Maintenance or Shutdown has been initiated on this management server. Can not accept new jobs",
        )
    }

    /// The same code, `errorresponse` says the resize command although the parameter is at fault.
    pub(crate) fn with_code(self, code: u16) -> Self {
        Self { code, ..self }
    }

    /// Names what the text is about.
    pub(crate) fn about(mut self, id: Uuid, what: &'static str) -> Self {
        self.about.push((id, what));
        self
    }

    /// The body below the key of the response.
    pub(crate) fn body(&self) -> Value {
        let list: Vec<_> =
            self.about.iter().map(|(id, what)| json!({"uuid": id, "description": what})).collect();
        let mut body = json!({"uuidList": list, "errorcode": self.code, "errortext": self.text});
        if let Some(class) = self.class {
            body["cserrorcode"] = json!(class);
        }
        body
    }

    /// `jobresult` of a job that failed with it.
    pub(crate) fn job_result(&self) -> Value {
        json!({"errorcode": self.code, "errortext": self.text})
    }
}
