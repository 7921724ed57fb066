//! Conditional writes (RFC 9110, 13.1.1; RFC 6585): whoever changes something names the version that they have seen.

use http::HeaderValue;

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
}
