//! `kindred forget`: a member's account is erased, and the member leaves every view, and in time the raw log.
//!
//! ```text
//! asked ──▶ known? ──▶ account, sessions ──▶ erased record in the log ──▶ views ──▶ the mark from which raw_days are counted
//! ```

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use kindred_config::Loaded;
use kindred_log::EventLog;
use kindred_members::MemberError;
use kindred_model::records::{Invalid, MemberRecord, Membership};
use kindred_model::views::get;
use kindred_model::views::inputs::{Members, knows};
use kindred_model::{MemberId, Owner, Position, Topic};
use kindred_store::ViewStore;

use crate::app::App;
use crate::ask::confirm;
use crate::audit::Audit;
use crate::cli::TargetArgs;
use crate::failure::{Failure, exit};
use crate::installation::{Installation, Open};
use crate::local::Local;
use crate::remote::{AnswerError, Remote, Target, segment, text};

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

/// How often what follows from an erased account is tried; the next server goes on with what is left.
const SWEEPS: usize = 5;

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
    let (position, raw_by) = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => on_server(&remote, &member, args.unknown)?,
        Target::Here(place) => {
            let installation = app.runtime.block_on(Installation::open(&place, loaded, Open::Existing, "forget"))?;
            let raw_by = app.clock.today().plus(loaded.settings.erasure.raw_days);
            (in_installation(app, loaded, installation, &member, args.unknown)?.to_string(), raw_by.to_string())
        }
    };
    println!("{member} is forgotten: in no view from position {position} on, durably");
    println!("  the raw records leave the log by {raw_by}, while `kindred serve` or `kindred pipeline` runs");
    Ok(exit::FINE)
}

fn nobody(member: &MemberId) -> anyhow::Error {
    Failure::new(format!("nobody of the id {member} is known: no account, no record, no event; nothing was erased"))
        .help("an id is never used again once it is forgotten; --unknown forgets it all the same, before anything comes of it")
        .into()
}

fn on_server(remote: &Remote, member: &MemberId, unknown: bool) -> Result<(String, String)> {
    let only = if unknown { "" } else { "?known=true" };
    let receipt = remote.delete(&format!("/v1/members/{}{only}", segment(member.as_str()))).map_err(|error| match error
        .downcast_ref::<AnswerError>(
    ) {
        Some(answer) if answer.status == 404 => nobody(member),
        _ => error,
    })?;
    Ok((text(&receipt["position"]).to_owned(), text(&receipt["raw_erased_by"]).to_owned()))
}

fn in_installation(app: &App, loaded: &Loaded, installation: Installation, member: &MemberId, unknown: bool) -> Result<Position> {
    let audit = app.runtime.block_on(Audit::open(&installation, loaded, &app.clock))?;
    let local = Local::start(app, loaded, installation)?;
    // The erased record copies who invited the member, so everything that the log says of that must be taken in first.
    let end = app.runtime.block_on(local.installation.log.end()).context("could not read the end of the log")?;
    local.wait_for(app, &end, |_| ())?;
    let (log, store) = (Arc::clone(&local.installation.log), Arc::clone(&local.installation.store));
    let in_views = {
        let snapshot = store.snapshot().context("could not read the store")?;
        knows(&*snapshot.rows, member).context("could not read what is known of the member")?
    };
    // The account first: nobody signs in any more while the views follow.
    let erased = app.runtime.block_on(erase(&audit, &*log, &*store, member, in_views || unknown));
    let position = local.stop(app)?;
    if !erased? {
        return Err(nobody(member));
    }
    let mark = format!("erased:{member}");
    app.runtime.block_on(async {
        // From when `erasure.raw_days` are counted; the API and the pipeline note it in the same form.
        if store.named().get(&mark).await.context("could not read the store")?.is_none() {
            let now = app.clock.now().to_string();
            store.named().put(&mark, now.as_bytes()).await.context("could not note the erasure")?;
        }
        Ok(position)
    })
}

/// Erases the account, and appends the erased record, unless that is there already. Whether there was anybody.
async fn erase(audit: &Audit, log: &dyn EventLog, store: &dyn ViewStore, member: &MemberId, known: bool) -> Result<bool> {
    let account = match audit.members() {
        None => false,
        Some(members) => match members.erase_member(audit.actor(), member.as_str()).await {
            Ok(_) => {
                for _ in 0..SWEEPS {
                    if members.sweep().await.context("could not give the account's names free")? == 0 {
                        break;
                    }
                }
                true
            }
            Err(MemberError::NotFound) => false,
            Err(error) => return Err(Failure::new(format!("could not erase the account: {error}")).into()),
        },
    };
    if !account && !known {
        return Ok(false);
    }
    if !account {
        audit.note("member.erase", member.as_str(), true, &[("account", "none")]).await?;
    }
    append_erased(log, store, member).await?;
    Ok(true)
}

async fn append_erased(log: &dyn EventLog, store: &dyn ViewStore, member: &MemberId) -> Result<()> {
    let known = {
        let snapshot = store.snapshot().context("could not read the store")?;
        get::<Members>(&*snapshot.rows, &Owner::Member(member.clone())).context("could not read the member's record")?
    };
    let known = known.map(|row| MemberRecord::decode(&row.0)).transpose().map_err(|error| Failure::new(error.to_string()))?;
    let known = match known {
        Some(record) if record.is_erased() => return Ok(()),
        Some(MemberRecord::Member(membership)) => Some(membership),
        _ => None,
    };
    let erased = MemberRecord::Member(Membership::erased(member.clone(), known));
    log.append(Topic::Members, vec![erased.canonical()], None).await.context("could not append to the log")?;
    Ok(())
}
