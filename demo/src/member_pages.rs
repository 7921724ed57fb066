//! The files of the pages: the shop's own, and those of accounts: registration, sign-in, profile.
//!
//! ```text
//! pages/members/shell.html + the main part of a page ──▶ /register, /sign-in, …   their scripts call the API
//!                            texts.json (zh-CN, en) ──▶ their texts
//! ```

use std::borrow::Cow;

/// A served file.
pub(crate) struct File {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its content.
    pub content: Cow<'static, str>,
}

const SHELL: &str = include_str!("../pages/members/shell.html");
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        /// (name, main part, script). The name is the path.
        const PAGES: &[(&str, &str, &str)] = &[$((
            $name,
            include_str!(concat!("../pages/members/", $name, ".html")),
            include_str!(concat!("../pages/members/", $name, ".js")),
        )),*];
    };
}

pages![
    "register",
    "verify-email",
    "sign-in",
    "reset-password",
    "verify-new-email",
    "account",
    "mailbox",
    "agreement",
    "browse",
    "not-found"
];

/// (name, type, content) of shared files.
const SHARED: &[(&str, &str, &str)] = &[
    ("members.css", "text/css; charset=utf-8", include_str!("../pages/members/members.css")),
    ("texts.json", "application/json; charset=utf-8", include_str!("../pages/members/texts.json")),
    ("texts.js", SCRIPT, include_str!("../pages/members/texts.js")),
    ("api.js", SCRIPT, include_str!("../pages/members/api.js")),
    ("page.js", SCRIPT, include_str!("../pages/members/page.js")),
    ("work.js", SCRIPT, include_str!("../pages/members/work.js")),
];

/// (path, type, content) of the shop's own page.
const SHOP: &[(&str, &str, &str)] = &[
    ("", HTML, include_str!("../pages/index.html")),
    ("demo/shop.css", "text/css; charset=utf-8", include_str!("../pages/shop.css")),
    ("demo/shop.js", SCRIPT, include_str!("../pages/shop.js")),
];

