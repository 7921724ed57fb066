//! Conditional requests (RFC 9110, 13.1; RFC 6585).

use http::HeaderValue;

use kindred_members::Seen;

use crate::problem::{Code, Problem};

/// The version of `If-Match`, `None` for `*`. Errors: 428 without the header, 400 if malformed, 412 for a weak validator.
pub(crate) fn required_version(if_match: Option<&str>) -> Result<Option<String>, Problem> {
    if if_match.is_none() {
        return Err(Problem::new(Code::PreconditionRequired, Code::PreconditionRequired.meaning()));
    }
    optional_version(if_match)
}

/// As [`required_version`], but the header is optional.
pub(crate) fn optional_version(if_match: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(tag) = if_match.map(str::trim) else { return Ok(None) };
    if tag == "*" {
        return Ok(None);
    }
    if tag.starts_with("W/") {
        return Err(Problem::new(Code::Changed, "If-Match needs a strong ETag, this one is weak"));
    }
    match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
        Some(version) if !version.is_empty() && !version.contains('"') => Ok(Some(version.to_owned())),
        _ => Err(Problem::new(Code::MalformedRequest, "If-Match is not a single ETag in double quotes")),
    }
}

/// For PUT: `If-None-Match: *` creates, `If-Match` replaces. Errors: as [`required_version`]; 400 for any other combination.
pub(crate) fn required_seen(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Seen, Problem> {
    match (if_match, if_none_match.map(str::trim)) {
        (None, Some("*")) => Ok(Seen::Absent),
        (_, None) => Ok(required_version(if_match)?.map_or(Seen::Any, Seen::Version)),
        _ => Err(Problem::new(Code::MalformedRequest, "If-None-Match must be * and cannot be combined with If-Match")),
    }
}

/// Whether `If-None-Match` matches (RFC 9110: weak comparison).
pub(crate) fn names(list: &str, etag: &HeaderValue) -> bool {
    let ours = etag.to_str().ok().and_then(|etag| tags(etag).next()).map(|(_, tag)| tag);
    list.trim() == "*" || tags(list).any(|(_, tag)| Some(tag) == ours)
}

/// Whether `If-Match` matches (RFC 9110: strong comparison).
pub(crate) fn names_version(list: &str, version: &str) -> bool {
    list.trim() == "*" || tags(list).any(|(weak, tag)| !weak && tag == version)
}

/// Parses a list of entity tags (RFC 9110, 8.8.3) into (weak, opaque tag) up to the first syntax error. Tags may contain commas.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let strong = rest.strip_prefix("W/");
        let (tag, after) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        rest = after.trim_start_matches([' ', '\t']);
        (rest.is_empty() || rest.starts_with(',')).then_some((strong.is_some(), tag))
    })
}

pub(crate) fn etag(version: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("\"{version}\"")).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_strongly() {
        let code = |tag| required_version(tag).err().map(|problem| problem.code);
        assert_eq!(required_version(Some(" \"0a\" ")).ok(), Some(Some("0a".to_owned())));
        assert_eq!(required_version(Some("*")).ok(), Some(None));
        assert_eq!(code(None), Some(Code::PreconditionRequired));
        assert_eq!(code(Some("W/\"0a\"")), Some(Code::Changed));
        for bad in ["", "0a", "\"", "\"\"", "\"a\", \"b\""] {
            assert_eq!(code(Some(bad)), Some(Code::MalformedRequest), "{bad}");
        }
        assert_eq!(optional_version(None).ok(), Some(None));
    }

    #[test]
    fn what_is_put_was_seen() {
        let seen = |if_match, if_none_match| required_seen(if_match, if_none_match).map_err(|problem| problem.code);
        assert_eq!(seen(None, Some("*")).unwrap(), Seen::Absent);
        assert_eq!(seen(Some("*"), None).unwrap(), Seen::Any);
        assert_eq!(seen(Some("\"0a\""), None).unwrap(), Seen::Version("0a".to_owned()));
        assert_eq!(seen(None, None), Err(Code::PreconditionRequired));
        for (if_match, if_none_match) in [(Some("*"), Some("*")), (None, Some("\"0a\"")), (Some("0a"), None)] {
            assert_eq!(seen(if_match, if_none_match), Err(Code::MalformedRequest));
        }
    }

    /// If it failed, a client would be sent what it has, or keep what is not so any more.
    #[test]
    fn a_list_of_tags_is_read_tag_by_tag() {
        let ours = HeaderValue::from_static("\"a,b\"");
        for list in ["*", " * ", "\"a,b\"", "W/\"a,b\"", "\"x\" , W/\"a,b\"", ", ,\"x\",\t\"a,b\""] {
            assert!(names(list, &ours), "{list}");
        }
        for list in ["", "a,b", "\"a\",\"b\"", "W/W/\"a,b\"", "w/\"a,b\"", "\"x\" \"a,b\"", "\"x, \"a,b\"", "*, \"x\"", "\"a,b"] {
            assert!(!names(list, &ours), "{list}");
        }
        for list in ["\"a\"", "\"b\", \"a\"", " * ", "W/\"a\", \"a\""] {
            assert!(names_version(list, "a"), "{list}");
        }
        for list in ["W/\"a\"", "a", "\"b\"", "", "\"a", "\"\""] {
            assert!(!names_version(list, "a"), "{list}");
        }
    }
}
