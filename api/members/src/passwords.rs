//! Passwords of members: chosen, and shown again before something that matters.

use secrecy::SecretString;

use crate::account::Account;
use crate::base::Passwords;
use crate::db::Held;
use crate::error::{MemberError, Result};
use crate::hasher::Checked;
use crate::throttle::Failures;

impl Passwords {
    /// Refuses a password that others guess. `own` is what the person is known by, `turn` who asks.
    pub(crate) async fn judge(&self, password: &SecretString, own: Vec<String>, staff: bool, turn: &str) -> Result<()> {
        self.hasher.judge(self.policy.clone(), password.clone(), own, staff, turn).await
    }

    /// Judges a new password of an account: its hash, and whether it has the length that staff needs.
    pub(crate) async fn accept(&self, account: &Account, new: SecretString) -> Result<(String, bool)> {
        let own = account.own_words().into_iter().map(str::to_owned).collect();
        self.judge(&new, own, account.role.is_some(), &account.member).await?;
        let for_staff = self.policy.fits_staff(&new);
        Ok((self.hasher.hash(new, &account.member).await?, for_staff))
    }

    /// Asks for the password again before something that matters (V6.2.3, V7.5.1).
    pub(crate) async fn reauthenticate(&self, member: &str, password: &SecretString, address: &str) -> Result<Held<Account>> {
        let held = self.account(member).await?.filter(|held| held.value.is_active()).ok_or(MemberError::Unauthenticated)?;
        let tried = self.throttle.attempt(self.marks.key("reauthenticate", &[member]), Failures::Double).await?;
        match self.hasher.verify(password.clone(), Some(&held.value.password), member).await? {
            Checked::Right { .. } => {
                self.throttle.succeeded(tried).await?;
                Ok(held)
            }
            Checked::Wrong => {
                self.throttle.failed(tried).await?;
                self.audit.write(member, "reauthentication", member, address, false).await?;
                Err(MemberError::ReauthenticationFailed)
            }
        }
    }
}
