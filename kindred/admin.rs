//! `kindred admin`: members, roles and the audit log, through the API of a running server. The API checks, does and notes it.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use kindred_config::Loaded;
use kindred_model::Day;
use serde_json::{Value, json};

use crate::cli::TargetArgs;
use crate::failure::{Failure, exit};
use crate::remote::{Target, segment, text};

/// `kindred admin`
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// What.
    #[command(subcommand)]
    pub command: AdminCommand,
    /// The server [env: KINDRED_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// The file that its service key is in [env: KINDRED_KEY_FILE]
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Its service key [env: KINDRED_KEY]; whoever lists the processes of the machine sees it: --key-file is better
    #[arg(long, value_name = "KEY", global = true)]
    pub key: Option<String>,
    /// For programs: JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// For people's spreadsheets: lists as CSV, with a header; what a spreadsheet would take for a formula begins with '
    #[arg(long, global = true, conflicts_with = "json")]
    pub csv: bool,
}

/// What `kindred admin` does.
#[derive(Subcommand, Clone, Debug)]
pub enum AdminCommand {
    /// Print a token with which a member becomes staff: once, within the hour
    Create {
        /// The role
        #[arg(long, value_name = "ROLE", default_value = "admin")]
        role: String,
    },
    /// List the tokens of `create` that nobody has entered yet: what each gives, and who made it
    SetupTokens,
    /// Withdraw one of them
    Withdraw {
        /// Its id, as listed
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List members, by what they begin with, or the newest first
    Members {
        /// The beginning of a username, a phone or an e-mail
        #[arg(value_name = "TEXT")]
        q: Option<String>,
        /// registered, activating, activated or suspended
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// A staff role
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        /// normal, vip or svip
        #[arg(long, value_name = "TIER")]
        tier: Option<String>,
        /// Registered on this UTC day or later
        #[arg(long, value_name = "DAY")]
        from: Option<Day>,
        /// Registered on this UTC day or earlier
        #[arg(long, value_name = "DAY")]
        to: Option<Day>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show a member and where they are signed in
    Show {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// Lock a member out: their sessions end at once
    Suspend {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let a member in again
    Activate {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Give a member a staff role, or take it
    Role {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// The role; without it the member's is taken
        #[arg(value_name = "ROLE")]
        role: Option<String>,
    },
    /// Set a member's level: normal, vip or svip
    Tier {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// The level
        #[arg(value_name = "TIER")]
        tier: String,
    },
    /// End all sessions of a member
    EndSessions {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// Send the mail again by which a member proves the address
    Resend {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// List roles and what they may
    Roles,
    /// Show the audit log, the newest first
    Audit {
        /// From this UTC day on
        #[arg(long, value_name = "DAY")]
        from: Option<Day>,
        /// To this UTC day
        #[arg(long, value_name = "DAY")]
        to: Option<Day>,
        /// Who did it
        #[arg(long, value_name = "ID")]
        actor: Option<String>,
        /// To whom
        #[arg(long, value_name = "ID")]
        subject: Option<String>,
        /// What, like member.suspend
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Sign access tokens with a new key; the old one verifies until what it signed has expired
    #[command(visible_alias = "rotate")]
    RotateSigningKeys {
        /// Withdraw the keys before, because one may be known to others: no access token that they signed is taken any more
        #[arg(long)]
        withdraw: bool,
    },
}

/// Runs `kindred admin`.
///
/// # Errors
/// When the server does not answer, or refuses.
pub fn run(args: &AdminArgs, loaded: &Loaded) -> Result<u8> {
    let target = TargetArgs { data: None, url: args.url.clone(), key: args.key.clone(), key_file: args.key_file.clone() };
    let Target::Server(server) = Target::of(&target, loaded)? else {
        return Err(Failure::usage("members are administered through a running server")
            .help("name it with --url and --key-file, or KINDRED_URL and KINDRED_KEY_FILE")
            .into());
    };
    let member = |member: &str, rest: &str| format!("/v1/admin/members/{}{rest}", segment(member));
    match &args.command {
        AdminCommand::Create { role } => {
            let made = server.post("/v1/admin/setup-tokens", &json!({ "role": role }))?;
            if args.json {
                println!("{made}");
            } else {
                println!("{}", text(&made["token"]));
                let minutes = made["expires_in_s"].as_u64().unwrap_or(0) / 60;
                eprintln!(
                    "whoever signs in and enters it under My account (or posts it to /v1/admin/setup) within {minutes} minutes is {role}; \
                     it works once, and what the role may comes with an authenticator app"
                );
            }
        }
        AdminCommand::SetupTokens => {
            let tokens = server.get("/v1/admin/setup-tokens")?;
            lines(args, &tokens, "setup_tokens", &["id", "role", "made_by", "made_at", "expires_at"])?;
        }
        AdminCommand::Withdraw { id } => {
            server.delete(&format!("/v1/admin/setup-tokens/{}", segment(id)))?;
            done(args, &format!("the set-up token {id} is withdrawn"));
        }
        AdminCommand::Members { q, state, role, tier, from, to, limit } => {
            let days = [from, to].map(|day| day.map(|day| day.to_string()));
            let limit = limit.to_string();
            let query = [
                ("q", q.as_deref()),
                ("state", state.as_deref()),
                ("role", role.as_deref()),
                ("tier", tier.as_deref()),
                ("from", days[0].as_deref()),
                ("to", days[1].as_deref()),
                ("limit", Some(limit.as_str())),
            ];
            let page = server.get(&with_query("/v1/admin/members", &query))?;
            lines(args, &page, "members", &["member", "state", "username", "phone", "email", "tier", "role", "registered_at"])?;
        }
        AdminCommand::Show { member: id } => {
            let shown = server.get(&member(id, ""))?;
            let sessions = server.get(&member(id, "/sessions"))?;
            println!("{}", pretty(&json!({ "member": shown, "sessions": sessions["sessions"] })));
        }
        AdminCommand::Suspend { member: id, reason } => {
            server.post(&member(id, "/suspend"), &json!({ "reason": reason }))?;
            done(args, &format!("{id} is suspended, and signed out everywhere"));
        }
        AdminCommand::Activate { member: id, reason } => {
            server.post(&member(id, "/activate"), &json!({ "reason": reason }))?;
            done(args, &format!("{id} may sign in again"));
        }
        AdminCommand::Role { member: id, role } => {
            server.change(&member(id, ""), &member(id, "/role"), &json!({ "role": role }))?;
            let now = role.as_ref().map_or_else(|| "has no staff role any more".to_owned(), |role| format!("is {role}"));
            done(args, &format!("{id} {now}, and has to sign in again"));
        }
        AdminCommand::Tier { member: id, tier } => {
            server.change(&member(id, ""), &member(id, "/tier"), &json!({ "tier": tier }))?;
            done(args, &format!("{id} is {tier}"));
        }
        AdminCommand::EndSessions { member: id } => {
            server.delete(&member(id, "/sessions"))?;
            done(args, &format!("{id} is signed out everywhere"));
        }
        AdminCommand::Resend { member: id } => {
            server.post(&member(id, "/resend-verification"), &json!({}))?;
            done(args, "the mail is on its way");
        }
        AdminCommand::Roles => {
            let roles = server.get("/v1/admin/roles")?;
            lines(args, &roles, "roles", &["name", "built_in", "permissions"])?;
        }
        AdminCommand::Audit { from, to, actor, subject, kind, limit } => {
            let days = [from, to].map(|day| day.map(|day| day.to_string()));
            let limit = limit.to_string();
            let query = [
                ("from", days[0].as_deref()),
                ("to", days[1].as_deref()),
                ("actor", actor.as_deref()),
                ("subject", subject.as_deref()),
                ("kind", kind.as_deref()),
                ("limit", Some(limit.as_str())),
            ];
            let page = server.get(&with_query("/v1/admin/audit", &query))?;
            lines(args, &page, "entries", &["at", "actor", "kind", "subject", "address", "ok"])?;
        }
        AdminCommand::RotateSigningKeys { withdraw } => {
            let path = "/v1/admin/signing-keys/rotate";
            let query = [("withdraw", withdraw.then_some("true"))];
            server.post(&with_query(path, &query), &json!({}))?;
            let what = match withdraw {
                true => "a new key signs; the old ones are withdrawn, and access tokens that they signed are not taken any more",
                false => "a new key signs in some minutes; the old one verifies until what it signed has expired",
            };
            done(args, what);
        }
    }
    Ok(exit::FINE)
}

/// A path with those of the parameters that are given.
fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given: Vec<String> =
        parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?)))).collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// One line each, fields with two spaces between; or CSV for spreadsheets; or JSON, one object a line.
fn lines(args: &AdminArgs, page: &Value, of: &str, fields: &[&str]) -> Result<()> {
    let entries = page[of].as_array().into_iter().flatten();
    if args.json {
        entries.for_each(|entry| println!("{entry}"));
        return Ok(());
    }
    let rows = entries.map(|entry| fields.iter().map(|field| cell(&entry[*field])).collect::<Vec<_>>());
    if args.csv {
        let mut table = csv::Writer::from_writer(std::io::stdout());
        table.write_record(fields)?;
        for row in rows {
            table.write_record(row.iter().map(|cell| neutral(cell).into_owned()))?;
        }
        table.flush()?;
    } else {
        for row in rows {
            let shown = row.iter().map(|cell| if cell.is_empty() { "-" } else { cell });
            println!("{}", shown.collect::<Vec<_>>().join("  "));
        }
    }
    if let Some(cursor) = page["next_cursor"].as_str() {
        eprintln!("there are more: a higher --limit, or the API with cursor={cursor}");
    }
    Ok(())
}

/// A value as people read it; empty where there is none.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(words) => words.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A cell that no spreadsheet takes for a formula (V1.2.10, the OWASP page on CSV injection).
fn neutral(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

fn done(args: &AdminArgs, what: &str) {
    if args.json {
        println!("{}", json!({ "done": true }));
    } else {
        println!("{what}");
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V1.2.10: no username or phone runs as a formula in a spreadsheet.
    #[test]
    fn v1_2_10_a_report_for_people_has_no_formulas() {
        for formula in ["=1+1", "+8613800138001", "-cmd.x", "@x", "\t=1", "\r=1", "\n=1"] {
            assert_eq!(neutral(formula), format!("'{formula}"));
        }
        assert_eq!(neutral("plain=1"), "plain=1");
    }
}
