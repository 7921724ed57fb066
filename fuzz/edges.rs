//! What is fuzzed of the API: each reader of a part of a request, with what must hold whatever its bytes are.
//!
//! The fuzzer includes this file (`fuzz_targets/`), and so does a test of the API that runs everywhere (`api/src/tests/fuzz.rs`): one
//! set of targets, two ways to run them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use kindred_api::fuzzing as api;
use kindred_members::{Identifier, MemberError, Solution, fuzzing as members, one_line};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

targets![identifier, password, token, solution, segment, parameters, trace, visitor, precondition, cookie, authorization, body];

type Reader = fn(&str) -> Result<Identifier, MemberError>;

/// A username, a phone or an e-mail address. It is refused, or its canonical form is accepted as itself: who registers under it once
/// more, or signs in with it, is the same person.
pub fn identifier(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let regions = ["CN", "DE", "US"].map(str::to_owned);
    let line = one_line(text);
    assert!(!line.chars().any(char::is_control) && one_line(&line) == line);
    let all: [Reader; 3] =
        [|text| Identifier::username(text, "Shop"), |text| Identifier::phone(text, &["CN".to_owned()]), Identifier::email];
    for of in all {
        if let Ok(accepted) = of(text) {
            assert_eq!(one_line(&accepted.shown), accepted.shown, "nothing in it hides or breaks a line");
            assert_eq!(of(&accepted.shown).map(|again| again.canonical), Ok(accepted.canonical.clone()), "as it is shown");
            // A name may grow in lower case, past what is accepted.
            if let Ok(again) = of(&accepted.canonical) {
                assert_eq!(again.canonical, accepted.canonical, "as it is unique");
            }
            let account = Identifier::of_account(&accepted.shown, &regions).expect("whoever has it can sign in with it");
            assert_eq!((account.kind, account.canonical), (accepted.kind, accepted.canonical), "as what it was registered");
        }
    }
    if let Ok(name) = Identifier::username(text, "Shop") {
        let wide = |c: char| if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xfee0).expect("full width") } else { c };
        for other in [text.to_ascii_uppercase(), text.chars().map(wide).collect(), format!(" {text}\u{a0}")] {
            if let Ok(same) = Identifier::username(&other, "Shop") {
                assert_eq!(same.canonical, name.canonical, "{other:?} looks like it");
            }
        }
    }
    if let Ok(phone) = Identifier::phone(text, &regions) {
        assert!(phone.canonical.starts_with('+') && phone.canonical[1..].bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(Identifier::phone(&phone.canonical, &regions).map(|again| again.canonical), Ok(phone.canonical));
    }
    if let Ok(email) = Identifier::email(text) {
        assert!(email.canonical.is_ascii() && email.canonical.eq_ignore_ascii_case(text.trim()));
    }
}

/// A password that somebody wants to have: it is judged, the same each time, and never by a panic.
pub fn password(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let verdict = members::judge(text);
    assert_eq!(members::judge(text), verdict);
    let known = [None, Some("password_short"), Some("password_long"), Some("password_breached"), Some("password_weak")];
    assert!(known.contains(&verdict), "{verdict:?}");
}

/// What the sealed values of this target are for, and for what not.
const PURPOSES: [&str; 2] = ["member cursor", "challenge"];

/// A link's token, a refresh token, a sealed cursor: it is refused, or its parts make it up. Nobody seals but we.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((member, secret)) = members::link_token(text) {
        assert!(!member.is_empty() && !member.contains('.') && format!("{member}.{secret}") == text);
    }
    if let Some(parts) = members::refresh_token(text) {
        assert_eq!(parts.join("."), text);
        assert!(!parts.iter().any(|part| part.contains('.')));
    }
    if let Some(value) = members::unseal::<(String, i64)>(PURPOSES[0], text) {
        assert_eq!(members::seal(PURPOSES[0], &value), text, "a text that we did not write was taken for ours");
        assert_eq!(
            members::unseal::<(String, i64)>(PURPOSES[1], text),
            None,
            "what was sealed for one thing is good for another"
        );
    }
    let value = (text.to_owned(), text.len() as i64);
    let sealed = members::seal(PURPOSES[0], &value);
    let back = members::unseal::<(String, i64)>(PURPOSES[0], &sealed);
    assert!(back == Some(value) || sealed.len() > 4_096);
}

/// A solved challenge, as a browser sends it. It counts for as many bits as its digest begins with, counted one by one.
pub fn solution(bytes: &[u8]) {
    let Ok(solution) = api::object::<Solution>(bytes) else { return };
    let digest = Sha256::digest(format!("{}.{}", solution.token, solution.nonce));
    let bits = (0..128).take_while(|bit| digest[bit / 8] & (0x80 >> (bit % 8)) == 0).count() as u32;
    let taken = solution.nonce.len() <= 64;
    assert_eq!(members::solves(&solution, bits), taken);
    assert!(!members::solves(&solution, bits + 1));
}

