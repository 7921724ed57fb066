//! The two cookies of the shop's own pages, and what keeps other sites from using them (V3.3, V3.5).
//!
//! ```text
//! Set-Cookie: __Host-kindred-refresh   the refresh token: no script reads it      Secure; HttpOnly; SameSite=Strict; Path=/
//!             __Host-kindred-device    marks the browser of a member (V6.1.1)     the same
//! ◀── a request with either: `Kindred-Csrf: 1` (no form sends it) and the same origin
//! ```

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use warp::reply::Response;

use crate::problem::{Code, Problem};

/// Carries the refresh token.
const REFRESH: &str = "__Host-kindred-refresh";
/// Carries [`kindred_members::Grant::device`].
const DEVICE: &str = "__Host-kindred-device";
/// How long a browser is known, seconds: the longest that browsers keep a cookie (400 days).
const DEVICE_S: i64 = 400 * 86_400;
/// With the value `1` it shows that a script of the page asks: a form cannot set it, and other origins are not let.
const CSRF: &str = "kindred-csrf";

/// The browser that asks.
#[derive(Debug)]
pub(crate) struct Browser {
    refresh: Option<SecretString>,
    device: Option<SecretString>,
    same_origin: bool,
}

impl Browser {
    /// Of the headers of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let cookie = |name| cookie(headers, name).map(Into::into);
        Self { refresh: cookie(REFRESH), device: cookie(DEVICE), same_origin: is_same_origin(headers) }
    }

    /// Asks for the shop's own page, before a cookie is read or set.
    ///
    /// # Errors
    /// A 403.
    pub fn own_page(&self) -> Result<(), Problem> {
        if self.same_origin { Ok(()) } else { Err(Problem::new(Code::CrossSite, Code::CrossSite.meaning())) }
    }

    /// Whether there is a refresh token in a cookie.
    pub fn has_refresh(&self) -> bool {
        self.refresh.is_some()
    }

    /// The refresh token of the cookie, for the shop's own page.
    ///
    /// # Errors
    /// A 403 for any other; a 401 where there is none.
    pub fn refresh(&self) -> Result<&SecretString, Problem> {
        self.own_page()?;
        let none = || Problem::new(Code::Unauthenticated, "there is neither a refresh_token nor a cookie with one");
        self.refresh.as_ref().ok_or_else(none)
    }

    /// The mark of the browser, where its own page asks.
    pub fn device(&self) -> Option<String> {
        self.device.as_ref().filter(|_| self.same_origin).map(|device| device.expose_secret().to_owned())
    }
}

/// Keeps the refresh token in the browser for so many seconds.
pub(super) fn keep_refresh(response: &mut Response, token: &SecretString, seconds: i64) {
    set(response, REFRESH, token.expose_secret(), seconds);
}

/// Has the browser forget it.
pub(super) fn drop_refresh(response: &mut Response) {
    set(response, REFRESH, "", 0);
}

/// Marks the browser.
pub(super) fn keep_device(response: &mut Response, device: &str) {
    set(response, DEVICE, device, DEVICE_S);
}

fn set(response: &mut Response, name: &str, value: &str, seconds: i64) {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}", seconds.max(0));
    let mut header = HeaderValue::from_str(&text).expect("tokens are of base64 and dots");
    header.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, header);
}

/// A cookie; one that is sent twice is none, since nobody knows which is ours.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// What the browser says of the page that asks. `Sec-Fetch-Site` is the browser's own word, and not sent where there is no TLS; there
/// and in older ones `Origin` has to name the host that is asked.
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
    host.zip(one("host")).is_some_and(|(of_page, asked)| of_page.eq_ignore_ascii_case(asked))
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
