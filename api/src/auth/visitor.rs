//! The client of a request before authentication: address, language, browser.
//!
//! ```text
//! peer of the connection ──(a trusted proxy? then X-Forwarded-For, from the right)──▶ address
//!                           └─(otherwise X-Forwarded-For is ignored, with one warning)
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use http::header::ACCEPT_LANGUAGE;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use kindred_members::Language;

use crate::api::Api;
use crate::context::Check;
use crate::server::Peer;

/// Longest stored User-Agent.
const LABEL_CHARS_MAX: usize = 200;

#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// The client address (V4.1.3); empty without a connection.
    pub address: String,
    pub language: Language,
    /// The User-Agent.
    pub label: String,
}

impl Visitor {
    pub fn of(api: &Api, peer: Option<Peer>, headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        Self {
            address: address(peer.map(|Peer(address)| address), &forwarded.join(","), &api.config.trusted_proxies),
            language: language_of(api, headers.get(ACCEPT_LANGUAGE)),
            label: header("user-agent").unwrap_or_default().chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect(),
        }
    }
}

/// The language of `Accept-Language`, or the default of the installation.
pub(crate) fn language_of(api: &Api, accepted: Option<&HeaderValue>) -> Language {
    let default = || api.context.members.as_ref().map_or(Language::En, |members| members.config().default_language);
    accepted.and_then(|accepted| language(accepted.to_str().ok()?)).unwrap_or_else(default)
}

/// Detects untrusted proxies: most often the shop's own, missing in the settings, so that all visitors count as one address.
pub(crate) struct Forwarding {
    trusted: Vec<IpNet>,
    /// The first untrusted peer that sent `X-Forwarded-For`.
    untrusted: OnceLock<IpAddr>,
}

impl Forwarding {
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted, untrusted: OnceLock::new() }
    }

    /// Records that a peer sent `X-Forwarded-For`.
    pub fn note(&self, peer: IpAddr) {
        let peer = peer.to_canonical();
        if self.trusted.iter().any(|net| net.contains(&peer)) {
            return;
        }
        metrics::counter!("forwarded_untrusted_total").increment(1);
        if self.untrusted.set(peer).is_ok() {
            tracing::warn!(
                %peer,
                "ignoring X-Forwarded-For from {peer}, which is not in api.trusted_proxies. If it is your proxy, all visitors share \
                 one address and its limits until you set api.trusted_proxies = [\"{peer}\"]",
            );
        }
    }

    /// The entry of `/readyz?verbose`, if there was an untrusted peer.
    pub fn check(&self) -> Option<Check> {
        let peer = self.untrusted.get()?;
        Some(Check {
            name: "trusted_proxies".into(),
            ready: true,
            detail: format!(
                "X-Forwarded-For from {peer} is ignored (not in api.trusted_proxies): its visitors share one address"
            ),
        })
    }
}

/// The nearest address that is not a trusted proxy.
pub(crate) fn address(peer: Option<IpAddr>, forwarded: &str, trusted: &[IpNet]) -> String {
    let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return String::new() };
    let ours = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut address = peer;
    let mut hops = forwarded.rsplit(',').map(hop);
    while ours(&address) {
        match hops.next().flatten() {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address.to_string()
}

/// Parses a hop as proxies write it: with or without port, brackets and quotes.
pub(crate) fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The supported language with the highest weight (RFC 9110, 12.5.4).
pub(crate) fn language(accepted: &str) -> Option<Language> {
    let mut supported: Vec<(u16, Language)> = accepted
        .split(',')
        .filter_map(|range| {
            let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
            let language = match tag.trim().split('-').next()?.to_ascii_lowercase().as_str() {
                "zh" => Language::ZhCn,
                "en" => Language::En,
                _ => return None,
            };
            let weight: f32 = weight.trim().strip_prefix("q=")?.parse().ok()?;
            Some(((weight.clamp(0.0, 1.0) * 1000.0) as u16, language)).filter(|(weight, _)| *weight > 0)
        })
        .collect();
    // Stable: the first of equal weights.
    supported.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    supported.first().map(|(_, language)| *language)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, whoever is to be throttled would choose an address per request.
    #[test]
    fn v4_1_3_v15_3_4_a_forwarded_address_is_a_trusted_proxys_alone() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of = |peer: &str, forwarded: &str| address(Some(peer.parse().unwrap()), forwarded, &trusted);
        assert_eq!(of("192.0.2.1", "203.0.113.9"), "192.0.2.1", "a stranger says what they like");
        assert_eq!(of("10.0.0.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(
            of("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.0.0.2"),
            "203.0.113.9",
            "what a client put first is not believed"
        );
        assert_eq!(of("10.0.0.1", ""), "10.0.0.1");
        assert_eq!(of("10.0.0.1", "nonsense"), "10.0.0.1");
        assert_eq!(of("::ffff:10.0.0.1", "203.0.113.9"), "203.0.113.9");
        for v4 in
            ["203.0.113.9:51234", "\"203.0.113.9:51234\"", " 203.0.113.9 ", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:443"]
        {
            assert_eq!(of("10.0.0.1", v4), "203.0.113.9", "{v4}");
        }
        for v6 in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:51234", "\"[2001:db8::7]:51234\"", "\"[2001:db8::7]\""] {
            assert_eq!(of("10.0.0.1", &format!("198.51.100.7, {v6}, 10.0.0.2:80")), "2001:db8::7", "{v6}");
        }
        for nobody in ["unknown", "_hidden", "[2001:db8::7", "203.0.113.9:", "203.0.113.9:99999", "\"\"", "[]"] {
            assert_eq!(of("10.0.0.1", nobody), "10.0.0.1", "{nobody}");
        }
        assert_eq!(address(None, "203.0.113.9", &trusted), "");
    }

    #[test]
    fn a_language_is_chosen_by_weight() {
        assert_eq!(language("zh-CN,zh;q=0.9,en;q=0.8"), Some(Language::ZhCn));
        assert_eq!(language("de, en;q=0.5, zh;q=0.7"), Some(Language::ZhCn));
        assert_eq!(language("en-GB"), Some(Language::En));
        assert_eq!(language("de, zh;q=0"), None);
        assert_eq!(language(";;,q"), None);
    }
}
