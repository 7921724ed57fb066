//! Valid and invalid records from small domains, so that keys, versions and times collide.

use kindred_model::records::{
    CatalogRecord, Discount, Interaction, InteractionKey, ItemKind, LedgerEntry, LedgerRecord, Line, MemberRecord, MemberState,
    Membership, OrderRecord, OrderStatus, Payload, Refund, Rules, Subject, Visibility, normalise_query,
};
use kindred_model::{Day, EntryId, EventTime, ItemId, Kind, LedgerKind, MemberId, OrderId, Owner, Record, SessionId, Tier};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// An identity: mostly one of few, sometimes any.
pub fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{1,2}",
        1 => "\\PC{1,30}",
        1 => select(vec!["é", "e\u{301}", "a b", "a\"\\/b", "\u{10ffff}", "ÿ", "\u{2028}", "~", "\u{feff}x"]).prop_map(str::to_owned),
        1 => "[a-z]{128}",
    ]
}

pub fn item() -> impl Strategy<Value = ItemId> {
    id().prop_map(|id| ItemId::parse(&id).unwrap())
}

pub fn member() -> impl Strategy<Value = MemberId> {
    id().prop_map(|id| MemberId::parse(&id).unwrap())
}

pub fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![member().prop_map(Owner::Member), id().prop_map(|id| Owner::Session(SessionId::parse(&id).unwrap())),]
}

/// Members, sessions and guests' orders.
pub fn any_owner() -> impl Strategy<Value = Owner> {
    prop_oneof![3 => owner(), 1 => id().prop_map(|id| Owner::Guest(OrderId::parse(&id).unwrap()))]
}

/// An accepted time: the bounds, a few that collide, turns of days and leap years, or any.
pub fn time() -> impl Strategy<Value = EventTime> {
    let ends = select(vec![EventTime::MIN, EventTime(EventTime::MIN.0 + 1), EventTime(EventTime::END.0 - 1)]);
    let turns =
        select(vec!["2000-02-29T23:59:59.999Z", "2024-02-29T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-05T23:59:59.999Z"])
            .prop_map(|text| EventTime::parse("at", text).unwrap());
    prop_oneof![
        1 => ends,
        1 => turns,
        2 => (0..3i64).prop_map(|ms| EventTime(1_767_607_872_000 + ms)),
        2 => (EventTime::MIN.0..EventTime::END.0).prop_map(EventTime),
    ]
}

pub fn day() -> impl Strategy<Value = Day> {
    time().prop_map(EventTime::day)
}

pub fn kind() -> impl Strategy<Value = Kind> {
    select(Kind::ALL.to_vec())
}

pub fn version() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..3u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

/// A query as people type it.
pub fn query() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[aA ]{0,3}[bB][\t ]{0,2}", 1 => "\\PC{0,20}x\\PC{0,40}", 1 => "x{500,512}", 1 => "[ａ-ｚ　]{1,40}z"]
        .prop_filter("at most 512 bytes", |query| query.len() <= 512)
}

fn rating() -> impl Strategy<Value = f64> {
    prop_oneof![select(vec![0.0, 0.1, 4.0, 4.5, 99.99999999999999, 100.0, 5e-324, 1e-7]), 0.0..100.0]
}

pub fn payload() -> impl Strategy<Value = Payload> {
    let scenario = option::of(prop_oneof![Just("similar".to_owned()), id()]);
    let served = (scenario, option::of(id()), option::of(id()));
    (option::of(rating()), option::of(id()), option::of(1..=10_000u32), option::of(id()), served).prop_map(
        |(rating, reco_id, rank, generation, (scenario, variant, source))| Payload {
            rating,
            reco_id: reco_id.map(Into::into),
            rank,
            generation: generation.map(Into::into),
            scenario: scenario.map(Into::into),
            variant: variant.map(Into::into),
            source: source.map(Into::into),
            ..Payload::default()
        },
    )
}

pub fn interaction() -> impl Strategy<Value = Interaction> {
    let what = (kind(), item(), query(), any::<bool>());
    (owner(), what, time(), any::<bool>(), payload()).prop_map(|(owner, (kind, item, query, named), at, retract, mut payload)| {
        let subject = if kind == Kind::Search {
            let normalised = normalise_query(&query);
            payload.item = named.then_some(item);
            payload.query = Some(query.into());
            Subject::Query(normalised)
        } else {
            Subject::Item(item)
        };
        Interaction::new(owner, subject, kind, at, retract, payload)
    })
}

