//! `kindred forget`: a member's account is erased, and the member leaves every view, and in time the raw log.

use anyhow::Result;
use clap::Args;
use kindred_config::Loaded;
use kindred_model::MemberId;
use kindred_model::records::Invalid;

use crate::app::App;
use crate::ask::confirm;
use crate::cli::TargetArgs;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::installation::Open;
use crate::remote::{helped, segment, text};

/// `kindred forget`
#[derive(Args, Clone, Debug)]
pub struct ForgetArgs {
    /// The member
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Also an id of which nothing is known: what comes of it later counts nowhere
    #[arg(long)]
    pub unknown: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Runs `kindred forget`. Repeating it changes nothing.
///
/// # Errors
/// When the member's identity is none or nobody's, nobody agreed, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &ForgetArgs) -> Result<u8> {
    let member = MemberId::parse(&args.member)
        .and_then(|member| member.check_named())
        .map_err(|error: Invalid| Failure::usage(error.to_string()))?;
    if !args.yes {
        let loses = format!("forgetting {member} erases the account and takes the person out of every view, for good");
        confirm(&format!("forget {member}: erase the account, and take the person out of every view, for good?"), &loses)?;
    }
    let path = format!("/v1/members/{}{}", segment(member.as_str()), if args.unknown { "" } else { "?known=true" });
    let help = "an id is never used again once it is forgotten; --unknown forgets it all the same, before anything comes of it";
    let client = Client::open(app, loaded, &args.target, Open::Existing, "forget")?;
    let receipt = client.while_views_follow(app, loaded, |api| api.delete(&path).map_err(helped(404, help)))?;
    println!("{member} is forgotten: in no view from position {} on, durably", text(&receipt["position"]));
    println!(
        "  the raw records leave the log by {}, while `kindred serve` or `kindred pipeline` runs",
        text(&receipt["raw_erased_by"])
    );
    Ok(exit::FINE)
}
