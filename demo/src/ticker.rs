//! The event stream of the page: each record of the log as a sentence.

use std::fmt::Write as _;

use kindred_model::records::{Interaction, MemberRecord, MemberState, OrderRecord, OrderStatus, Record, Subject};
use kindred_model::{ItemId, Kind, MemberId, Owner, Topic};
use serde::Serialize;

use crate::catalog::Catalog;

/// One event on the page.
#[derive(Clone, Debug, Serialize)]
pub struct Tick {
    /// Where it was written.
    pub topic: Topic,
    /// The icon: a kind of interaction, a status of an order, a state of a member.
    pub kind: &'static str,
    /// The sentence.
    pub text: String,
    /// The member, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The item, or the first of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemId>,
    /// The position just after it.
    pub position: String,
}

/// The sentence of a record. `name` looks up the name of a member.
pub fn tick(record: &Record, position: String, catalog: &Catalog, name: &dyn Fn(&MemberId) -> Option<String>) -> Tick {
    let title = |item: &ItemId| catalog.get(item).map_or_else(|| item.to_string(), |product| product.title.to_owned());
    let called = |member: &MemberId| name(member).unwrap_or_else(|| "A member".to_owned());
    let (kind, text, member, item) = match record {
        Record::Interaction(interaction) => about_interaction(interaction, &title, &called),
        Record::Order(order) => about_order(order, &title, &called),
        Record::Catalog(record) => {
            let verb = if record.is_offered() { "is on sale" } else { "is gone from the shelves" };
            ("catalog", format!("{} {verb}", record.title), None, Some(record.item.clone()))
        }
        Record::Member(MemberRecord::Session { merged_into, .. }) => {
            ("merged", format!("A visitor signs in: it is {}", called(merged_into)), Some(merged_into.clone()), None)
        }
        Record::Member(MemberRecord::Member(membership)) => {
            let who = called(&membership.member);
            let (kind, text) = match membership.state {
                MemberState::Registered => match &membership.invited_by {
                    Some(inviter) => ("registered", format!("{who} joins, invited by {}", called(inviter))),
                    None => ("registered", format!("{who} joins")),
                },
                MemberState::Activated => ("activated", format!("{who} is activated")),
                MemberState::Suspended => ("suspended", format!("{who} is suspended")),
                MemberState::Erased => ("erased", "A member is forgotten".to_owned()),
            };
            (kind, text, Some(membership.member.clone()), None)
        }
        Record::Ledger(record) => {
            let text = format!("Something changes in the ledger of {}", called(record.member()));
            ("ledger", text, Some(record.member().clone()), None)
        }
    };
    Tick { topic: record.topic(), kind, text, member, item, position }
}

type About = (&'static str, String, Option<MemberId>, Option<ItemId>);

fn about_interaction(
    interaction: &Interaction,
    title: &dyn Fn(&ItemId) -> String,
    called: &dyn Fn(&MemberId) -> String,
) -> About {
    let member = interaction.owner.member().cloned();
    let who = match &interaction.owner {
        Owner::Member(member) => called(member),
        Owner::Session(_) | Owner::Guest(_) => "A visitor".to_owned(),
    };
    let (what, item) = match &interaction.subject {
        Subject::Item(item) => (title(item), Some(item.clone())),
        Subject::Query(query) => (format!("“{query}”"), interaction.payload.item.clone()),
    };
    let text = match interaction.kind {
        Kind::View => format!("{who} looks at {what}"),
        Kind::Search => format!("{who} searches for {what}"),
        Kind::Cart => format!("{who} puts {what} into the basket"),
        Kind::Favorite => format!("{who} marks {what}"),
        Kind::Follow => format!("{who} follows {what}"),
        Kind::Comment => format!("{who} comments on {what}"),
        Kind::Purchase => format!("{who} buys {what}"),
        Kind::Dismiss => format!("{who} is not interested in {what}"),
        Kind::Impression => format!("{who} was shown {what}"),
        Kind::Click => format!("{who} clicks on {what} in a list"),
    };
    let text = if interaction.retract { format!("Taken back: {text}") } else { text };
    (interaction.kind.name(), text, member, item)
}

fn about_order(order: &OrderRecord, title: &dyn Fn(&ItemId) -> String, called: &dyn Fn(&MemberId) -> String) -> About {
    let who = match &order.member {
        Some(member) => called(member),
        None => "A guest".to_owned(),
    };
    let mut what = order.lines.first().map_or_else(String::new, |line| title(&line.item));
    if order.lines.len() > 1 {
        let _ = write!(what, " and {} more", order.lines.len() - 1);
    }
    if order.erased {
        return ("erased", format!("{what}: the order stays, its buyer does not"), None, first(order));
    }
    // A version with refunds is described by the latest one, unless all was refunded.
    let refund = order.refunds.iter().max_by_key(|refund| refund.at).filter(|_| order.status != OrderStatus::Refunded);
    let text = match (order.status, refund) {
        (_, Some(refund)) => {
            let item = order.lines.iter().find(|line| Some(line.line) == refund.line).map_or(what, |line| title(&line.item));
            let text = match refund.quantity {
                Some(quantity) => format!("{who} sends back {quantity} × {item}"),
                None => format!("{who} gets money back for {item}"),
            };
            return ("returned", text, order.member.clone(), first(order));
        }
        (OrderStatus::Placed, _) => format!("{who} orders {what}"),
        (OrderStatus::Paid, _) => format!("{who} pays for {what}"),
        (OrderStatus::Shipped, _) => format!("{what}: under way to {who}"),
        (OrderStatus::Completed, _) => format!("{what}: received by {who}"),
        (OrderStatus::Cancelled, _) => format!("{who} cancels {what}"),
        (OrderStatus::Refunded, _) => format!("{who} gets the money back for {what}"),
    };
    (order.status.name(), text, order.member.clone(), first(order))
}

fn first(order: &OrderRecord) -> Option<ItemId> {
    order.lines.first().map(|line| line.item.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kindred_model::Day;

    use super::*;
    use crate::simulator::History;

    /// Each kind of event has its own sentence, with the person's name and the product's title.
    #[test]
    fn events_read_as_sentences() {
        let catalog = Catalog::new(3);
        let history = History::new(3, Day(20_400), &catalog, "EUR");
        let kinds: HashSet<&str> = history
            .records
            .iter()
            .map(|record| {
                let tick = tick(record, "0".to_owned(), &catalog, &|_| Some("Ida Keller".to_owned()));
                assert!(tick.text.len() > 10 && !tick.text.contains('\n'), "{}", tick.text);
                if let Some(item) = &tick.item
                    && matches!(tick.kind, "view" | "paid" | "placed")
                {
                    assert!(tick.text.contains(catalog.get(item).unwrap().title), "{}", tick.text);
                }
                assert_eq!(tick.member.is_some(), tick.text.contains("Ida Keller"), "{}", tick.text);
                tick.kind
            })
            .collect();
        for kind in
            ["view", "cart", "favorite", "search", "placed", "paid", "shipped", "completed", "refunded", "returned", "merged"]
        {
            assert!(kinds.contains(kind), "{kind} does not occur");
        }
    }
}
