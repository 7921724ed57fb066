//! The texts of messages: `templates/NAME.LANGUAGE.txt`, the first line of a mail its subject.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::{Channel, Rendered};
use crate::error::{MemberError, Result};
use crate::validate::one_line;
use kindred_config::members::Language;

macro_rules! templates {
    ($($(#[$doc:meta])* $name:ident = $file:literal $channel:ident),+ $(,)?) => {
        /// Which message.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Template { $($(#[$doc])* $name),+ }

        impl Template {
            /// How it reaches the person.
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => Channel::$channel),+ }
            }

            const fn file(self) -> &'static str {
                match self { $(Self::$name => $file),+ }
            }
        }

        const FILES: &[(&str, &str)] = &[$(
            (concat!($file, ".zh-CN.txt"), include_str!(concat!("../../templates/", $file, ".zh-CN.txt"))),
            (concat!($file, ".en.txt"), include_str!(concat!("../../templates/", $file, ".en.txt"))),
        )+];
    };
}

templates! {
    /// Verify the address to end a registration.
    VerifyEmail = "verify_email" Mail,
    /// Somebody registered with an address that has an account.
    AccountExists = "account_exists" Mail,
    /// The phone, or the name, has an account: to the address given, by whoever proved to have the phone.
    PhoneTaken = "phone_taken" Mail,
    /// Set a new password.
    ResetPassword = "reset_password" Mail,
    /// The password was changed.
    PasswordChanged = "password_changed" Mail,
    /// Verify a new address.
    VerifyNewEmail = "verify_new_email" Mail,
    /// A new address was asked for: to the address that is good until it is verified.
    EmailChangeAsked = "email_change_asked" Mail,
    /// Phone or e-mail were changed: to the address before.
    IdentifierChanged = "identifier_changed" Mail,
    /// A code to a phone.
    PhoneCode = "phone_code" Phone,
}

/// The texts, parsed.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// Those of this crate.
    pub fn new() -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // By name: a text is not HTML and is not escaped, anything else is.
        environment.set_auto_escape_callback(|name| if name.ends_with(".txt") { AutoEscape::None } else { AutoEscape::Html });
        for (name, text) in FILES {
            environment.add_template(name, text).map_err(|error| internal(name, &error))?;
        }
        Ok(Self(environment))
    }

    /// A text with its values in place. What a person wrote stays on one line.
    pub fn render(&self, template: Template, language: Language, params: &BTreeMap<String, String>) -> Result<Rendered> {
        let name = format!("{}.{}.txt", template.file(), language.tag());
        let params: BTreeMap<&str, String> = params.iter().map(|(name, value)| (name.as_str(), one_line(value))).collect();
        let text = self
            .0
            .get_template(&name)
            .and_then(|found| found.render(minijinja::Value::from_pairs(params)))
            .map_err(|error| internal(&name, &error))?;
        Ok(match template.channel() {
            Channel::Phone => Rendered { subject: String::new(), body: text.trim().to_owned() },
            Channel::Mail => {
                let (subject, body) = text.split_once('\n').unwrap_or((&text, ""));
                Rendered { subject: one_line(subject), body: body.trim_start().to_owned() }
            }
        })
    }
}

fn internal(name: &str, error: &minijinja::Error) -> MemberError {
    MemberError::Internal(format!("the template {name} does not render: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a message would stop in the outbox for good when it is first needed.
    #[test]
    fn every_template_renders_in_every_language() {
        let templates = Templates::new().unwrap();
        let params: BTreeMap<String, String> = ["shop", "username", "link", "code", "minutes", "hours", "what"]
            .map(|name| (name.into(), format!("<{name}>")))
            .into();
        use Template as T;
        let all = [
            T::VerifyEmail,
            T::AccountExists,
            T::PhoneTaken,
            T::ResetPassword,
            T::PasswordChanged,
            T::VerifyNewEmail,
            T::EmailChangeAsked,
            T::IdentifierChanged,
            T::PhoneCode,
        ];
        assert_eq!(all.len() * 2, FILES.len());
        for (template, language) in all.into_iter().flat_map(|template| [(template, Language::ZhCn), (template, Language::En)]) {
            let rendered = templates.render(template, language, &params).unwrap();
            assert!(rendered.body.contains("<shop>") || rendered.subject.contains("<shop>"), "{template:?}");
            assert_eq!(rendered.subject.is_empty(), template.channel() == Channel::Phone);
            let narrow = |text: &str| text.chars().any(|c| ",:;()!?".contains(c));
            assert!(
                language == Language::En || !narrow(&rendered.body) && !narrow(&rendered.subject),
                "{template:?}: {rendered:?}"
            );
        }
        let mut forged = params;
        forged.insert("shop".into(), "Shop\r\nBcc: x@y.zz".into());
        let rendered = templates.render(T::VerifyEmail, Language::En, &forged).unwrap();
        assert!(!rendered.subject.contains(['\r', '\n']), "{}", rendered.subject);
        assert!(!rendered.body.contains("\nBcc"), "{}", rendered.body);
    }
}
