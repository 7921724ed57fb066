//! `kindred forget`: a member leaves every view, and in time the raw log.

use std::sync::Arc;

use anyhow::{Context, Result};
use kindred_config::Loaded;
use kindred_log::EventLog;
use kindred_model::records::{Invalid, MemberRecord, Membership};
use kindred_model::views::get;
use kindred_model::views::inputs::Members;
use kindred_model::{MemberId, Owner, Position, Topic};
use kindred_store::ViewStore;

use crate::app::App;
use crate::cli::ForgetArgs;
use crate::failure::{Failure, exit};
use crate::installation::{Installation, Open};
use crate::local::Local;
use crate::remote::{Target, segment, text};

/// Runs `kindred forget`. Repeating it changes nothing.
///
/// # Errors
/// When the member's identity is none, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &ForgetArgs) -> Result<u8> {
    let member = MemberId::parse(&args.member).map_err(|error: Invalid| Failure::usage(error.to_string()))?;
    let (position, raw_by) = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => {
            let receipt = remote.delete(&format!("/v1/members/{}", segment(member.as_str())))?;
            (text(&receipt["position"]).to_owned(), text(&receipt["raw_erased_by"]).to_owned())
        }
        Target::Here(place) => {
            let installation = app.runtime.block_on(Installation::open(&place, loaded, Open::Existing, "forget"))?;
            let raw_by = app.clock.today().plus(loaded.settings.erasure.raw_days);
            (in_installation(app, loaded, installation, &member)?.to_string(), raw_by.to_string())
        }
    };
    println!("{member} is forgotten: in no view from position {position} on, durably");
    println!("  the raw records leave the log by {raw_by}, while `kindred serve` or `kindred pipeline` runs");
    Ok(exit::FINE)
}

fn in_installation(app: &App, loaded: &Loaded, installation: Installation, member: &MemberId) -> Result<Position> {
    let local = Local::start(app, loaded, installation)?;
    // The erased record copies who invited the member, so everything that the log says of that must be taken in first.
    let end = app.runtime.block_on(local.installation.log.end()).context("could not read the end of the log")?;
    local.wait_for(app, &end, |_| ())?;
    let (log, store) = (Arc::clone(&local.installation.log), Arc::clone(&local.installation.store));
    app.runtime.block_on(erase(&*log, &*store, member))?;
    let position = local.stop(app)?;
    // From when `erasure.raw_days` are counted; the API and the pipeline note it in the same form.
    let mark = format!("erased:{member}");
    app.runtime.block_on(async {
        if store.named().get(&mark).await.context("could not read the store")?.is_none() {
            let now = app.clock.now().to_string();
            store.named().put(&mark, now.as_bytes()).await.context("could not note the erasure")?;
        }
        Ok(position)
    })
}

/// Appends the erased record of a member, unless it is erased already.
async fn erase(log: &dyn EventLog, store: &dyn ViewStore, member: &MemberId) -> Result<()> {
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
