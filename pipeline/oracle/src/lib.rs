//! Every view by brute force from a set of records, with the standard library alone: the reference of `verify` and of the
//! dataflow's tests.
//!
//! ```text
//! records ─▶ Inputs (merged) ─▶ one function a view ─▶ Tables, byte for byte as the store must hold them
//! ```
//!
//! Nothing is incremental: the definition of a view is checked by reading its file. What the model defines once (codecs, the
//! measure, the rules of points) is taken from there.

mod inputs;
mod tables;
pub mod testing;

macro_rules! modules {
    ($($module:ident: $View:ident,)+) => { $(mod $module;)+ };
}

kindred_model::for_each_view!(modules);

pub use also_bought::{AlsoBoughtRows, also_bought};
pub use histories::histories;
pub use inputs::{Identities, Inputs, inputs};
use kindred_model::Semantics;
use kindred_model::views::Declared;
pub use member_orders::member_orders;
pub use points::points;
pub use popularity::popularity;
pub use tables::{Difference, Tables, first_differences};

/// The oracle of a view.
pub trait Recomputed: Declared {
    /// The view's tables from the merged inputs, exactly as the store must hold them.
    fn recompute(inputs: &Inputs, semantics: &Semantics) -> Tables;
}

macro_rules! recompute {
    ($($module:ident: $View:ident,)+) => {
        fn recompute_views(inputs: &Inputs, semantics: &Semantics, tables: &mut Tables) {
            $(
                use kindred_model::views::$module::$View;
                if $View::is_kept(semantics) {
                    tables.extend($View::recompute(inputs, semantics));
                }
            )+
        }
    };
}

kindred_model::for_each_view!(recompute);

/// Every table, of the inputs and of the views that the settings keep, exactly as the store must hold it.
pub fn tables(inputs: &Inputs, semantics: &Semantics) -> Tables {
    let mut tables = inputs.tables();
    recompute_views(inputs, semantics, &mut tables);
    tables
}

#[cfg(test)]
mod tests {
    use kindred_model::Owner;
    use kindred_model::views::{Cell, Rows, ViewName, view_tables};

    use super::testing::{Shape, exported, random_log, small_semantics};
    use super::*;

    /// If this failed, `verify` would miss a table that an oracle forgets.
    #[test]
    fn every_oracle_fills_its_tables() {
        let semantics = Semantics::default();
        let tables = tables(&inputs(random_log(1, 2_000, &Shape::default()), &semantics), &semantics);
        for table in view_tables() {
            assert!(tables.rows(table.name).next().is_some(), "{} has no rows in a log of everything", table.name);
        }
    }

    /// If this failed, exported histories would differ from their definition.
    #[test]
    fn histories_read_back_are_those_of_the_oracle() {
        for seed in 0..20 {
            let semantics = if seed % 2 == 0 { small_semantics() } else { Semantics::default() };
            let inputs = inputs(random_log(seed, 600, &Shape::default()), &semantics);
            let tables = inputs.tables();
            let exported = exported(ViewName::Histories.info(), None, &tables, &semantics);
            let expected: Vec<Vec<Cell>> = histories(&inputs)
                .into_iter()
                .flat_map(|(owner, entries)| {
                    let (member, session) = match owner {
                        Owner::Member(member) => (Cell::text(member), Cell::Empty),
                        Owner::Session(session) => (Cell::Empty, Cell::text(session)),
                        Owner::Guest(_) => unreachable!("interactions are of members and sessions"),
                    };
                    entries.into_iter().map(move |entry| {
                        let times = [Cell::text(entry.item), Cell::text(entry.kind), Cell::text(entry.day), Cell::text(entry.at)];
                        [member.clone(), session.clone()].into_iter().chain(times).collect()
                    })
                })
                .collect();
            assert!(!expected.is_empty());
            assert_eq!(exported, expected, "seed {seed}");
        }
    }

    /// If this failed, pages of orders would differ from their definition.
    #[test]
    fn orders_read_back_are_those_of_the_oracle() {
        use kindred_model::views::member_orders::{Page, read_orders};
        let mut erased = 0;
        for seed in 0..20 {
            let semantics = Semantics::default();
            let inputs = inputs(random_log(seed, 600, &Shape::default()), &semantics);
            let tables = tables(&inputs, &semantics);
            let expected = member_orders(&inputs);
            let named = inputs.orders.values().filter_map(|order| order.member.as_ref());
            for member in named.collect::<std::collections::BTreeSet<_>>() {
                let (mut read, mut after) = (Vec::new(), None);
                loop {
                    let Page { orders, next } = read_orders(&tables, &semantics.rules(), member, after.as_ref(), 2).unwrap();
                    read.extend(orders);
                    after = next;
                    if after.is_none() {
                        break;
                    }
                }
                let expected = expected.get(member).cloned().unwrap_or_default();
                erased += usize::from(expected.is_empty());
                assert_eq!(read.iter().collect::<Vec<_>>(), expected, "{member}, seed {seed}");
            }
            let exported = exported(ViewName::MemberOrders.info(), None, &tables, &semantics).into_iter();
            let exported: Vec<(Cell, Cell)> = exported.map(|cells| (cells[0].clone(), cells[2].clone())).collect();
            let expected: Vec<(Cell, Cell)> = expected
                .iter()
                .flat_map(|(member, orders)| orders.iter().map(move |order| (Cell::text(member), Cell::text(&order.order))))
                .collect();
            assert_eq!(exported, expected, "seed {seed}");
        }
        assert!(erased > 0, "no log erases a member with orders");
    }

    /// If this failed, `verify` would start from other inputs than those stored.
    #[test]
    fn inputs_read_back_from_their_tables() {
        for seed in 0..20 {
            let semantics = small_semantics();
            let inputs = inputs(random_log(seed, 600, &Shape::default()), &semantics);
            let rows = inputs.tables();
            assert_eq!(Inputs::read(&rows as &dyn Rows, &semantics).unwrap(), inputs);
        }
    }

    /// If this failed, merged inputs would depend on order or duplicates.
    #[test]
    fn inputs_are_a_function_of_the_set() {
        for seed in 0..20 {
            let semantics = small_semantics();
            let mut records = random_log(seed, 400, &Shape::default());
            let once = inputs(records.clone(), &semantics);
            let mut rng = testing::Rng::new(seed + 1_000);
            records.extend(records.clone());
            rng.shuffle(&mut records);
            assert_eq!(inputs(records, &semantics), once, "seed {seed}");
        }
    }
}
