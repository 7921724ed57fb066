//! The cookies of the shop's own pages, and their protection against other sites (V3.3, V3.5).
//!
//! ```text
//! Set-Cookie: __Host-kindred-refresh   the refresh token, hidden from scripts    Secure; HttpOnly; SameSite=Strict; Path=/
//!             __Host-kindred-device    identifies the browser (V6.1.1)           the same
//! ◀── a request with either: `Kindred-Csrf: 1` (no form can send it) and the same origin
//! ```

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use warp::reply::Response;

use crate::problem::{Code, Problem};

const REFRESH: &str = "__Host-kindred-refresh";
const DEVICE: &str = "__Host-kindred-device";
/// Lifetime of the device cookie, seconds: the maximum of browsers (400 days).
const DEVICE_S: i64 = 400 * 86_400;
/// Required value `1`: forms cannot set a header, and CORS forbids it to other origins.
const CSRF: &str = "kindred-csrf";

/// The cookies of a request.
#[derive(Debug)]
pub(crate) struct Browser {
    refresh: Option<SecretString>,
    device: Option<SecretString>,
    same_origin: bool,
}

impl Browser {
    pub fn of(headers: &HeaderMap) -> Self {
        let cookie = |name| cookie(headers, name).map(Into::into);
        Self { refresh: cookie(REFRESH), device: cookie(DEVICE), same_origin: is_same_origin(headers) }
    }

    /// A 403 unless the request comes from the shop's own page.
    pub fn own_page(&self) -> Result<(), Problem> {
        if self.same_origin { Ok(()) } else { Err(Problem::new(Code::CrossSite, Code::CrossSite.meaning())) }
    }

    pub fn has_refresh(&self) -> bool {
        self.refresh.is_some()
    }

    /// The refresh token of the cookie. Errors: 403 for other pages, 401 without a cookie.
    pub fn refresh(&self) -> Result<&SecretString, Problem> {
        self.own_page()?;
        let none = || Problem::new(Code::Unauthenticated, "the refresh token is missing");
        self.refresh.as_ref().ok_or_else(none)
    }

    /// The device token, on the shop's own pages.
    pub fn device(&self) -> Option<String> {
        self.device.as_ref().filter(|_| self.same_origin).map(|device| device.expose_secret().to_owned())
    }
}

/// Sets the refresh cookie.
pub(super) fn keep_refresh(response: &mut Response, token: &SecretString, seconds: i64) {
    set(response, REFRESH, token.expose_secret(), seconds);
}

/// Deletes the refresh cookie.
pub(super) fn drop_refresh(response: &mut Response) {
    set(response, REFRESH, "", 0);
}

/// Sets the device cookie.
pub(super) fn keep_device(response: &mut Response, device: &str) {
    set(response, DEVICE, device, DEVICE_S);
}

fn set(response: &mut Response, name: &str, value: &str, seconds: i64) {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}", seconds.max(0));
    let mut header = HeaderValue::from_str(&text).expect("tokens are of base64 and dots");
    header.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, header);
}

/// A cookie; none if sent twice, since either could be forged.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Uses `Sec-Fetch-Site`; without it (no TLS, older browsers) `Origin` must match `Host`.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    if one(CSRF) != Some("1") {
        return false;
    }
    if headers.contains_key("sec-fetch-site") {
        return one("sec-fetch-site") == Some("same-origin");
    }
    let host = one("origin").and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    host.zip(one("host")).is_some_and(|(page, host)| page.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// If it failed, another site's page could use the cookie of whoever visits it.
    #[test]
    fn v3_5_1_the_shops_own_page_alone() {
        let csrf = ("kindred-csrf", "1");
        let host = ("host", "shop.example:8080");
        for own in [
            vec![csrf, ("sec-fetch-site", "same-origin")],
            vec![csrf, host, ("origin", "https://shop.example:8080")],
            vec![csrf, host, ("origin", "http://SHOP.example:8080")],
        ] {
            assert!(is_same_origin(&headers(&own)), "{own:?}");
        }
        for foreign in [
            vec![("sec-fetch-site", "same-origin")],
            vec![host, ("origin", "https://shop.example:8080")],
            vec![csrf],
            vec![csrf, host],
            vec![csrf, ("origin", "https://shop.example:8080")],
            vec![csrf, host, ("origin", "https://evil.example")],
            vec![csrf, host, ("origin", "https://shop.example")],
            vec![csrf, host, ("origin", "null")],
            vec![csrf, host, ("origin", "https://shop.example:8080"), ("origin", "https://evil.example")],
            vec![csrf, host, ("origin", "https://shop.example:8080"), ("sec-fetch-site", "same-site")],
            vec![csrf, ("sec-fetch-site", "cross-site")],
            vec![csrf, ("sec-fetch-site", "none")],
            vec![("kindred-csrf", "0"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!is_same_origin(&headers(&foreign)), "{foreign:?}");
        }
    }

    #[test]
    fn a_cookie_that_is_sent_twice_is_none() {
        let read = |text: &str| cookie(&headers(&[("cookie", text)]), REFRESH).map(str::to_owned);
        assert_eq!(read("a=1; __Host-kindred-refresh=x.y; b=2").as_deref(), Some("x.y"));
        assert_eq!(read("__Host-kindred-refresh=x; __Host-kindred-refresh=y"), None);
        assert_eq!(read("kindred-refresh=x; __host-kindred-refresh=y"), None);
        assert_eq!(read("__Host-kindred-refresh="), None);
    }
}
