//! Which passwords are taken (R12, ASVS V6.2): long enough, not common, not breached, not made of a word that everybody who wants in
//! tries first, and hard to guess. No rules of composition, no truncation, no change of case.

use std::collections::HashSet;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use sha1::{Digest, Sha1};
use zxcvbn::zxcvbn;

use crate::error::{MemberError, Result};
use kindred_config::members::{PasswordConfig, PasswordProfile};

/// Longest password in bytes: far beyond any passphrase, and a bound on the work of a hash. Longer ones are refused, never cut.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// NIST SP 800-63B-4 where a password is the only factor.
const NIST_MIN: usize = 15;
/// Characters that are estimated at once. zxcvbn's work grows with the square of the length. Of a longer password its
/// beginning and its end are estimated, and one of them has to be hard to guess.
const ESTIMATED_CHARS_MAX: usize = 40;
/// Signs that stand for letters, as zxcvbn knows them, and how many different ones it is shown: its work doubles with each. The others
/// are shown as a sign that it does not know: that of a common password would hide it, so one as short as those are is shown as it is.
const LEET: &str = "4@8({[<369!1|70$5+%2";
const LEET_KINDS_MAX: usize = 4;
const SHOWN_WHOLE_CHARS_MAX: usize = 20;
const NO_LEET: char = '·';
/// zxcvbn carries the 30,000 most common passwords, 11,611 of which have 8 characters and more (V6.2.4 asks for 3,000). One of them,
/// whatever its capitals, takes at most this many guesses.
const COMMON_GUESSES: u64 = 60_000;
/// zxcvbn's score 3 begins at 10^8 + 5 guesses, and 8 characters that it knows nothing about take 10^8: by the score alone, nothing of 8
/// characters would ever be taken, against V6.2.1. So 10^8 it is.
const STRONG_GUESSES: u64 = 100_000_000;
/// Shorter context words stand in too many good passwords by chance.
const CONTEXT_CHARS_MIN: usize = 4;
/// What has to be left of a password without its context words.
const BEYOND_CONTEXT_CHARS_MIN: usize = 8;
/// Hex digits by which breached passwords are compared: 60 bits, by chance one password in some 10^9 for a list of 10^9.
const BREACHED_DIGITS: usize = 15;
/// Fewest digits that a line of the file may have.
const BREACHED_DIGITS_MIN: usize = 10;

/// The rules for passwords.
pub(crate) struct Policy {
    min: usize,
    staff_min: usize,
    shop_words: Vec<String>,
    /// By length of prefix in hex digits, so that a file may hold prefixes of any length from 10.
    breached: HashSet<u64>,
    breached_lengths: Vec<usize>,
}

impl Policy {
    /// Of the settings; reads the file of breached passwords.
    pub fn new(config: &PasswordConfig, shop_name: &str) -> Result<Self> {
        let least = match config.profile {
            PasswordProfile::Asvs => config.min_length,
            PasswordProfile::Nist => config.min_length.max(NIST_MIN),
        };
        let (breached, breached_lengths) = match &config.breached_file {
            path if path.as_os_str().is_empty() => (HashSet::new(), Vec::new()),
            path => read_breached(path)?,
        };
        let shop_words = words_of(shop_name).collect();
        Ok(Self { min: least, staff_min: config.staff_min_length.max(least), shop_words, breached, breached_lengths })
    }

    /// Fewest characters.
    pub fn min(&self, staff: bool) -> usize {
        if staff { self.staff_min } else { self.min }
    }

    /// Whether it is long enough for staff: a member who is given a role may have a shorter one.
    pub fn fits_staff(&self, password: &SecretString) -> bool {
        password.expose_secret().chars().count() >= self.staff_min
    }

