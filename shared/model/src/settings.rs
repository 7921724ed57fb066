//! The settings that results depend on, besides the events and the as-of day. Pinned when a data directory is created; a
//! directory with others is refused.

use serde::{Deserialize, Serialize};

use crate::loyalty::Program;
use crate::records::Rules;
use crate::similarity::{Damping, PairWeight};
use crate::units::Kind;
use crate::views::{Switched, ViewSettings};

/// Impressions and clicks kept of each raw owner: a separate cap by the rule of `inputs.identities_per_owner`, so that they do
/// not evict what people do.
pub const LIST_IDENTITIES_PER_OWNER: usize = 2_000;

/// All settings that results depend on. Names as in the settings file: `views.also_bought.window`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Semantics {
    /// `shop.*`
    pub shop: Shop,
    /// `inputs.*`
    pub inputs: Inputs,
    /// `views.*`
    pub views: ViewSettings,
    /// `program.*`
    pub program: Program,
}

/// `shop.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shop {
    /// The one currency, ISO 4217.
    pub currency: String,
}

impl Default for Shop {
    fn default() -> Self {
        Self { currency: "EUR".to_owned() }
    }
}

/// `inputs.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inputs {
    /// Identities kept of each raw owner, the latest by (`at`, identity), retracts included; impressions and clicks have their
    /// own cap ([`LIST_IDENTITIES_PER_OWNER`]). Bounds the memory of a bot; evicted ones have no effect and never come back.
    pub identities_per_owner: usize,
}

impl Default for Inputs {
    fn default() -> Self {
        Self { identities_per_owner: 10_000 }
    }
}

/// The settings of a view without further ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switch {
    /// Whether the view is maintained.
    pub enabled: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Switched for Switch {
    fn is_enabled(&self) -> bool {
        self.enabled
    }
    fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }
}

impl Switched for Similarity {
    fn is_enabled(&self) -> bool {
        self.enabled
    }
    fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }
}

/// Which owners' baskets count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Owners {
    /// Members, sessions and guests' orders.
    #[default]
    All,
    /// Members only, if sessions are not trusted.
    Members,
}

/// Settings of a similarity view.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Similarity {
    /// Whether the view is maintained.
    pub enabled: bool,
    /// K: items in a basket, the most recent.
    pub window: usize,
    /// N: neighbours in a list.
    pub top: usize,
    /// The measure: 0 confidence, 0.5 cosine, 1 lift.
    pub popularity_damping: Damping,
    /// Ratio of the grid that supports are rounded down to in the ranking; 1 is exact.
    pub support_rounding: f64,
    /// The minimum co-count of a pair in a list.
    pub min_support: u32,
    /// The weight of a pair in a basket.
    pub pair_weight: PairWeight,
    /// Interaction kinds that enter the basket.
    pub kinds: Vec<Kind>,
    /// Which owners' baskets count.
    pub owners: Owners,
}

impl Default for Similarity {
    fn default() -> Self {
        Self {
            enabled: true,
            window: 50,
            top: 50,
            popularity_damping: Damping::HALF,
            support_rounding: 1.05,
            min_support: 1,
            pair_weight: PairWeight::Count,
            kinds: vec![Kind::Purchase],
            owners: Owners::All,
        }
    }
}

impl Similarity {
    /// Validates the values. `name` is the view's.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(&self, name: &str) -> Result<(), String> {
        if !(1..=1_000_000).contains(&self.window) {
            return Err(format!("views.{name}.window is {}; from 1 to 1000000 is accepted", self.window));
        }
        if !(1..=1_000).contains(&self.top) {
            return Err(format!("views.{name}.top is {}; from 1 to 1000 is accepted", self.top));
        }
        if !(1.0..=16.0).contains(&self.support_rounding) {
            return Err(format!("views.{name}.support_rounding is {}; from 1 to 16 is accepted", self.support_rounding));
        }
        if self.min_support == 0 {
            return Err(format!("views.{name}.min_support is at least 1"));
        }
        if self.kinds.is_empty() || self.kinds.contains(&Kind::Search) {
            return Err(format!("views.{name}.kinds names at least one kind, and not search: a search is in no basket"));
        }
        Ok(())
    }
}

impl Semantics {
    /// The settings that decoding depends on.
    pub fn rules(&self) -> Rules {
        Rules { currency: self.shop.currency.clone() }
    }

    /// Validates the settings as a whole.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(&self) -> Result<(), String> {
        let currency = &self.shop.currency;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("shop.currency is {currency:?}; three capital letters of ISO 4217 are accepted, like EUR"));
        }
        if !(1..=10_000_000).contains(&self.inputs.identities_per_owner) {
            return Err("inputs.identities_per_owner lies from 1 to 10000000".to_owned());
        }
        self.views.check()?;
        self.program.check()
    }
}
