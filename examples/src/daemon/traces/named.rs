//! What the environment says, where the SDK does not read it itself.

use std::env;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::{Error, ErrorKind, Result};
use reqwest::Url;

const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// The specification's.
const LIMIT: Duration = Duration::from_secs(10);

/// How a collector is spoken with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// How long one export may take, with all its attempts.
    pub(super) limit: Duration,
    /// Who certifies the collector, in PEM; else whom the system trusts.
    pub(super) authorities: Option<PathBuf>,
}

impl Named {
    /// Reads the environment; `None` unless it names a collector and does not switch traces off.
    pub(super) fn take() -> Result<Option<Self>> {
        Self::read(|name| env::var(name).ok())
    }

    fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // What is empty counts as not set.
        let value =
            |name: &str| look_up(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, value(name)?)));
        let Some((variable, endpoint)) = first(ENDPOINT) else { return Ok(None) };
        let is_off = value("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || value("OTEL_TRACES_EXPORTER").is_some_and(|value| value.eq_ignore_ascii_case("none"));
        if is_off {
            return Ok(None);
        }
        check(variable, &endpoint)?;
        if let Some((variable, protocol)) = first(PROTOCOL)
            && protocol != "http/protobuf"
        {
            return Err(refused(
                variable,
                "http/protobuf is the only protocol that is spoken; name that, or nothing",
            ));
        }
        let limit = first(TIMEOUT).map(|(variable, text)| {
            let millis = text.parse().ok().filter(|millis| *millis > 0);
            millis
                .map(Duration::from_millis)
                .ok_or_else(|| refused(variable, "it is no number of milliseconds"))
        });
        let authorities = first(CERTIFICATE).map(|(_, path)| path.into());
        Ok(Some(Self { limit: limit.transpose()?.unwrap_or(LIMIT), authorities }))
    }
}

/// The address itself is never told: it may hold a secret, which does not belong there.
fn check(variable: &'static str, endpoint: &str) -> Result<()> {
    let url = Url::parse(endpoint)
        .map_err(|_| refused(variable, "it is no URL, as http://127.0.0.1:4318 is one"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused(variable, "only http:// and https:// are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            variable,
            "a secret in a URL gets into logs; give it by OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    Ok(())
}

/// The error of a variable that says what cannot be.
pub(super) fn refused(variable: impl Display, reason: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, "read", variable).because(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Named>> {
        let of = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        Named::read(of)
    }

    #[test]
    fn nothing_is_sent_unless_a_collector_is_named() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[(ENDPOINT[1], "")]).unwrap(), None);
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "oma")]).unwrap(), None);
        let named = (ENDPOINT[1], "http://127.0.0.1:4318");
        assert_eq!(read(&[named]).unwrap(), Some(Named { limit: LIMIT, authorities: None }));
        assert_eq!(read(&[named, ("OTEL_SDK_DISABLED", "True")]).unwrap(), None);
        assert_eq!(read(&[named, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(), None);
        assert!(read(&[named, ("OTEL_SDK_DISABLED", "no")]).unwrap().is_some());
    }

    #[test]
    fn the_variables_of_traces_go_before_those_of_all() {
        let named = read(&[
            (ENDPOINT[0], "https://collector.example/v1/traces"),
            (ENDPOINT[1], "ftp://elsewhere"),
            (TIMEOUT[0], "250"),
            (TIMEOUT[1], "soon"),
            (CERTIFICATE[1], "/etc/oma/ca.pem"),
        ]);
        let expected =
            Named { limit: Duration::from_millis(250), authorities: Some("/etc/oma/ca.pem".into()) };
        assert_eq!(named.unwrap(), Some(expected));
    }

    #[test]
    fn l29_what_cannot_be_is_refused_by_its_variable_and_never_shown() {
        let good = (ENDPOINT[1], "http://127.0.0.1:4318");
        for wrong in [
            vec![(ENDPOINT[1], "hush")],
            vec![(ENDPOINT[1], "ftp://hush.example")],
            vec![(ENDPOINT[1], "http://me:hush@collector.example")],
            vec![good, (PROTOCOL[1], "hush")],
            vec![good, (TIMEOUT[1], "hush")],
        ] {
            let error = read(&wrong).unwrap_err();
            let told = format!("{} {error:?}", error.chain());
            assert_eq!(error.kind(), ErrorKind::Invalid, "{told}");
            assert!(told.contains("OTEL_EXPORTER_OTLP") && !told.contains("hush"), "{told}");
        }
    }
}