    /// Whether its length is accepted: what is cheap to say, before anything else.
    ///
    /// # Errors
    /// `password_short`, `password_long`.
    pub fn fits(&self, password: &SecretString, staff: bool) -> Result<()> {
        let password = password.expose_secret();
        let refused = |code| Err(MemberError::field("password", code));
        if password.len() > PASSWORD_BYTES_MAX {
            return refused("password_long");
        }
        if password.chars().count() < self.min(staff) {
            return refused("password_short");
        }
        Ok(())
    }

    /// Whether the password may be taken, by somebody whose own words (username, e-mail, phone) are `own`. It takes milliseconds: not
    /// for the threads that serve requests.
    ///
    /// # Errors
    /// As [`Self::fits`]; `password_breached`, `password_weak`.
    pub fn check(&self, password: &SecretString, own: &[&str], staff: bool) -> Result<()> {
        self.fits(password, staff)?;
        let password = crate::validate::password(password.clone());
        let password = password.expose_secret();
        let refused = |code| Err(MemberError::field("password", code));
        let mut context = self.shop_words.clone();
        context.extend(own.iter().flat_map(|text| words_of(text.split('@').next().unwrap_or(text))));
        // A whole e-mail address is nobody's secret either; its host alone is no word of the person.
        let is_own = own.iter().any(|text| text.to_lowercase() == password.to_lowercase());
        if is_own || self.is_breached(password) || made_of(password, &context) {
            return refused("password_breached");
        }
        let context: Vec<&str> = context.iter().map(String::as_str).collect();
        match guesses(password, &context) {
            few if few <= COMMON_GUESSES => refused("password_breached"),
            some if some < STRONG_GUESSES => refused("password_weak"),
            _ => Ok(()),
        }
    }

    fn is_breached(&self, password: &str) -> bool {
        let digest = Sha1::digest(password.as_bytes());
        self.breached_lengths.iter().any(|&digits| self.breached.contains(&prefix(&digest, digits)))
    }
}

/// How many guesses a password takes, by zxcvbn. One that it cannot judge is none that everybody knows, and not good enough.
fn guesses(password: &str, context: &[&str]) -> u64 {
    let chars: Vec<char> = password.chars().collect();
    let head = &chars[..chars.len().min(ESTIMATED_CHARS_MAX)];
    let tail = &chars[chars.len().saturating_sub(ESTIMATED_CHARS_MAX)..];
    let of = |part: &[char]| {
        let mut kinds: Vec<char> = Vec::new();
        let shown = |&c: &char| {
            if !LEET.contains(c) || kinds.contains(&c) {
                return c;
            }
            if kinds.len() == LEET_KINDS_MAX && chars.len() > SHOWN_WHOLE_CHARS_MAX {
                return NO_LEET;
            }
            kinds.push(c);
            c
        };
        let shown: String = part.iter().map(shown).collect();
        // Others' code on what a stranger wrote: its panics are its own.
        let estimate = std::panic::catch_unwind(|| zxcvbn(&shown, context).guesses());
        estimate.unwrap_or(COMMON_GUESSES + 1)
    };
    let first = of(head);
    if first >= STRONG_GUESSES || chars.len() <= ESTIMATED_CHARS_MAX { first } else { first.max(of(tail)) }
}

/// The first `digits` hex digits of a digest, with their number above them.
fn prefix(digest: &[u8], digits: usize) -> u64 {
    let first = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 20 bytes"));
    (first >> (64 - 4 * digits)) | ((digits as u64) << 60)
}

fn read_breached(path: &Path) -> Result<(HashSet<u64>, Vec<usize>)> {
    let name = path.display();
    let failed = |why: String| MemberError::Internal(format!("could not read the breached passwords in {name}: {why}"));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut breached = HashSet::new();
    let mut lengths = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let hex = line.split(':').next().unwrap_or_default().trim();
        if hex.is_empty() {
            continue;
        }
        let digits = hex.len().min(BREACHED_DIGITS);
        if digits < BREACHED_DIGITS_MIN || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(failed(format!("line {} is no SHA-1 in hex of at least {BREACHED_DIGITS_MIN} digits", number + 1)));
        }
        let value = u64::from_str_radix(&hex[..digits], 16).expect("hex digits were checked");
        breached.insert(value | ((digits as u64) << 60));
        if !lengths.contains(&digits) {
            lengths.push(digits);
        }
    }
    Ok((breached, lengths))
}

