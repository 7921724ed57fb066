//! Capacity for another generation: an estimate before anything is built.
//!
//! Memory: baskets are counted from the live generation's merged inputs under the new window; a basket of n items makes at most n
//! (n - 1) directed pairs. Pairs, identities and orders cost what `docs/OPERATIONS.md` (Capacity) says, plus half. Records the
//! live one has not applied are assumed to resemble the others. Disk: twice the larger of live store and log, since a compaction
//! holds old and new.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use kindred_model::records::OrderRecord;
use kindred_model::views::inputs::{Interactions, Orders};
use kindred_model::views::scan;
use kindred_model::{Position, Semantics};

use super::replay::ReplayFrom;
use crate::failure::{Failure, bytes, thousands};
use crate::installation::Installation;

/// A directed pair of the similarity view, with rows and lists (measured: 11 to 12).
const PAIR_BYTES: u64 = 12;
/// An identity with its names.
const IDENTITY_BYTES: u64 = 64;
/// An order in memory.
const ORDER_BYTES: u64 = 256;
/// A queued record of an epoch while catching up.
const RECORD_BYTES: u64 = 200;
/// A process without data.
const PROCESS_BYTES: u64 = 64 << 20;
/// Left free for others.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// What a generation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Estimate {
    records: u64,
    pairs: u64,
    memory: u64,
    disk: u64,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "estimate: {} records, at most {} directed pairs; some {} of memory, {} on disk (a guess: it may take several times as much)",
            thousands(self.records),
            thousands(self.pairs),
            bytes(self.memory),
            bytes(self.disk)
        )
    }
}

/// Estimates a generation under `semantics` of the log up to `end`.
pub fn estimate(installation: &Installation, semantics: &Semantics, from: &ReplayFrom, end: &Position) -> Result<Estimate> {
    let snapshot = installation.store.snapshot().context("could not read the live generation")?;
    let rules = semantics.rules();
    let (mut identities, mut orders) = (0_u64, 0_u64);
    let mut baskets: HashMap<Box<str>, u64> = HashMap::new();
    scan::<Interactions, _>(&*snapshot.rows, &[], |(owner, key), _| {
        identities += 1;
        if key.kind == kindred_model::Kind::Purchase {
            *baskets.entry(owner.id().into()).or_default() += 1;
        }
    })
    .context("could not read the live generation")?;
    scan::<Orders, _>(&*snapshot.rows, &[], |_, row| {
        orders += 1;
        if let Ok(order) = OrderRecord::decode(&row.0, &rules)
            && let Some(member) = &order.member
        {
            *baskets.entry(member.as_str().into()).or_default() += order.lines.len() as u64;
        }
    })
    .context("could not read the live generation")?;
    let window = semantics.views.also_bought.window as u64;
    let pairs: u64 = baskets.values().map(|&items| items.min(window) * (items.min(window).saturating_sub(1))).sum();

    let applied = Position::beginning().lag_behind(&snapshot.frontier.position);
    let all = Position::beginning().lag_behind(end);
    // Unapplied records are counted, not read: scale.
    let scaled = |count: u64| {
        if applied == 0 { count } else { (u128::from(count) * u128::from(all.max(applied)) / u128::from(applied)) as u64 }
    };
    let pairs = scaled(pairs);
    let held = pairs * PAIR_BYTES + scaled(identities) * IDENTITY_BYTES + scaled(orders) * ORDER_BYTES;
    let records = match from {
        ReplayFrom::Inputs => snapshot.frontier.position.lag_behind(end) + identities + orders,
        _ => all,
    };
    let memory = PROCESS_BYTES + (held + records.min(2_000_000) * RECORD_BYTES) * 3 / 2;
    let of = |bytes: Option<u64>| bytes.unwrap_or(0);
    let disk = 2 * of(installation.store.disk_bytes()).max(of(installation.log.disk_bytes()));
    Ok(Estimate { records, pairs, memory, disk })
}

impl Estimate {
    /// Refuses without capacity, with the figures. The disk is checked for a store in `directory`.
    pub fn check(&self, directory: Option<&Path>) -> Result<()> {
        let anyway = "free some, or give --force to try all the same";
        if let Some(free) = memory_available()
            && free < self.memory
        {
            let message = format!("it may need {} of memory, and {} are free", bytes(self.memory), bytes(free));
            return Err(Failure::new(message).help(format!("a smaller views.also_bought.window takes less; {anyway}")).into());
        }
        if let Some(Ok(stat)) = directory.map(rustix::fs::statvfs) {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            if free < self.disk + DISK_RESERVE_BYTES {
                let message =
                    format!("it may need {} on disk, and {} are free", bytes(self.disk + DISK_RESERVE_BYTES), bytes(free));
                return Err(Failure::new(message).help(anyway).into());
            }
        }
        Ok(())
    }
}

/// Memory available without swapping, in bytes: the smaller of machine and control group. `None` where the system does not say.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10;
    let number = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let group = number("memory.max").zip(number("memory.current")).map(|(most, used)| most.saturating_sub(used));
    Some(group.map_or(machine, |group| group.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a replay could take down the machine with the live pipeline on it.
    #[test]
    fn what_does_not_fit_is_refused_with_its_figures() {
        let here = Path::new("/");
        let fits = Estimate { records: 1, pairs: 1, memory: 1, disk: 0 };
        let error = |estimate: Estimate| estimate.check(Some(here)).unwrap_err().to_string();
        assert!(error(Estimate { memory: 1 << 60, ..fits }).contains("of memory"));
        assert!(error(Estimate { disk: 1 << 62, ..fits }).contains("on disk"));
    }
}
