//! What people type, in the one form in which it is stored, compared and searched (R9 to R11): username, phone, e-mail, codes, passwords.
//! Sign-up, sign-in, changes and searches all come through here, so that what was typed once is found again as it is typed.

use std::borrow::Cow;
use std::fmt;

use phonenumber::metadata::DATABASE;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_security::{GeneralSecurityProfile, RestrictionLevel, RestrictionLevelDetection};

use crate::error::{FieldError, MemberError, Result};

/// Fewest and most code points of a username (R9).
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 2..=32;
/// Longest text that is looked at for an identifier, in bytes: normalisation is linear, but nobody's name is this long.
const TYPED_BYTES_MAX: usize = 512;
/// Stands in `registration.phone_regions` for every region there is.
const ANY_REGION: &str = "*";
/// Names that would pass for the shop's own. Compared without case, marks between letters, and look-alikes; the shop's name is refused
/// as well.
const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "administration",
    "anonymous",
    "billing",
    "everyone",
    "guest",
    "help",
    "helpdesk",
    "hostmaster",
    "info",
    "kindred",
    "mail",
    "me",
    "moderator",
    "nobody",
    "noreply",
    "null",
    "official",
    "operator",
    "postmaster",
    "root",
    "sales",
    "security",
    "service",
    "setup",
    "shop",
    "staff",
    "store",
    "superuser",
    "support",
    "sysadmin",
    "system",
    "team",
    "undefined",
    "user",
    "webmaster",
    "管理员",
    "系统",
    "客服",
    "官方",
];
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
    /// A name that may be registered: NFKC, 2 to 32 characters, at least one letter, and of letters, digits and `. _ - '` of scripts that
    /// are read together (UTS 39, highly restrictive); unique without case and without look-alikes (R9). `shop` is the shop's name.
    ///
    /// # Errors
    /// `username_invalid`, `username_reserved`.
    pub fn username(text: &str, shop: &str) -> Result<Self> {
        let invalid = || MemberError::field("username", "username_invalid");
        let name = Self::name(text).ok_or_else(invalid)?;
        let allowed = |c: char| c.identifier_allowed() && !invisible(c) && c != ':';
        if !USERNAME_CHARS.contains(&name.shown.chars().count())
            || !name.shown.chars().any(char::is_alphabetic)
            || !name.shown.chars().all(allowed)
            || !name.shown.as_str().check_restriction_level(RestrictionLevel::HighlyRestrictive)
        {
            return Err(invalid());
        }
        let letters = |text: &str| look_of(&fold(text)).chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let own = letters(&name.shown);
        if RESERVED.iter().any(|word| letters(word) == own) || letters(shop) == own {
            return Err(MemberError::field("username", "username_reserved"));
        }
        Ok(name)
    }

    /// A name as whoever has it types it: names that were registered under other rules are among them.
    fn name(text: &str) -> Option<Self> {
        if text.len() > TYPED_BYTES_MAX {
            return None;
        }
        let shown: String = text.trim().nfkc().collect();
        let canonical = fold(&shown);
        let refused = shown.is_empty() || shown.chars().any(|c| c.is_control() || c == '@');
        (!refused).then_some(Self { kind: Kind::Username, shown, canonical })
    }

    /// A number of one of `regions` (`*`: of any) as E.164; a number without `+` or `00` is one of the first. Blanks, dashes, brackets,
    /// dots and slashes between the digits are left out, as `autocomplete="tel"` and address books write them. Region CN keeps the
    /// seed's rule, `^1[3-9]\d{9}$` (R10).
    ///
    /// # Errors
    /// `phone_invalid`; `phone_region` where it is a number of a region that is not accepted. Both name the regions that are.
    pub fn phone(text: &str, regions: &[String]) -> Result<Self> {
        let refused = |code| {
            let named = accepted_regions(regions);
            Err(MemberError::Invalid(vec![FieldError { named, ..FieldError::of("phone", code) }]))
        };
        let allowed = |region: &str| regions.iter().any(|known| known == region || known == ANY_REGION);
        let Some(dialled) = dialled(text) else { return refused("phone_invalid") };
        let first = first_region(regions);
        let chinese = match dialled.strip_prefix("+86") {
            Some(national) => Some(national),
            None if first == "CN" && !dialled.starts_with('+') => Some(&*dialled),
            None => None,
        };
        let canonical = match chinese {
            Some(_) if !allowed("CN") => return refused("phone_region"),
            Some(national) if is_chinese_mobile(national) => format!("+86{national}"),
            Some(_) => return refused("phone_invalid"),
            None => {
                let Ok(number) = phonenumber::parse(first.parse().ok(), &dialled) else { return refused("phone_invalid") };
                if !number.country().id().is_some_and(|id| allowed(&format!("{id:?}"))) {
                    return refused("phone_region");
                }
                if !phonenumber::is_valid(&number) {
                    return refused("phone_invalid");
                }
                number.format().mode(phonenumber::Mode::E164).to_string()
            }
        };
        Ok(Self { kind: Kind::Phone, shown: canonical.clone(), canonical })
    }

    /// An address as HTML5's form field takes it, within RFC 5321: at most 254 octets, 64 before the `@`, a dot in the domain, no line
    /// break anywhere (R11, V1.3.11); blanks around it are left out; unique in lower case.
    ///
    /// # Errors
    /// `email_invalid`.
    pub fn email(text: &str) -> Result<Self> {
        let invalid = || MemberError::field("email", "email_invalid");
        let text = text.trim_matches(blank);
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

    /// What a person types to sign in: an e-mail if it has an `@`, a phone if it can be one, a username otherwise. `None` where it can be
    /// nobody's.
    pub fn of_account(text: &str, regions: &[String]) -> Option<Self> {
        if text.contains('@') {
            return Self::email(text).ok();
        }
        Self::phone(text, regions).ok().or_else(|| Self::name(text))
    }

    /// By what it is claimed: a name by its look, so that two that are taken for each other are not two people's.
    pub(crate) fn unique(&self) -> Cow<'_, str> {
        match self.kind {
            Kind::Username => look_of(&self.canonical).into(),
            Kind::Phone | Kind::Email => self.canonical.as_str().into(),
        }
    }

    /// A name by what it was claimed before looks were compared; and before they were compared in whatever case.
    pub(crate) fn unique_before(&self) -> Option<[String; 2]> {
        let is_name = self.kind == Kind::Username;
        is_name.then(|| [self.shown.to_lowercase().nfkc().collect(), skeleton_of(&self.canonical)])
    }

    /// Whether two are one. What is stored may have been folded by earlier rules.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.canonical == other.canonical || self.kind == Kind::Username && fold(&self.shown) == fold(&other.shown))
    }
}