/// Its words in lower case, those that are long enough to tell, and the whole without what stands between them.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase();
    let whole: String = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    let mut words: Vec<String> = lower.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
    words.push(whole);
    words.retain(|word| word.chars().count() >= CONTEXT_CHARS_MIN);
    words.into_iter()
}

/// Whether too little is left of a password without the context words in it (V6.2.11).
fn made_of(password: &str, context: &[String]) -> bool {
    let lower = password.to_lowercase();
    let mut rest = lower.clone();
    for word in context {
        rest = rest.replace(word.as_str(), "");
    }
    rest.len() < lower.len() && rest.chars().count() < BEYOND_CONTEXT_CHARS_MIN
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn verdict(policy: &Policy, password: &str) -> Option<&'static str> {
        match policy.check(&password.into(), &["margaret", "someone.else@example.com"], false) {
            Ok(()) => None,
            Err(MemberError::Invalid(errors)) => Some(errors[0].code),
            Err(other) => panic!("{other}"),
        }
    }

    fn policy() -> Policy {
        Policy::new(&PasswordConfig::default(), "Kindred Shop").unwrap()
    }

    /// V6.2.1, V6.2.9, V6.2.5: 7 are too few; 8, 64 and 128 are taken; no rule of composition.
    #[test]
    fn v6_2_1_v6_2_9_v6_2_5_length_alone() {
        let policy = policy();
        assert_eq!(verdict(&policy, "Xk#9q.Z"), Some("password_short"));
        assert_eq!(verdict(&policy, "qzvwkxjp"), None, "lower case alone, hard to guess");
        for length in [64, 128, 1_024] {
            let text: String = (0..length).map(|i| char::from(b'a' + (i * i * 7 + i * 3) as u8 % 26)).collect();
            assert_eq!(verdict(&policy, &text), None, "{length}");
        }
        assert_eq!(verdict(&policy, &"x".repeat(1_025)), Some("password_long"));
        for password in ["aaaaaaaaaaaaaaaa", "Password1!"] {
            assert!(verdict(&policy, password).is_some(), "{password}: judged by strength, whatever characters it has");
        }
        let nist = PasswordConfig { profile: PasswordProfile::Nist, ..PasswordConfig::default() };
        let nist = Policy::new(&nist, "Shop").unwrap();
        assert_eq!((nist.min(false), nist.min(true), policy.min(false), policy.min(true)), (15, 15, 8, 15));
    }

    /// V6.2.4: every one of the 3,000 most common passwords that are long enough, in whatever capitals. The list is the one that
    /// zxcvbn's sources carry.
    #[test]
    fn v6_2_4_the_3000_most_common_passwords() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let asked = std::process::Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked", "--offline", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let manifest = &packages.iter().find(|package| package["name"] == "zxcvbn").unwrap()["manifest_path"];
        let lists = Path::new(manifest.as_str().unwrap()).with_file_name("src").join("frequency_lists.rs");
        let lists = std::fs::read_to_string(lists).unwrap();
        let (_, list) = lists.split_once("PASSWORDS: &str = \"").unwrap();
        let (list, _) = list.split_once('"').unwrap();
        let policy = policy();
        let common: Vec<&str> = list.split(',').filter(|word| word.chars().count() >= policy.min(false)).take(3_000).collect();
        assert_eq!(common.len(), 3_000);
        for password in common {
            assert_eq!(verdict(&policy, password), Some("password_breached"), "{password}");
            assert_eq!(verdict(&policy, &password.to_uppercase()), Some("password_breached"), "{password} in capitals");
        }
    }

    /// V6.2.4, V6.2.11, V6.2.12: common passwords, words of the context, a list of breached ones, without a network.
    #[test]
    fn v6_2_4_v6_2_11_v6_2_12_known_passwords() {
        let policy = policy();
        let common = [
            "password1",
            "PASSWORD1",
            "12345678",
            "iloveyou",
            "qwertyuiop",
            "football",
            "baseball",
            "sunshine",
            "trustno1",
            "1qaz2wsx",
        ];
        let own = SecretString::from("Mara.Quill@harbour-post.example".to_owned());
        assert!(policy.check(&own, &["mara.quill@harbour-post.example"], false).is_err(), "one's own e-mail address");
        assert!(policy.check(&own, &["somebody@else.example"], false).is_ok());
        for password in common {
            assert_eq!(verdict(&policy, password), Some("password_breached"), "{password}");
        }
        for password in ["kindred2026", "Kindred-2026!", "kindredshop", "margaret!!99", "someone.else1", "2026Margaret"] {
            assert_eq!(verdict(&policy, password), Some("password_breached"), "{password}");
        }
        let secret = "correct qzvw battery 7";
        assert_eq!(verdict(&policy, secret), None);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let hex: String = Sha1::digest(secret).iter().map(|byte| format!("{byte:02X}")).collect();
        writeln!(file, "{hex}:3\n{}", &"0123456789abcdef"[..10]).unwrap();
        let config = PasswordConfig { breached_file: file.path().into(), ..PasswordConfig::default() };
        let listed = Policy::new(&config, "Shop").unwrap();
        assert_eq!(verdict(&listed, secret), Some("password_breached"));
        assert_eq!(verdict(&listed, "correct qzvw battery 8"), None);
    }

    /// CPU time of this thread: what others do meanwhile does not count.
    fn cpu_ms(work: impl FnOnce()) -> u128 {
        let now = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            std::time::Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
        };
        let begun = now();
        work();
        (now() - begun).as_millis()
    }

    /// Finding 2: one request of 318 bytes cost 0.8 s, another one panicked. Whatever is written into the form is judged in a time that
    /// a hash takes as well, and is judged.
    #[test]
    fn bad_texts_are_judged_in_bounded_time() {
        let policy = policy();
        let cut = |text: String| text.chars().take(PASSWORD_BYTES_MAX).collect::<String>();
        let seeds = [
            "(@4<{[6|9!1|7+0$5+7%2'*7)",
            "$5",
            "4@8({[<369!1|70$5+%2",
            "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
            "1qaz2wsx3edc",
            "abcabd",
            "aA",
            "2026-11-29",
            "19991231",
            "zzyzx",
            "password",
            "pa$$w0rd!",
            "üñ",
            "密码",
            "\u{308}",
            "01",
            "!@#$%^&*()_+",
            "7890-=\\",
            "qazwsxedcrfvtgbyhnujmik,ol.p;/",
            "0.0.0.0",
            "a1b2c3d4",
            "dvorak',.pyfgcrl/=",
            "1!7|4@8({<0$",
            "|!17lit$5s4@",
        ];
        let mut worst = (0, String::new());
        for seed in seeds {
            for length in [8, 12, 16, 20, 33, 40, 64, 128, 500, 1_024] {
                let repeated = seed.chars().cycle().take(length).collect::<String>();
                let turned = repeated.chars().rev().collect::<String>();
                let mixed = repeated.chars().enumerate().map(|(n, c)| if n % 7 == 3 { 'x' } else { c }).collect();
                for text in [repeated, turned, mixed].map(cut) {
                    let took = cpu_ms(|| drop(policy.check(&text.as_str().into(), &["abcdabcdabcd", "aaaa@example.com"], false)));
                    if took >= worst.0 {
                        worst = (took, text);
                    }
                }
            }
        }
        // Built without optimisation it takes some four times as long.
        let most = if cfg!(debug_assertions) { 400 } else { 100 };
        assert!(worst.0 < most, "{} ms: {}", worst.0, worst.1);
        println!("the worst took {} ms: {}", worst.0, worst.1);
    }
}