/// A segment of a path: what it decodes to, byte by byte; what is no UTF-8 then is refused.
pub fn segment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(api::segment(text), String::from_utf8(percent_decoded(bytes)).ok());
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(api::segment(&encoded).as_deref(), Some(text));
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

const KNOWN: &[&str] = &["limit", "cursor", "q", "as_of"];

/// A query. Each parameter is known and given once, its value is what a form would have sent, and the page after it is asked for
/// with the same ones.
pub fn parameters(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(given) = api::query(text, KNOWN) else { return };
    let pairs: Vec<&str> = text.split('&').filter(|pair| !pair.is_empty()).collect();
    assert_eq!(given.len(), pairs.len(), "one was dropped, or given twice");
    let form_decoded = |text: &str| String::from_utf8(percent_decoded(text.replace('+', " ").as_bytes())).ok();
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let pair = (form_decoded(name).expect("it was taken"), form_decoded(value).expect("it was taken"));
        assert!(given.iter().any(|(name, value)| (*name, value) == (&*pair.0, &pair.1)), "{pair:?}");
    }
    let next = api::opaque(&(text, 7));
    assert_eq!(api::cursor::<(String, i64)>(&format!("cursor={next}")), (next.len() <= 4_089).then(|| (text.to_owned(), 7)));
    if text.len() + next.len() < 4_000 && !text.contains(['<', '>']) {
        let link = api::next_page(text, &next);
        let mut expected: Vec<_> = given.into_iter().filter(|(name, _)| *name != "cursor").collect();
        expected.push(("cursor", next));
        let mut found = api::query(&link, KNOWN).expect("our own link reads");
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{link}");
    }
    if let Some(cursor) = api::cursor::<(String, i64)>(text) {
        assert_eq!(api::cursor(&format!("cursor={}", api::opaque(&cursor))), Some(cursor));
    }
}

/// A `traceparent`: the trace it names, if it is as W3C has it; always one that can stand in a log.
pub fn trace(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let trace = api::trace(text);
    assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    assert_ne!(trace, "0".repeat(32));
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if let [version, id, parent, flags] = text.split('-').collect::<Vec<_>>()[..]
        && hex(version, 2)
        && hex(id, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && id.bytes().any(|byte| byte != b'0')
    {
        assert_eq!(trace, id);
    }
}

/// The address of a connection, a line each for it, its `X-Forwarded-For` and its `Accept-Language`. Nobody but a proxy of ours says
/// where a request comes from, and whoever is behind one does not choose it.
pub fn visitor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(3, '\n');
    let (peer, forwarded) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let _ = api::language(lines.next().unwrap_or_default());
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a net")).into();
    let ours = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    assert_eq!(api::address(None, forwarded, &trusted), "");
    let Ok(peer) = peer.parse::<IpAddr>() else { return };
    let peer = peer.to_canonical();
    let found = api::address(Some(peer), forwarded, &trusted);
    let address: IpAddr = found.parse().expect("it is an address");
    assert_eq!(address.to_canonical().to_string(), found, "one address has one text");
    assert_eq!(api::address(Some(peer), forwarded, &[]), peer.to_string(), "nobody is trusted unless named");
    if !ours(&peer) {
        assert_eq!(address, peer, "a stranger said where it comes from");
    }
    if address != peer {
        let hops: Vec<_> = forwarded.split(',').map(|hop| api::hop(hop).map(|hop| hop.to_canonical())).collect();
        let at = hops.iter().rposition(|hop| *hop == Some(address)).expect("it was sent by a proxy");
        assert!(hops[at + 1..].iter().all(|hop| hop.as_ref().is_some_and(ours)), "a hop in between is none of ours");
    }
    if !ours(&address) {
        for spoofed in ["203.0.113.9", "10.0.0.9", "nonsense", ""] {
            assert_eq!(api::address(Some(peer), &format!("{spoofed},{forwarded}"), &trusted), found, "{spoofed} was believed");
        }
    }
    let group = members::address_group(&found);
    assert!(!group.is_empty() && (address.is_ipv6() || group == found));
}

