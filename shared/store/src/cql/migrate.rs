//! The schema: applied by `kindred migrate`, checked by every process that opens the store.
//!
//! ```text
//! schemas/cql/NNN_*.cql (within this program) ──migrate──▶ keyspace, tables, schema_migrations (number, name, checksum)
//!                                   └───────────check at open──────────────────▲
//! ```
//!
//! Every statement says `IF NOT EXISTS`, so an interrupted migration can be repeated. Run one `kindred migrate` at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::Statement;
use sha2::{Digest, Sha256};
use tracing::info;

use super::config::CqlConfig;
use super::session::{answered, connect, unreadable, was_applied};
use crate::StoreError;

/// Schema changes are slow, more so on a busy disk.
const DDL_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows of `installation`.
const VIEW_BUCKETS: &str = "view_buckets";
const INPUT_BUCKETS: &str = "input_buckets";

struct Migration {
    number: i32,
    name: &'static str,
    text: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "001_tables", text: include_str!("../../../../schemas/cql/001_tables.cql") },
    Migration { number: 2, name: "002_records", text: include_str!("../../../../schemas/cql/002_records.cql") },
];

impl Migration {
    fn checksum(&self) -> String {
        Sha256::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its statements. Comments have lines of their own, and no literal contains a semicolon.
    fn statements(&self) -> impl Iterator<Item = String> {
        let lines: Vec<&str> = self.text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let statements: Vec<String> = lines.join("\n").split(';').map(|text| text.trim().to_owned()).collect();
        statements.into_iter().filter(|text| !text.is_empty())
    }
}

/// Partitions per table, fixed in the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buckets {
    /// Of view tables.
    pub views: u32,
    /// Of input tables.
    pub inputs: u32,
}

/// The result of a migration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// The migrations applied now, by name.
    pub applied: Vec<String>,
    /// The buckets of the keyspace, which override the settings.
    pub buckets: Buckets,
}

pub(super) async fn migrate(config: &CqlConfig) -> Result<Migrated, StoreError> {
    let session = connect(config).await?;
    let keyspace = &config.keyspace;
    let replication = config.replication_map();
    define(&session, config, &format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")).await?;
    let known = "number int PRIMARY KEY, name text, checksum text";
    define(&session, config, &format!("CREATE TABLE IF NOT EXISTS {keyspace}.schema_migrations ({known})")).await?;
    session
        .use_keyspace(keyspace, false)
        .await
        .map_err(|error| StoreError::Unavailable(format!("could not use keyspace {keyspace}: {error}")))?;
    let there = applied(&session, config).await?;
    let pending = pending(&there)?;
    let mut names = Vec::new();
    for migration in pending {
        info!(migration = migration.name, "applying migration {}", migration.name);
        for statement in migration.statements() {
            define(&session, config, &statement).await?;
        }
        let text = format!("INSERT INTO {keyspace}.schema_migrations (number, name, checksum) VALUES (?, ?, ?)");
        let values = (migration.number, migration.name, migration.checksum());
        answered(config.attempts, "migrate", || session.query_unpaged(idempotent(&text), &values)).await?;
        names.push(migration.name.to_owned());
    }
    let views = fix(&session, config, VIEW_BUCKETS, config.view_buckets).await?;
    let inputs = fix(&session, config, INPUT_BUCKETS, config.input_buckets).await?;
    Ok(Migrated { applied: names, buckets: Buckets { views, inputs } })
}

/// Checks that the keyspace matches this version.
pub(super) async fn check(session: &Session, config: &CqlConfig) -> Result<Buckets, StoreError> {
    let missing = pending(&applied(session, config).await?)?;
    if let Some(migration) = missing.first() {
        return Err(StoreError::Refused(format!(
            "the keyspace {} lacks migration {}: run `kindred migrate`",
            config.keyspace, migration.name
        )));
    }
    let read = async |name| {
        fixed(session, config, name).await?.ok_or_else(|| {
            StoreError::Refused(format!("the keyspace {} does not say its {name}: run `kindred migrate`", config.keyspace))
        })
    };
    Ok(Buckets { views: read(VIEW_BUCKETS).await?, inputs: read(INPUT_BUCKETS).await? })
}

/// Applied migrations: names and checksums by number.
type Applied = BTreeMap<i32, (String, String)>;

async fn applied(session: &Session, config: &CqlConfig) -> Result<Applied, StoreError> {
    let text = format!("SELECT number, name, checksum FROM {}.schema_migrations", config.keyspace);
    let lacking = || {
        StoreError::Refused(format!(
            "the keyspace {} is not there, or has no tables of Kindred: run `kindred migrate`",
            config.keyspace
        ))
    };
    let read = answered(config.attempts, "migrations", || async {
        match session.query_unpaged(idempotent(&text), ()).await {
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => Ok(None),
            other => other.map(Some),
        }
    });
    let rows = read.await?.ok_or_else(lacking)?.into_rows_result().map_err(|error| unreadable(&error))?;
    let rows = rows.rows::<(i32, String, String)>().map_err(|error| unreadable(&error))?;
    rows.map(|row| row.map(|(number, name, checksum)| (number, (name, checksum))).map_err(|error| unreadable(&error))).collect()
}

/// The migrations to apply.
fn pending(there: &Applied) -> Result<Vec<&'static Migration>, StoreError> {
    for (number, (name, checksum)) in there {
        let Some(ours) = MIGRATIONS.iter().find(|migration| migration.number == *number) else {
            return Err(StoreError::Refused(format!(
                "the keyspace has migration {name}, which this version does not know: it was made by `kindred migrate` of a later \
                 version; use that version"
            )));
        };
        if ours.checksum() != *checksum {
            return Err(StoreError::Refused(format!(
                "migration {name} is not what was applied to the keyspace (checksums differ): an applied migration must not be \
                 edited; put it back and let `kindred migrate` apply a new one"
            )));
        }
    }
    Ok(MIGRATIONS.iter().filter(|migration| !there.contains_key(&migration.number)).collect())
}

