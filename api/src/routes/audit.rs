//! Audit entries of administrative actions that do not change a member (V16.3.1).
//!
//! ```text
//! entry ──▶ the action ──failed──▶ another entry, not ok
//! ```

use std::future::Future;

use super::request::Request;
use crate::problem::Problem;

#[derive(Clone, Copy)]
pub(crate) struct AuditAction<'a> {
    /// A stable name: `generation.promote`.
    pub kind: &'static str,
    pub subject: &'a str,
    /// No secrets.
    pub detail: &'a [(&'a str, &'a str)],
}

impl Request {
    /// Writes an audit entry, then does the action: an entry without its action is better than the reverse, and nothing is done
    /// when the entry cannot be written (V16.5.3). A failed action gets a second entry.
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
                    "could not write the audit entry of a failed action; only its start is recorded"
                );
            }
        }
        done
    }

    pub async fn audit(&self, action: AuditAction<'_>, ok: bool) -> Result<(), Problem> {
        let Some(members) = &self.api.context.members else { return Ok(()) };
        Ok(members.audit.record(&self.actor(), action.kind, action.subject, ok, action.detail).await?)
    }

    /// Writes an entry when staff read personal data (V16.3.2); `member` is empty for searches. Reads with a service key are not
    /// recorded: the shop's servers read on behalf of others.
    pub async fn audit_read(&self, what: &str, member: &str) -> Result<(), Problem> {
        if self.grant.service {
            return Ok(());
        }
        self.audit(AuditAction { kind: "member.read", subject: member, detail: &[("what", what)] }, true).await
    }
}
