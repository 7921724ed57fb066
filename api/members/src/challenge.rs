//! Challenges against robots: work that a browser proves to have done, once, in time (V2.4.1).
//!
//! The browser looks for a `nonce` such that SHA-256 of `token "." nonce` begins with as many zero bits as the challenge asks for.

use kindred_model::units::EventTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::base::Challenges;
use crate::db::SPENT;
use crate::error::{MemberError, Result};
use crate::random;
use crate::throttle::HOUR_S;

/// Seconds that a challenge may be solved in: a form is filled in meanwhile.
pub const CHALLENGE_S: u64 = 1_200;

/// A proof of work to be done before a registration, a phone code or a reset.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChallengeShown)]
pub struct Challenge {
    /// To be sent with the solution.
    pub token: String,
    /// Required leading zero bits of SHA-256(`token.nonce`).
    pub bits: u32,
    /// When it expires, milliseconds since 1970 UTC.
    pub expires_at: i64,
}

/// A solved challenge.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChallengeSolved)]
pub struct Solution {
    /// The token of the challenge.
    pub token: String,
    /// The nonce that was found.
    pub nonce: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    id: String,
    bits: u32,
    expires_at: i64,
}

impl Solution {
    /// Solves a challenge as a browser does: for tests and for the command line.
    pub fn find(challenge: &Challenge) -> Self {
        let fits = |nonce: &String| leading_zeros(&challenge.token, nonce) >= challenge.bits;
        let nonce = (0_u64..).map(|number| number.to_string()).find(fits).expect("there is one");
        Self { token: challenge.token.clone(), nonce }
    }

    /// Whether enough zero bits were found.
    pub(crate) fn solves(&self, bits: u32) -> bool {
        self.nonce.len() <= NONCE_BYTES_MAX && leading_zeros(&self.token, &self.nonce) >= bits
    }
}

fn leading_zeros(token: &str, nonce: &str) -> u32 {
    let digest = Sha256::digest(format!("{token}.{nonce}"));
    u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes")).leading_zeros()
}

impl Challenges {
    /// A challenge for whoever comes from an address.
    ///
    /// # Errors
    /// [`MemberError::Throttled`]; what the store says.
    pub async fn draw(&self, address: &str) -> Result<Challenge> {
        self.throttle.quota("challenge", &address_group(address), self.config.limits.challenges_hour, HOUR_S).await?;
        let bits = self.config.registration.challenge_bits;
        let expires_at = self.db.in_s(CHALLENGE_S).0;
        let claims = Claims { id: random::text::<16>(), bits, expires_at };
        Ok(Challenge { token: self.marks.seal("challenge", &claims), bits, expires_at })
    }

    /// Whether a challenge of ours is solved, in time. It may have been used before.
    pub(crate) fn is_solved(&self, solution: &Solution) -> Result<()> {
        self.solved(solution).map(drop)
    }

    fn solved(&self, solution: &Solution) -> Result<Claims> {
        let claims: Claims = self.marks.unseal("challenge", &solution.token).ok_or(MemberError::ChallengeFailed)?;
        let good = solution.solves(claims.bits) && claims.expires_at > self.db.now().0;
        if good { Ok(claims) } else { Err(MemberError::ChallengeFailed) }
    }

    /// Takes a solution, once.
    pub(crate) async fn redeem(&self, solution: &Solution) -> Result<()> {
        let claims = self.solved(solution)?;
        let until = Some(EventTime(claims.expires_at));
        let first = self.db.insert(SPENT, &claims.id, "spent", &(), until).await?;
        if first { Ok(()) } else { Err(MemberError::ChallengeFailed) }
    }
}

/// Longest nonce: more than any number that is found in a life.
const NONCE_BYTES_MAX: usize = 64;

/// What counts as one address: an IPv4 address, or the /64 that a subscriber of IPv6 has to himself. Other text as it is.
pub(crate) fn address_group(address: &str) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => v6.segments()[..4].iter().map(|part| format!("{part:x}:")).collect(),
        },
        _ => address.to_owned(),
    }
}