/// `If-Match` and `If-None-Match`: what is named as a version is given out as an `ETag` that names it again.
pub fn precondition(bytes: &[u8]) {
    let Some(text) = header(bytes) else { return };
    let etag = HeaderValue::from_static("\"5f\"");
    if api::names(text, &etag) {
        assert!(text.trim() == "*" || text.contains("\"5f\""));
    }
    if api::names_version(text, "5f") {
        assert!(api::names(text, &etag), "what is named strongly is named weakly");
    }
    match api::version(Some(text)) {
        Ok(None) => assert_eq!(text.trim(), "*"),
        Ok(Some(version)) => {
            let etag = api::etag(&version).expect("it came in a header");
            let written = etag.to_str().expect("it came as text");
            assert_eq!(api::version(Some(written)), Ok(Some(version.clone())));
            for list in [text.to_owned(), format!("W/{written}"), format!("\"x,y\" ,{written}"), format!("{written}, \"z\"")] {
                assert!(api::names(&list, &etag), "{list}");
            }
            assert!(api::names_version(text, &version) && !api::names_version(&format!("W/{written}"), &version));
        }
        Err(status) => assert!([400, 412].contains(&status)),
    }
    // What stands behind a tag does not take it away.
    assert!(api::names(&format!("\"5f\", {text}"), &etag));
}

/// A text that may stand in a header.
fn header(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    HeaderValue::from_bytes(bytes).ok()?.to_str().is_ok().then_some(text)
}

const REFRESH: &str = "__Host-kindred-refresh";

/// Cookies, a line each header: ours is found where it stands once, whatever else is sent, and nothing else is taken for it.
pub fn cookie(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut headers = HeaderMap::new();
    headers.insert("kindred-csrf", HeaderValue::from_static("1"));
    headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
    let mut sent = Vec::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            sent.extend(value.to_str().unwrap_or_default().split(';').map(|pair| pair.trim().to_owned()));
            headers.append("cookie", value);
        }
    }
    let begin = format!("{REFRESH}=");
    let ours: Vec<&str> = sent.iter().filter_map(|pair| pair.strip_prefix(&begin)).collect();
    let expected = if let [one] = ours[..] { Some(one).filter(|value| !value.is_empty()) } else { None };
    assert_eq!(api::refresh_cookie(&headers).as_deref(), expected);
    let mut foreign = headers.clone();
    foreign.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
    assert_eq!(api::refresh_cookie(&foreign), None, "another site's page used it");
    headers.append("cookie", HeaderValue::from_static("__Host-kindred-refresh=a.b.c.d"));
    let alone = ours.is_empty().then(|| "a.b.c.d".to_owned());
    assert_eq!(api::refresh_cookie(&headers), alone, "of two nobody knows which is ours");
}

/// `Authorization` and a key in the query: one of them, and of the one scheme.
pub fn authorization(bytes: &[u8]) {
    let Some(text) = header(bytes) else { return };
    assert_eq!(api::presented(None, Some(text)).as_deref(), Some(text));
    assert_eq!(api::presented(Some(text), Some(text)), None, "which of two was meant?");
    if let Some(token) = api::presented(Some(text), None) {
        assert!(text[..7].eq_ignore_ascii_case("bearer ") && text[7..].trim() == token);
        assert_eq!(api::presented(Some(&format!("Bearer {token}")), None), Some(token));
    }
}

/// A form as our routes have them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    name: String,
    #[serde(default)]
    count: u32,
    address: Option<Place>,
    #[serde(default)]
    tags: Vec<Place>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    name: String,
    #[serde(rename = "a/b~c", default)]
    odd: Option<bool>,
}

/// A body: it is read, or what is wrong with it is pointed at. What is pointed at is there, or missing where it should be.
pub fn body(bytes: &[u8]) {
    let value = serde_json::from_slice::<Value>(bytes).ok();
    match api::object::<Form>(bytes) {
        Ok(form) => {
            assert!(value.is_none_or(|value| value.is_object()));
            let written = serde_json::to_vec(&form).expect("it serialises");
            assert_eq!(api::object::<Form>(&written), Ok(form));
        }
        Err(None) => assert_eq!(value, None, "JSON was taken for none"),
        Err(Some((pointer, code))) => {
            let Some(value) = value else { return };
            // Of a field that is given twice the value has the last alone.
            let once = serde_json::to_vec(&value).expect("it serialises");
            if api::object::<Form>(&once).err() != Some(Some((pointer.clone(), code))) {
                return;
            }
            let (parent, _) = pointer.rsplit_once('/').unwrap_or_default();
            match code {
                "missing_field" => {
                    assert_eq!(value.pointer(&pointer), None, "{pointer} is not missing");
                    assert!(value.pointer(parent).is_some_and(Value::is_object), "{pointer}");
                }
                "unknown_field" | "duplicate_field" | "invalid" => {
                    assert!(value.pointer(&pointer).is_some(), "{code} {pointer:?}");
                }
                other => panic!("{other}"),
            }
        }
    }
}