/// The file under a path, if there is one.
pub(crate) fn file(path: &str) -> Option<File> {
    let path = path.strip_prefix('/')?;
    if let Some((_, content_type, content)) = SHOP.iter().find(|(name, ..)| *name == path) {
        return Some(File { content_type, content: (*content).into() });
    }
    let Some(asked) = path.strip_prefix("demo/members/") else {
        let (name, main, _) = PAGES.iter().find(|(name, ..)| *name == path)?;
        let content = SHELL.replace("{{script}}", name).replace("{{main}}", main.trim_end());
        return Some(File { content_type: HTML, content: content.into() });
    };
    if let Some((_, content_type, content)) = SHARED.iter().find(|(name, ..)| *name == asked) {
        return Some(File { content_type, content: (*content).into() });
    }
    let (.., script) = PAGES.iter().find(|(name, ..)| asked.strip_suffix(".js") == Some(name))?;
    Some(File { content_type: SCRIPT, content: (*script).into() })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn html(name: &str) -> String {
        file(&format!("/{name}")).unwrap().content.into_owned()
    }

    /// Key → (English, Chinese).
    fn texts() -> BTreeMap<String, [String; 2]> {
        let (_, _, texts) = SHARED.iter().find(|(name, ..)| *name == "texts.json").unwrap();
        serde_json::from_str(texts).unwrap()
    }

    /// Everything between two delimiters.
    fn between(text: &str, before: &str, after: char) -> Vec<String> {
        text.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(found, _)| found.to_owned()).collect()
    }

    fn is_key(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    }

    /// The arguments of a call, without nested calls.
    fn arguments(call: &str) -> String {
        let mut depth = 0;
        let open = |character: &char| {
            depth += match character {
                '(' | '{' | '[' => 1,
                ')' | '}' | ']' => -1,
                _ => 0,
            };
            depth
        };
        let depths: Vec<i32> = call.chars().collect::<Vec<_>>().iter().map(open).collect();
        call.chars().zip(depths).take_while(|(_, depth)| *depth >= 0).filter(|(_, depth)| *depth == 0).map(|(c, _)| c).collect()
    }

    /// The literal text in each call of a function.
    fn said_by(script: &str, function: &str, literals_before: usize) -> Vec<String> {
        let calls = script.split(function).skip(1).map(arguments);
        let literals = |call: String| call.split('"').skip(1).step_by(2).nth(literals_before).map(str::to_owned);
        calls.filter_map(literals).filter(|literal| is_key(literal)).collect()
    }

    /// If it failed, a page would fail for lack of a text, or have it in one language only.
    #[test]
    fn every_text_is_there_in_both_languages_and_used() {
        let texts = texts();
        for (key, [en, zh]) in &texts {
            assert!(!en.trim().is_empty() && !zh.trim().is_empty(), "{key} is empty");
            // Chinese has no plural: {count|message|messages} needs {count} and nothing else.
            let name = |value: String| value.split('|').next().unwrap_or_default().to_owned();
            let values = |text| between(text, "{", '}').into_iter().map(name).collect::<BTreeSet<_>>();
            assert_eq!(values(en), values(zh), "{key} has other values in the other language");
        }
        let mut used = BTreeSet::new();
        for (name, ..) in PAGES {
            let html = html(name);
            for attribute in ["data-t", "data-t-label", "data-hint", "data-required"] {
                used.extend(between(&html, &format!(" {attribute}=\""), '"'));
            }
        }
        let scripts: Vec<&str> = PAGES.iter().map(|(.., script)| *script).chain(SHARED.iter().map(|(.., text)| *text)).collect();
        for script in scripts.iter().filter(|script| script.starts_with("//")) {
            used.extend(said_by(script, "say(", 0));
            used.extend(said_by(script, "said(", 1));
            used.extend(said_by(script, " text(", 0));
        }
        let missing: Vec<_> = used.iter().filter(|key| !texts.contains_key(*key)).collect();
        assert!(missing.is_empty(), "texts.json has no {missing:?}");
        // Some keys depend on a choice, or on a value of the API.
        let built = |key: &str| ["kind_", "tier_", "channel_", "for_", "order_"].iter().any(|begin| key.starts_with(begin));
        let named = |key: &str| scripts.iter().any(|script| script.starts_with("//") && script.contains(&format!("\"{key}\"")));
        let idle: Vec<_> = texts.keys().filter(|key| !used.contains(*key) && !built(key) && !named(key)).collect();
        assert!(idle.is_empty(), "no page says {idle:?}");
    }

    /// If it failed, a page would fail on a value of the API without a text: one favourite emptied the history (issue 12).
    #[test]
    fn whatever_the_api_names_has_its_text() {
        use kindred_model::records::OrderStatus::{Cancelled, Completed, Paid, Placed, Refunded, Shipped};
        use kindred_model::{Kind, Tier};
        let orders = [Placed, Paid, Shipped, Completed, Cancelled, Refunded];
        let named = |prefix: &str, names: Vec<&str>| names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
        let mut keys = named("kind_", Kind::ALL.iter().map(|kind| kind.name()).chain(["dismiss"]).collect());
        keys.extend(named("tier_", Tier::ALL.iter().map(|tier| tier.name()).collect()));
        keys.extend(named("order_", orders.iter().map(|status| status.name()).collect()));
        keys.extend(named("for_", vec!["registered", "vip", "svip"]));
        keys.extend(named("channel_", vec!["mail", "phone"]));
        assert!(keys.len() > 20, "{keys:?}");
        let texts = texts();
        let missing: Vec<_> = keys.iter().filter(|key| !texts.contains_key(*key)).collect();
        assert!(missing.is_empty(), "texts.json has no {missing:?}");
    }

    /// If it failed, Chinese texts would have half-width punctuation.
    #[test]
    fn chinese_texts_have_full_width_punctuation() {
        for (key, [_, zh]) in texts() {
            let mut rest: &str = &zh;
            let mut words = String::new();
            while let Some((before, (_, after))) =
                rest.split_once('{').and_then(|(before, value)| Some((before, value.split_once('}')?)))
            {
                words.push_str(before);
                rest = after;
            }
            words.push_str(rest);
            assert!(!words.contains([',', ':', ';', '?', '!', '(', ')']), "{key}: {zh}");
        }
    }

    /// If it failed, a number would have the wrong noun: "1 messages".
    #[test]
    fn a_number_before_a_word_in_the_plural_chooses_the_word() {
        // Values that are numbers in the scripts.
        let numbers = ["{count}", "{seconds}", "{minutes}", "{missing}"];
        for (key, [en, _]) in texts() {
            for number in numbers.iter().filter(|number| en.contains(*number)) {
                let after = en.split_once(number).map_or("", |(_, after)| after.trim_start());
                let word = after.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
                assert!(!word.ends_with('s') || after.starts_with('{'), "{key}: {en}");
            }
        }
    }

    /// If it failed, a page would be unusable with a screen reader or without a mouse.
    #[test]
    fn every_field_has_a_label_and_every_id_is_one() {
        for (name, ..) in PAGES {
            let html = html(name);
            let ids = between(&html, " id=\"", '"');
            let unique: BTreeSet<_> = ids.iter().collect();
            assert_eq!(ids.len(), unique.len(), "{name} has an id twice");
            for field in ["<input id=\"", "<select id=\""].iter().flat_map(|begin| between(&html, begin, '"')) {
                assert!(html.contains(&format!("<label for=\"{field}\"")), "{name}: {field} has no label");
            }
            assert_eq!(html.matches("<h1").count(), 1, "{name} has one h1");
            for referred in between(&html, "aria-labelledby=\"", '"') {
                assert!(unique.contains(&referred), "{name}: nothing is called {referred}");
            }
            assert!(!html.contains("tabindex=\"1\"") && !html.contains("autofocus"), "{name} moves the focus order");
        }
    }

    /// The content security policy forbids it, so a browser would ignore it.
    #[test]
    fn no_page_has_a_script_or_a_style_within() {
        for (name, ..) in PAGES {
            let html = html(name);
            assert!(!html.contains("style=") && !html.contains("<style"), "{name}");
            for listener in [" onclick=", " onsubmit=", " oninput=", " onload=", "javascript:"] {
                assert!(!html.contains(listener), "{name} has a listener within");
            }
            assert_eq!(html.matches("<script").count(), html.matches("<script src=\"/demo/members/").count(), "{name}");
            assert!(!html.contains("{{"), "{name} has a gap");
        }
        assert!(file("/demo/members/").is_none() && file("/demo/members/shell.html").is_none() && file("/none").is_none());
    }
}
