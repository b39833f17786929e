//! Which headers go through the front door.

use axum::http::HeaderMap;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use coterie_api::replay::JOURNAL;

/// Of one connection, not of the request: RFC 9110, 7.6.1. What `connection` names comes on top.
const OF_ONE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a rank gets of a client's headers. API keys stay here.
pub fn onward(headers: &HeaderMap) -> HeaderMap {
    const OURS: [HeaderName; 5] =
        [HOST, CONTENT_LENGTH, EXPECT, AUTHORIZATION, HeaderName::from_static(JOURNAL)];
    without(headers, &OURS)
}

/// What a client gets of a rank's headers.
pub fn back(headers: &HeaderMap) -> HeaderMap {
    without(headers, &[CONTENT_LENGTH, HeaderName::from_static(JOURNAL)])
}

fn without(headers: &HeaderMap, ours: &[HeaderName]) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let stays = |name: &HeaderName| {
        !OF_ONE_CONNECTION.contains(name) && !ours.contains(name) && !named.iter().any(|n| n == name.as_str())
    };
    headers
        .iter()
        .filter(|(name, _)| stays(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn what_is_of_one_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("traceparent", "00-1-2-01"),
            ("x-request-id", "a"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer key"),
            ("host", "front"),
            ("coterie-journal", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("x-request-id", HeaderValue::from_static("b"));
        let passed = onward(&headers);
        let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["traceparent", "x-request-id"]);
        assert_eq!(passed.get_all("x-request-id").iter().count(), 2);
    }
}
