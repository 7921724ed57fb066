//! Acts of administration that are no member's business, noted in the audit log where members are kept (V16.3.1).
//!
//! ```text
//! entry ──▶ the action ──failed──▶ another entry, not ok
//! ```

use std::future::Future;

use super::request::Request;
use crate::problem::Problem;

/// What is done.
#[derive(Clone, Copy)]
pub(crate) struct AuditAction<'a> {
    /// A stable word: `generation.promote`.
    pub kind: &'static str,
    /// To what.
    pub subject: &'a str,
    /// More, by name; no secrets.
    pub detail: &'a [(&'a str, &'a str)],
}

impl Request {
    /// Notes an action and does it. The entry comes first: what is in the log and did not happen is better than the reverse, and where
    /// the log cannot be written nothing is done (V16.5.3). That it failed is noted beside.
    ///
    /// # Errors
    /// What the store of the log says; what the action says.
    pub async fn audited<T>(
        &self,
        action: AuditAction<'_>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        self.audit(action, true).await?;
        let done = work.await;
        if let Err(problem) = &done {
            let detail = [("code", problem.code.name())];
            if self.audit(AuditAction { detail: &detail, ..action }, false).await.is_err() {
                tracing::warn!(
                    kind = action.kind,
                    "could not note in the audit log that an action failed; it stands there as begun"
                );
            }
        }
        done
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// What the store of the log says.
    pub async fn audit(&self, action: AuditAction<'_>, ok: bool) -> Result<(), Problem> {
        let Some(members) = &self.api.context.members else { return Ok(()) };
        Ok(members.record(&self.actor(), action.kind, action.subject, ok, action.detail).await?)
    }

    /// Notes that staff reads what is of a person (V16.3.2): `what` of whom; of nobody in particular, `member` is empty. A service key
    /// is the shop's own program, which reads for whoever asked it.
    ///
    /// # Errors
    /// What the store of the log says; then nothing is read.
    pub async fn audit_read(&self, what: &str, member: &str) -> Result<(), Problem> {
        if self.grant.service {
            return Ok(());
        }
        self.audit(AuditAction { kind: "member.read", subject: member, detail: &[("what", what)] }, true).await
    }
}