async fn define(session: &Session, config: &CqlConfig, text: &str) -> Result<(), StoreError> {
    answered(config.attempts, "define", || {
        let mut statement = idempotent(text);
        statement.set_request_timeout(Some(DDL_TIMEOUT));
        session.query_unpaged(statement, ())
    })
    .await?;
    Ok(())
}

/// Writes a value unless there is one; returns the stored value.
async fn fix(session: &Session, config: &CqlConfig, name: &str, value: u32) -> Result<u32, StoreError> {
    let text = format!("INSERT INTO {}.installation (name, value) VALUES (?, ?) IF NOT EXISTS", config.keyspace);
    let values = (name, value.to_string());
    let result = answered(config.attempts, "migrate", || session.query_unpaged(text.as_str(), &values)).await?;
    if was_applied(result)? {
        return Ok(value);
    }
    let stored = fixed(session, config, name).await?;
    stored.ok_or_else(|| StoreError::Corrupt(format!("the keyspace {} lost its {name}", config.keyspace)))
}

async fn fixed(session: &Session, config: &CqlConfig, name: &str) -> Result<Option<u32>, StoreError> {
    let text = format!("SELECT value FROM {}.installation WHERE name = ?", config.keyspace);
    let result = answered(config.attempts, "migrations", || {
        let mut statement = idempotent(&text);
        statement.set_consistency(config.consistency.serial_read());
        session.query_unpaged(statement, (name,))
    });
    let rows = result.await?.into_rows_result().map_err(|error| unreadable(&error))?;
    let row = rows.maybe_first_row::<(String,)>().map_err(|error| unreadable(&error))?;
    row.map(|(value,)| value.parse().map_err(|_| StoreError::Corrupt(format!("{name} of the keyspace is {value:?}")))).transpose()
}

fn idempotent(text: &str) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_is_idempotent(true);
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(name: &str, number: i32, checksum: String) -> Applied {
        Applied::from([(number, (name.to_owned(), checksum))])
    }

    #[test]
    fn what_does_not_fit_names_the_command() {
        let first = &MIGRATIONS[0];
        assert_eq!(pending(&Applied::new()).unwrap().len(), MIGRATIONS.len());
        assert!(pending(&there(first.name, 1, first.checksum())).unwrap().iter().all(|migration| migration.number > 1));
        let edited = pending(&there(first.name, 1, "0".repeat(64))).err().unwrap().to_string();
        assert!(edited.contains("001_tables") && edited.contains("`kindred migrate`"), "{edited}");
        let unknown = pending(&there("999_later", 999, String::new())).err().unwrap().to_string();
        assert!(unknown.contains("999_later") && unknown.contains("`kindred migrate`"), "{unknown}");
    }

    /// If this failed, an interrupted migration could not be repeated, or a file would never be applied.
    #[test]
    fn every_file_is_applied_and_may_be_applied_again() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/cql");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".cql").map(str::to_owned))
            .collect();
        files.sort();
        assert_eq!(MIGRATIONS.iter().map(|migration| migration.name).collect::<Vec<_>>(), files);
        for migration in MIGRATIONS {
            assert_eq!(format!("{:03}", migration.number), migration.name[..3]);
            for statement in migration.statements() {
                assert!(statement.contains("IF NOT EXISTS"), "{statement}");
            }
        }
    }
}