/// What a text is the beginning of, where it is not told.
pub fn guessed(text: &str) -> Kind {
    match dialled(text) {
        _ if text.contains('@') => Kind::Email,
        Some(_) => Kind::Phone,
        None => Kind::Username,
    }
}

/// The beginning of an identifier as it stands in the index; `None` for a text that cannot be the beginning of one.
pub(crate) fn beginning(kind: Kind, text: &str, regions: &[String]) -> Option<String> {
    let begins = match kind {
        Kind::Username | Kind::Email => fold(text.trim()),
        Kind::Phone => {
            let dialled = dialled(text)?;
            if dialled.starts_with('+') {
                dialled
            } else {
                // As it is typed at home, without the digit that leads out of town.
                let home = DATABASE.by_id(first_region(regions))?;
                let national = home.national_prefix().and_then(|prefix| dialled.strip_prefix(prefix)).unwrap_or(&dialled);
                format!("+{}{national}", home.country_code())
            }
        }
    };
    (!begins.is_empty() && !begins.contains('\0') && begins.len() <= TYPED_BYTES_MAX).then_some(begins)
}

/// A code as it is compared: its digits, without the blanks and dashes that telephones show between them. Other signs stay, and are
/// wrong.
pub(crate) fn code(text: &str) -> String {
    text.chars().take(64).nfkc().filter(|c| !c.is_whitespace() && !invisible(*c) && !dash(*c)).collect()
}

/// A password as it is hashed: composed (NFC), because keyboards and systems differ in how they send `ü` (RFC 8265, NIST SP 800-63B).
/// Nothing else of it is changed.
pub(crate) fn password(typed: SecretString) -> SecretString {
    let text = typed.expose_secret();
    if is_nfc(text) { typed } else { text.nfc().collect::<String>().into() }
}

