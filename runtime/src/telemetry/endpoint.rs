//! Where spans go, by the variables that OpenTelemetry defines for all programs.

use hyper::Uri;
use hyper::http::uri::Scheme;

/// The URL to which spans are posted: `flag`, else what `env` gives for OpenTelemetry's variables; none if neither names
/// a collector, or traces are switched off.
pub fn endpoint(flag: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Option<String> {
    // A variable that is empty counts as not set.
    let env = |name| env(name).filter(|value| !value.trim().is_empty());
    if env("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true")) {
        return None;
    }
    if let Some(flag) = flag.filter(|flag| !flag.is_empty()) {
        return Some(flag.to_owned());
    }
    if env("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none") {
        return None;
    }
    let base =
        || env("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| format!("{}/v1/traces", base.trim_end_matches('/')));
    env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(base)
}

/// Says why no span can be posted to `url`.
pub fn check(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("it is not a URL: {error}"))?;
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err("only http:// is spoken to collectors; let one run on the node or in the pod".to_owned());
    }
    // http::Uri wants a host where there is a scheme, but takes an empty one beside a port or a user.
    match uri.host() {
        None | Some("") => Err("it names no host; give http://HOST:PORT/v1/traces".to_owned()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_posted_to_is_refused() {
        for good in ["http://c:4318/v1/traces", "http://127.0.0.1", "http://[::1]:4318/v1/traces"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "junk",
            "",
            "c:4318",
            "https://c:4318/v1/traces",
            "/v1/traces",
            "http://",
            "http://a b",
            "http://:4318",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    fn with(flag: Option<&str>, set: &[(&str, &str)]) -> Option<String> {
        endpoint(flag, |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_more_particular_setting_wins() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/in");
        assert_eq!(with(None, &[]), None);
        assert_eq!(with(None, &[base]).as_deref(), Some("http://all:4318/v1/traces"));
        assert_eq!(with(None, &[base, traces]).as_deref(), Some("http://traces:4318/in"));
        assert_eq!(with(Some("http://flag/t"), &[base, traces]).as_deref(), Some("http://flag/t"));
        assert_eq!(with(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
    }

    #[test]
    fn traces_can_be_switched_off() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        assert_eq!(with(None, &[base, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(with(Some("http://flag"), &[base, ("OTEL_SDK_DISABLED", "true")]), None);
    }
}
