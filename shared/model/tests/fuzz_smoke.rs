//! The fuzz targets of the model on the stable compiler. If this failed, hostile bytes could stop a server.

use std::path::Path;

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::views::also_bought::Neighbors;
use kindred_model::views::inputs::StoredInteraction;
use kindred_model::{Day, EventTime, ItemId, Kind, Owner};

#[path = "../../../fuzz/smoke.rs"]
#[macro_use]
mod smoke;

#[path = "../../../fuzz/targets.rs"]
mod targets;

/// The examples of a topic, valid and invalid.
fn examples(topic: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/events/examples").join(topic);
    let mut paths: Vec<_> = [folder.join("invalid"), folder]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    let texts = paths.iter().map(|path| std::fs::read(path).unwrap()).filter(|bytes| bytes.len() < 4_096);
    // Without white space, so that mutations more often hit something.
    texts.map(|text| serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(&text).unwrap()).unwrap()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let item = ItemId::trusted("i-1");
    let day = Day(20_458);
    match target {
        "interaction" => examples("interactions"),
        "order" => examples("orders"),
        "catalog" => examples("catalog"),
        "ledger" => examples("ledger"),
        "member" => examples("members"),
        "position" => texts(&["0", "i0.1234-o0.17", "c0.1-m4294967295.18446744073709551615", "i0.1-i1.2"]),
        "time" => {
            texts(&["2026-01-05T10:11:12.123Z", "2000-02-29t23:59:60+01:00", "2026-01-05", "2099-12-31T23:59:59.999999999-23:59"])
        }
        "query" => texts(&["  Blue   running\tSHOES ", "Größe ３８", "ﬁn\u{ad}e", &"x".repeat(200), &"é ".repeat(90)]),
        "key" => {
            let interaction = kindred_model::records::Interaction::decode(
                br#"{"session":"s","kind":"search","query":"Blue shoes","at":"2026-01-05T10:11:12Z","retract":true}"#,
            )
            .unwrap();
            let key = interaction.key();
            let dated = kindred_model::records::InteractionKey { day: Some(day), scenario: Box::default(), ..key.clone() };
            let shown =
                kindred_model::records::InteractionKey { kind: Kind::Impression, scenario: "home".into(), ..dated.clone() };
            vec![
                (interaction.owner.clone(), key).to_bytes(),
                (Owner::Guest("o-1".parse().unwrap()), shown).to_bytes(),
                (Owner::Member("m-1".parse().unwrap()), dated).to_bytes(),
                (item, Kind::View, day).to_bytes(),
                day.to_bytes(),
            ]
        }
        "row" => {
            fn bytes(row: &impl RowCodec) -> Vec<u8> {
                let mut bytes = Vec::new();
                row.encode(&mut bytes);
                bytes
            }
            let at = EventTime(1_767_607_872_123);
            vec![
                bytes(&u64::MAX),
                bytes(&at),
                bytes(&StoredInteraction { at, payload: b"{\"rank\":1}".as_slice().into() }),
                bytes(&Neighbors(vec![(item.clone(), 1), (item, 300)])),
                bytes(&kindred_model::views::points::Earned {
                    differences: [(day, 10), (Day(20_500), -5)]
                        .map(|(day, points)| kindred_model::views::points::Difference {
                            lot: kindred_model::loyalty::Lot { known_from: day, available_from: day, expires_on: None },
                            points,
                            level_points: 0,
                            from_invites: 100,
                        })
                        .to_vec(),
                }),
            ]
        }
        _ => panic!("no seeds for {target}"),
    }
}

#[test]
fn every_target_holds_on_mutated_examples() {
    smoke::run(targets::ALL, seeds);
}