/// Without case: as Unicode folds it, by way of the lower and the upper case of each character by itself (`ẞ`, `ß` and `SS` are one, and
/// so are `ς` and `Σ`).
fn fold(text: &str) -> String {
    let lower = text.nfkc().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

/// What look-alikes have in common (UTS 39), without case.
fn skeleton_of(folded: &str) -> String {
    fold(&unicode_security::skeleton(folded).collect::<String>())
}

/// The same in whatever case a name is written: `I` looks like `l` and `1`, and is an `i` once it is folded.
fn look_of(folded: &str) -> String {
    skeleton_of(folded).replace('i', "l")
}

fn first_region(regions: &[String]) -> &str {
    regions.iter().map(String::as_str).find(|region| *region != ANY_REGION).unwrap_or("CN")
}

/// The regions that are accepted, with their codes, for people: `CN (+86), DE (+49)`. `None` where all are.
fn accepted_regions(regions: &[String]) -> Option<String> {
    let named = |region: &String| match DATABASE.by_id(region.as_str()) {
        Some(known) => format!("{region} (+{})", known.country_code()),
        None => region.clone(),
    };
    let any = regions.iter().any(|region| region == ANY_REGION);
    (!any).then(|| regions.iter().map(named).collect::<Vec<_>>().join(", "))
}

/// A number as it is dialled: digits, with `+` before those of the whole world. `None` for what is no number.
fn dialled(text: &str) -> Option<String> {
    if text.len() > TYPED_BYTES_MAX {
        return None;
    }
    let mut digits = String::new();
    // `+44 (0)20 …`: the nought is dialled at home alone.
    let text =
        text.nfkc().collect::<String>().replacen("(0)", "", usize::from(text.contains(['+', '＋']) || text.starts_with("00")));
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if digits.is_empty() => digits.push(c),
            '(' | ')' | '[' | ']' | '.' | '/' => {}
            c if blank(c) || dash(c) || invisible(c) => {}
            _ => return None,
        }
    }
    let international = digits.strip_prefix("00").map(|rest| format!("+{rest}"));
    let digits = international.unwrap_or(digits);
    (digits.len() <= 20 && digits.len() > usize::from(digits.starts_with('+'))).then_some(digits)
}

/// White space of one line.
fn blank(c: char) -> bool {
    c == '\t' || c.is_whitespace() && !c.is_control()
}

fn dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// `^1[3-9]\d{9}$`
fn is_chinese_mobile(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 11 && bytes[0] == b'1' && (b'3'..=b'9').contains(&bytes[1]) && bytes.iter().all(u8::is_ascii_digit)
}