/// The natural key of an interaction within its owner.
pub fn interaction_key() -> impl Strategy<Value = InteractionKey> {
    interaction().prop_map(|interaction| interaction.key())
}

fn line(number: u32) -> impl Strategy<Value = Line> {
    let quantity = prop_oneof![4 => 1..4i64, 1 => Just(1_000_000)];
    (item(), quantity, 0..100_000i64, option::of(0..=100u32), option::of(id()), any::<bool>()).prop_map(
        move |(item, quantity, unit_price_minor, percent, coupon, told)| {
            let discount_minor = percent.map(|percent| quantity * unit_price_minor * i64::from(percent) / 100);
            let parts = discount_minor.filter(|_| told).map(|minor| {
                let part =
                    |kind: &str, amount_minor| Discount { kind: kind.into(), id: coupon.clone().map(Into::into), amount_minor };
                vec![part("tier", minor / 3), part("coupon", minor - minor / 3)]
            });
            Line {
                line: number,
                item,
                quantity,
                unit_price_minor,
                discount_minor,
                discounts: parts.unwrap_or_default(),
                coupon: coupon.map(Into::into),
            }
        },
    )
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    proptest::collection::btree_set(prop_oneof![4 => 1..6u32, 1 => Just(u32::MAX)], 1..4)
        .prop_flat_map(|numbers| numbers.into_iter().map(|number| line(number).boxed()).collect::<Vec<_>>())
        .prop_shuffle()
}

/// Refunds within what was bought and what lines and shipping cost.
fn refunds(lines: &[Line], paid: i64) -> impl Strategy<Value = Vec<Refund>> + use<> {
    let lines: Vec<_> = lines.iter().map(|line| (line.line, line.quantity)).collect();
    vec((time(), 0..lines.len(), 0..3i64, 0..10_000i64, any::<bool>()), 0..4).prop_map(move |wanted| {
        let (mut left, mut paid) = (lines.clone(), paid);
        let mut refunds = Vec::new();
        for (n, (at, line, quantity, amount_minor, of_order)) in wanted.into_iter().enumerate() {
            let (line, left) = &mut left[line];
            let quantity = quantity.min(*left);
            *left -= quantity;
            let amount_minor = amount_minor.min(paid);
            paid -= amount_minor;
            let quantity = Some(quantity).filter(|quantity| *quantity > 0);
            let line = Some(*line).filter(|_| quantity.is_some() || !of_order);
            refunds.push(Refund { refund: format!("r{}", 9 - n).into(), at, line, quantity, amount_minor });
        }
        refunds
    })
}

pub fn order() -> impl Strategy<Value = OrderRecord> {
    use OrderStatus::{Cancelled, Completed, Paid, Placed, Refunded, Shipped};
    let status = select(vec![Placed, Paid, Shipped, Completed, Cancelled, Refunded]);
    let times = (time(), option::of(time()), option::of(time()), option::of(time()));
    let who = (option::of(member()), option::of(select(Tier::ALL.to_vec())), option::of(id()), any::<bool>());
    let money = (option::of(0..100i64), option::of(0..10_000i64));
    let goods = (lines(), money).prop_flat_map(|(lines, (discount, shipping))| {
        let cost: i64 = lines.iter().map(|line| line.quantity * line.unit_price_minor - line.discount_minor.unwrap_or(0)).sum();
        let discount = discount.map(|percent| cost * percent / 100);
        let paid = cost - discount.unwrap_or(0) + shipping.unwrap_or(0);
        (refunds(&lines, paid), Just(lines), Just((discount, shipping)))
    });
    (id(), version(), status, who, times, goods).prop_map(|(order, version, status, who, times, (refunds, lines, money))| {
        let (member, tier, promotion, erased) = who;
        let (placed_at, paid_at, completed_at, cancelled_at) = times;
        OrderRecord {
            order: OrderId::parse(&order).unwrap(),
            version,
            status,
            member,
            tier,
            promotion: promotion.map(Into::into),
            placed_at,
            paid_at,
            completed_at,
            cancelled_at,
            currency: "EUR".into(),
            lines,
            refunds,
            erased,
            discount_minor: money.0,
            shipping_minor: money.1,
        }
        .checked(&Rules::default())
        .unwrap()
    })
}

