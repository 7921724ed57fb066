//! Identifiers in their canonical form, by which they are unique: username, phone, e-mail (R9 to R11).

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::error::{MemberError, Result};

/// Fewest and most code points of a username (R9).
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 2..=32;
/// Most octets of an e-mail address (R11, RFC 5321).
pub const EMAIL_BYTES_MAX: usize = 254;

/// Most characters that a line of a log keeps of a text.
const ONE_LINE_CHARS: usize = 512;

/// Which identifier. In the order in which they are claimed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Chosen by the person.
    Username,
    /// E.164.
    Phone,
    /// An address that mail reaches.
    Email,
}

impl Kind {
    /// The word for it in keys and fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Phone => "phone",
            Self::Email => "email",
        }
    }
}

/// An identifier: as shown, and as it is unique.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identifier {
    /// Which.
    pub kind: Kind,
    /// As the person wrote it, normalised.
    pub shown: String,
    /// As it is unique.
    pub canonical: String,
}

impl fmt::Debug for Identifier {
    /// Without the identifier: it is a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({})", self.kind.name())
    }
}

impl Identifier {
    /// Trimmed, NFKC, 2 to 32 code points, no white space, control, format or bidirectional characters, none of `@` and `+` at the
    /// start, which tell an e-mail and a phone apart; unique case-folded (R9).
    ///
    /// # Errors
    /// `username_invalid`.
    pub fn username(text: &str) -> Result<Self> {
        let invalid = || MemberError::field("username", "username_invalid");
        if text.len() > 512 {
            return Err(invalid()); // Normalisation is linear, but nobody's name is this long.
        }
        let shown: String = text.trim().nfkc().collect();
        let canonical: String = shown.to_lowercase().nfkc().collect();
        let looks_like_phone = shown.chars().all(|c| c.is_ascii_digit());
        let refused = shown.chars().any(|c| c.is_whitespace() || c.is_control() || invisible(c) || c == '@');
        if refused || looks_like_phone || shown.starts_with('+') || !USERNAME_CHARS.contains(&shown.chars().count()) {
            return Err(invalid());
        }
        Ok(Self { kind: Kind::Username, shown, canonical })
    }

    /// A number of one of `regions` as E.164; a number without `+` is one of the first. Region CN keeps the seed's rule, exactly
    /// `^1[3-9]\d{9}$` (R10).
    ///
    /// # Errors
    /// `phone_invalid`.
    pub fn phone(text: &str, regions: &[String]) -> Result<Self> {
        let invalid = || MemberError::field("phone", "phone_invalid");
        let allowed = |region: &str| regions.iter().any(|known| known == region);
        let first = regions.first().map_or("CN", String::as_str);
        let chinese = match text.strip_prefix("+86") {
            Some(national) => Some(national),
            None if first == "CN" && !text.starts_with('+') => Some(text),
            None => None,
        };
        let canonical = match chinese {
            Some(national) if allowed("CN") && is_chinese_mobile(national) => format!("+86{national}"),
            Some(_) => return Err(invalid()),
            None => {
                let compact: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
                if compact.len() > 20 {
                    return Err(invalid());
                }
                let region = first.parse().ok();
                let number = phonenumber::parse(region, &compact).map_err(|_| invalid())?;
                let of_region = number.country().id().is_some_and(|id| allowed(&format!("{id:?}")));
                if !of_region || !phonenumber::is_valid(&number) {
                    return Err(invalid());
                }
                number.format().mode(phonenumber::Mode::E164).to_string()
            }
        };
        Ok(Self { kind: Kind::Phone, shown: canonical.clone(), canonical })
    }

    /// An address as HTML5's form field takes it, within RFC 5321: at most 254 octets, 64 before the `@`, a dot in the domain, no line
    /// break anywhere (R11, V1.3.11); unique in lower case.
    ///
    /// # Errors
    /// `email_invalid`.
    pub fn email(text: &str) -> Result<Self> {
        let invalid = || MemberError::field("email", "email_invalid");
        let (local, domain) = text.rsplit_once('@').ok_or_else(invalid)?;
        let local_fits = (1..=64).contains(&local.len())
            && local.bytes().all(|b| b.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&b))
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..");
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let domain_fits = domain.contains('.') && domain.split('.').all(label_fits);
        if text.len() > EMAIL_BYTES_MAX || !local_fits || !domain_fits {
            return Err(invalid());
        }
        Ok(Self { kind: Kind::Email, shown: text.to_owned(), canonical: text.to_ascii_lowercase() })
    }

    /// What a person types to sign in: an e-mail if it has an `@`, a phone if it is digits, a username otherwise. `None` where it can be
    /// nobody's.
    pub fn of_account(text: &str, regions: &[String]) -> Option<Self> {
        let text = text.trim();
        if text.contains('@') {
            Self::email(text).ok()
        } else if text.starts_with('+') || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())) {
            Self::phone(text, regions).ok()
        } else {
            Self::username(text).ok()
        }
    }
}