/// Format characters that are not seen or that turn the text around: two names that look alike must not be two.
fn invisible(c: char) -> bool {
    matches!(c, '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
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
        let canonical = |text: &str| Identifier::username(text, "Tea House").map(|name| name.canonical).ok();
        assert_eq!(canonical("  Ab ").as_deref(), Some("ab"));
        assert_eq!(canonical("ＡＢ"), canonical("ab"), "full-width letters are the same name");
        assert_eq!(canonical("张三").as_deref(), Some("张三"));
        assert!(canonical(&"x".repeat(32)).is_some());
        let refused = ["", "a", " a ", "a b", "a\nb", "a\u{202e}b", "a\u{200b}b", "a@b", "+86", "13800000000", "a\u{0}b"];
        for text in refused.into_iter().chain([&*"x".repeat(33)]) {
            assert_eq!(canonical(text), None, "{text:?}");
        }
        // Nothing that cannot be seen, no address, no mixture of scripts that look alike.
        let hidden = ["\u{2800}\u{2800}", "a\u{2800}b", "\u{1d173}a\u{1d173}", "a\u{fe0f}b", "m\u{430}ra", "12-34", "a:b", "a/b"];
        for text in hidden.into_iter().chain(["https://evil.example/x", "a<b>", "a\"b", "a&b", "(ab)"]) {
            assert_eq!(canonical(text), None, "{text:?}");
        }
        for text in ["j.doe", "o'neil", "a_b-c", "müller", "Ωμέγα1", "しずか", "مريم", "ab12"] {
            assert!(canonical(text).is_some(), "{text:?}");
        }
        for text in ["admin", "ADMIN", "a.d-min", "ｒｏｏｔ", "ro0t", "TeaHouse", "tea_house", "管理员"] {
            assert!(Identifier::username(text, "Tea House").is_err(), "{text:?} passes for the shop's own");
        }
        assert!(canonical("administrata").is_some());
    }

    /// R9: one person's name, however it is typed. Case folding is that of Unicode for every letter.
    #[test]
    fn names_are_folded_and_compared_by_their_look() {
        assert_eq!(fold("ΣΑΣΑΣ"), fold("σασας"));
        assert_eq!(fold("STRASSE"), fold("straße"));
        assert_eq!(fold("STRAẞE"), fold("straße"));
        for c in ('\0'..=char::MAX).filter(|c| c.is_alphabetic()) {
            let text = c.to_string();
            let folded = fold(&text);
            assert_eq!(fold(&folded), folded, "{c:?}: folding twice");
            assert_eq!(fold(&text.to_uppercase()), folded, "{c:?}: upper case");
            assert_eq!(fold(&text.to_lowercase()), folded, "{c:?}: lower case");
        }
        let unique = |text: &str| Identifier::username(text, "").unwrap().unique().into_owned();
        assert_eq!(unique("paypal"), unique("раураl".replace('l', "\u{4cf}").as_str()), "Cyrillic letters");
        assert_eq!(unique("leo0"), unique("LEOO"));
        for (one, other) in [("MIRA", "MlRA"), ("Ilse", "llse"), ("mila", "m1la"), ("look0ILSE", "look0lLSE")] {
            assert_eq!(unique(one), unique(other), "{one} and {other}");
        }
        for text in ["ADMlN", "servlce", "1nfo", "mai1", "KlNDRED"] {
            assert!(Identifier::username(text, "").is_err(), "{text} looks like a word that is the shop's");
        }
        assert_ne!(unique("leo"), unique("lea"));
    }

    /// If it failed, somebody would register with a number and not be able to sign in as they typed it.
    #[test]
    fn a_phone_is_one_however_it_is_typed() {
        let of = |text: &str, list: &[&str]| Identifier::of_account(text, &regions(list)).map(|id| (id.kind, id.canonical));
        for text in [
            "13800138000",
            "138 0013 8000",
            "138-0013-8000",
            "+86 138 0013 8000",
            "0086 13800138000",
            "(138) 0013.8000",
            "138/0013/8000",
            "１３８００１３８０００",
            " 13800138000\u{3000}",
            "\u{202d}+86 13800138000\u{202c}",
            "138–0013–8000",
        ] {
            assert_eq!(of(text, &["CN"]), Some((Kind::Phone, "+8613800138000".into())), "{text:?}");
        }
        for text in [
            "0151 23456789",
            "0151-23456789",
            "(0151) 23456789",
            "0049 151 23456789",
            "0151/23456789",
            "0151.23456789",
            "+49 (0)151 23456789",
        ] {
            assert_eq!(of(text, &["DE", "GB", "US"]), Some((Kind::Phone, "+4915123456789".into())), "{text:?}");
        }
        assert_eq!(of("+1 202-555-0123", &["CN", "*"]), Some((Kind::Phone, "+12025550123".into())), "any region");
        assert_eq!(of("mara-12", &["CN"]).map(|(kind, _)| kind), Some(Kind::Username));
        let refusal = |text: &str, list: &[&str]| match Identifier::phone(text, &regions(list)) {
            Err(MemberError::Invalid(errors)) => (errors[0].code, errors[0].named.clone().unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal("+44 7400 123456", &["CN"]), ("phone_region", "CN (+86)".into()));
        assert_eq!(refusal("07400 123456", &["CN", "DE"]), ("phone_invalid", "CN (+86), DE (+49)".into()));
        assert_eq!(beginning(Kind::Phone, "0151 2", &regions(&["DE"])).as_deref(), Some("+491512"));
        assert_eq!(beginning(Kind::Phone, "138 0", &regions(&["CN"])).as_deref(), Some("+861380"));
        assert_eq!(beginning(Kind::Phone, "0086 138", &regions(&["CN"])).as_deref(), Some("+86138"));
        assert_eq!(beginning(Kind::Username, "ΣΑΣ", &[]).as_deref(), Some("σασ"));
    }

    /// Telephones show codes in groups.
    #[test]
    fn codes_are_their_digits() {
        for text in ["123456", " 123 456 ", "123-456", "１２３４５６", "123\u{a0}456", "12 34 56\n"] {
            assert_eq!(code(text), "123456", "{text:?}");
        }
        assert_eq!(code("12345a"), "12345a");
        let composed = |text: &str| password(text.to_owned().into()).expose_secret().to_owned();
        assert_eq!(composed("Gru\u{308}ße aus Mu\u{308}nchen"), "Grüße aus München");
        assert_eq!(composed(" A ﬁ "), " A ﬁ ", "nothing else is changed");
    }

    /// R10, exactly the seed's rule in China.
    #[test]
    fn r10_phones() {
        let cn = regions(&["CN"]);
        let phone = |text: &str| Identifier::phone(text, &cn).map(|phone| phone.canonical).ok();
        assert_eq!(phone("13812345678").as_deref(), Some("+8613812345678"));
        assert_eq!(phone("+8619912345678").as_deref(), Some("+8619912345678"));
        for text in
            ["12812345678", "1381234567", "138123456789", "", "1381234567a", "+4915123456789", "13812345678\n", "+", "0086"]
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
