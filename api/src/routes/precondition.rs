//! Conditional writes (RFC 9110, 13.1.1; RFC 6585): whoever changes something names the version that they have seen.

use http::HeaderValue;

use kindred_members::Seen;

use crate::problem::{Code, Problem};

/// The version that `If-Match` names; `None` for `*`, which is any. Without the header: 428.
///
/// # Errors
/// A 428 without it, a 400 where it is no validator; one that is weak names no version (412).
pub(crate) fn required_version(if_match: Option<&str>) -> Result<Option<String>, Problem> {
    if if_match.is_none() {
        return Err(Problem::new(Code::PreconditionRequired, Code::PreconditionRequired.meaning()));
    }
    optional_version(if_match)
}

/// As [`required_version`], where the header may be missing: any version then.
///
/// # Errors
/// As [`required_version`], but for the 428.
pub(crate) fn optional_version(if_match: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(tag) = if_match.map(str::trim) else { return Ok(None) };
    if tag == "*" {
        return Ok(None);
    }
    if tag.starts_with("W/") {
        return Err(Problem::new(Code::Changed, "If-Match compares strongly, and this ETag is a weak one"));
    }
    match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
        Some(version) if !version.is_empty() && !version.contains('"') => Ok(Some(version.to_owned())),
        _ => Err(Problem::new(Code::MalformedRequest, "If-Match is not one ETag as it was given: in double quotes")),
    }
}

/// What is put whole: `If-None-Match: *` makes it, `If-Match` changes it. Without either: 428.
///
/// # Errors
/// As [`required_version`]; a 400 where both are there, or `If-None-Match` is another.
pub(crate) fn required_seen(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Seen, Problem> {
    match (if_match, if_none_match.map(str::trim)) {
        (None, Some("*")) => Ok(Seen::Absent),
        (_, None) => Ok(required_version(if_match)?.map_or(Seen::Any, Seen::Version)),
        _ => Err(Problem::new(Code::MalformedRequest, "If-None-Match is * alone, and not beside If-Match")),
    }
}

/// Whether `If-None-Match` names a validator (RFC 9110: weak comparison).
pub(crate) fn names(list: &str, etag: &HeaderValue) -> bool {
    let ours = etag.to_str().ok().and_then(|etag| tags(etag).next()).map(|(_, tag)| tag);
    list.trim() == "*" || tags(list).any(|(_, tag)| Some(tag) == ours)
}

/// Whether `If-Match` names a version (RFC 9110, strong comparison: a weak validator never does).
pub(crate) fn names_version(list: &str, version: &str) -> bool {
    list.trim() == "*" || tags(list).any(|(weak, tag)| !weak && tag == version)
}

/// The entity tags of a list (RFC 9110, 8.8.3), as (whether it is weak, what stands in the quotes, in which there may be commas). What
/// is no tag ends it.
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

/// A version as an `ETag`.
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