pub fn catalog() -> impl Strategy<Value = CatalogRecord> {
    let visibility = select(vec![Visibility::Public, Visibility::Registered, Visibility::Vip, Visibility::Svip]);
    let text = "[\\PC\n\t]{0,40}x";
    let labels = || vec(id(), 0..3).prop_map(|labels| labels.into_iter().map(Into::into).collect::<Vec<Box<str>>>());
    let link = select(vec!["https://shop.example/a?b#c", "http://x", "/p/1"]);
    let head = (item(), version(), select(vec![ItemKind::Good, ItemKind::Service, ItemKind::Activity]), text);
    let looks = (option::of(text), labels(), labels(), option::of(link.clone()), option::of(link));
    let offer =
        (option::of(0..=10_000_000_000i64), option::of(any::<bool>()), option::of(visibility), option::of(time()), any::<bool>());
    let more = (option::of(id()), any::<bool>(), any::<bool>(), option::of(0..=10_000i64), option::of(0..=1_000_000_000i64));
    (head, looks, offer, more).prop_map(|((item, version, kind, title), looks, offer, more)| {
        let (group, repeatable, sensitive, tax_bp, stock) = more;
        let (description, category, tags, url, image) = looks;
        let (price_minor, available, visibility, listed_at, deleted) = offer;
        CatalogRecord {
            item,
            version,
            kind,
            title: title.into(),
            description: description.map(Into::into),
            category,
            tags,
            price_minor,
            url: url.map(Into::into),
            image: image.map(Into::into),
            available,
            visibility,
            listed_at,
            deleted,
            group: group.map(Into::into),
            repeatable,
            sensitive,
            tax_bp,
            stock,
        }
    })
}

pub fn member_record() -> impl Strategy<Value = MemberRecord> {
    use MemberState::{Activated, Erased, Registered, Suspended};
    let state = select(vec![Registered, Activated, Suspended, Erased]);
    let membership = (
        (member(), version(), state),
        (option::of(select(Tier::ALL.to_vec())), option::of(member()), option::of(time()), option::of(time())),
        (any::<bool>(), option::of(time())),
    )
        .prop_map(|((member, version, state), (tier, invited_by, registered_at, activated_at), invite)| {
            let kept = state != Erased;
            MemberRecord::Member(Membership {
                tier: tier.filter(|_| kept),
                invited_by,
                registered_at: registered_at.filter(|_| kept),
                activated_at,
                invite_approved: kept && invite.0,
                qualified_at: invite.1,
                ..Membership::new(member, version, state)
            })
        });
    let session = (id(), version(), member()).prop_map(|(session, version, merged_into)| MemberRecord::Session {
        session: SessionId::parse(&session).unwrap(),
        version,
        merged_into,
    });
    prop_oneof![3 => membership, 1 => session]
}

/// Entries of every kind, and erasures.
pub fn ledger() -> impl Strategy<Value = LedgerRecord> {
    let entry = || id().prop_map(|id| EntryId::parse(&id).unwrap());
    let texts = (option::of(select(vec!["r", "a \"b\"", "é"])), option::of(id()), option::of(select(vec![0, 20_000])));
    let parts = (select(LedgerKind::ALL.to_vec()), 1..5i64, any::<bool>(), option::of(entry()), texts);
    let entry = (member(), entry(), parts, time()).prop_map(|(member, id, (kind, size, negative, refers_to, texts), at)| {
        let amount = if negative && kind.is_adjustment() { -size } else { size };
        let (reason, order, expires_on) = texts;
        let mut entry = LedgerEntry {
            member,
            refers_to: refers_to.or_else(|| (kind == LedgerKind::Return).then(|| id.clone())),
            entry: id,
            kind,
            points: None,
            amount_minor: None,
            order: order.map(|order| OrderId::parse(&order).unwrap()),
            expires_on: expires_on.filter(|_| kind == LedgerKind::Adjust && amount > 0).map(Day),
            reason: reason.or(kind.is_adjustment().then_some("because")).map(Into::into),
            at,
        };
        *if kind.is_of_wallet() { &mut entry.amount_minor } else { &mut entry.points } = Some(amount);
        LedgerRecord::Entry(Box::new(entry))
    });
    let erased = member().prop_map(|member| LedgerRecord::Erased { member, erased: true });
    prop_oneof![9 => entry, 1 => erased]
}

pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        interaction().prop_map(Record::Interaction).boxed(),
        order().prop_map(Record::Order).boxed(),
        catalog().prop_map(Record::Catalog).boxed(),
        member_record().prop_map(Record::Member).boxed(),
        ledger().prop_map(Record::Ledger).boxed(),
    ]
}