/// `^1[3-9]\d{9}$`
fn is_chinese_mobile(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 11 && bytes[0] == b'1' && (b'3'..=b'9').contains(&bytes[1]) && bytes.iter().all(u8::is_ascii_digit)
}

/// Format characters that are not seen or that turn the text around: two names that look alike must not be two.
fn invisible(c: char) -> bool {
    matches!(c, '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text of one line for logs, the audit and headers: control characters and line separators become U+FFFD (V16.4.1).
pub fn one_line(text: &str) -> String {
    let mapped = text.chars().map(|c| {
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || invisible(c);
        if breaks { char::REPLACEMENT_CHARACTER } else { c }
    });
    mapped.take(ONE_LINE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(list: &[&str]) -> Vec<String> {
        list.iter().map(|region| (*region).to_owned()).collect()
    }

    /// R9: if it failed, two people could carry one name, or one an invisible one.
    #[test]
    fn r9_usernames() {
        let canonical = |text: &str| Identifier::username(text).map(|name| name.canonical).ok();
        assert_eq!(canonical("  Ab ").as_deref(), Some("ab"));
        assert_eq!(canonical("ＡＢ"), canonical("ab"), "full-width letters are the same name");
        assert_eq!(canonical("张三").as_deref(), Some("张三"));
        assert!(canonical(&"x".repeat(32)).is_some());
        let refused = ["", "a", " a ", "a b", "a\nb", "a\u{202e}b", "a\u{200b}b", "a@b", "+86", "13800000000", "a\u{0}b"];
        for text in refused.into_iter().chain([&*"x".repeat(33)]) {
            assert_eq!(canonical(text), None, "{text:?}");
        }
    }

    /// R10, exactly the seed's rule in China.
    #[test]
    fn r10_phones() {
        let cn = regions(&["CN"]);
        let phone = |text: &str| Identifier::phone(text, &cn).map(|phone| phone.canonical).ok();
        assert_eq!(phone("13812345678").as_deref(), Some("+8613812345678"));
        assert_eq!(phone("+8619912345678").as_deref(), Some("+8619912345678"));
        for text in
            ["12812345678", "1381234567", "138123456789", "", "1381234567a", "+4915123456789", "13812345678\n", "１3812345678"]
        {
            assert_eq!(phone(text), None, "{text:?}");
        }
        let both = regions(&["CN", "DE"]);
        let german = Identifier::phone("+49 1512 3456789", &both).expect("a mobile of the second region");
        assert_eq!(german.canonical, "+4915123456789");
        assert!(Identifier::phone("+12025550123", &both).is_err(), "no region of ours");
    }

    /// R11: what the seed's expression gets wrong is right.
    #[test]
    fn r11_emails() {
        let email = |text: &str| Identifier::email(text).map(|email| email.canonical).ok();
        assert_eq!(email("A.b+c@Example.COM").as_deref(), Some("a.b+c@example.com"));
        let long = format!("{}@{}.com", "a".repeat(64), "b".repeat(63));
        assert!(email(&long).is_some());
        let longest = format!("a@{}.com", vec!["b".repeat(62); 4].join("."));
        assert_eq!((longest.len(), email(&longest)), (257, None));
        for text in [
            "a@c.com!!<x>",
            "a@b",
            "@b.c",
            "a@",
            "a b@c.de",
            "a..b@c.de",
            ".a@c.de",
            "a@-c.de",
            "a@c..de",
            "a@b.c\r\nBcc:",
            "a\n@b.c",
        ] {
            assert_eq!(email(text), None, "{text:?}");
        }
    }

    /// If it failed, a name could forge a line of a log.
    #[test]
    fn v16_4_1_one_line_stays_one_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[31m\u{2028}"), "a\u{fffd}b\u{fffd}\u{fffd}[31m\u{fffd}");
    }
}
