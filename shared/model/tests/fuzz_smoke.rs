//! The fuzz targets on the stable compiler: mutated examples through each decoder, for a second or as long as
//! `KINDRED_FUZZ_SECONDS` says. The same inputs every time for the same number of rounds. If it fails, hostile bytes stop a server.

use std::path::Path;
use std::time::{Duration, Instant};

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::views::also_bought::Neighbors;
use kindred_model::views::inputs::StoredInteraction;
use kindred_model::{Day, EventTime, ItemId, Kind, Owner};

#[path = "../../../fuzz/targets.rs"]
mod targets;

/// SplitMix64: a seed is all there is to know of a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// What breaks parsers, in pieces to paste.
const PIECES: &[&[u8]] = &[
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[",
    b"}}",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"\\u00ff",
    b"\xff",
    b"\xc3\x28",
    b"\0",
    b"\xef\xbb\xbf",
    b"NaN",
    b"Infinity",
    b"-0",
    b"1e999",
    b"1e-999",
    b"0.1",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"9223372036854775807",
    b"10000000000001",
    b"2000-01-01T00:00:00Z",
    b"1970-01-01T00:00:00Z",
    b"2099-12-31T23:59:60.999999999Z",
    b"2100-02-29T00:00:00+23:59",
    b"9999-12-31T23:59:59Z",
    b"search",
    b"\"retract\":true,",
    b"\"erased\":true,",
    b"\"session\":\"s\",",
    b"\"lines\":",
    b"\"refunds\":[",
    b"\xe2\x80\xa8",
    b"  ",
    b",",
    b"i0.18446744073709551615",
    b"-o0.1",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
    b"\xff\xff\xff\xff",
    "ẞİΣ ｆｕｌｌ ﬁ".as_bytes(),
    "e\u{301}\u{327}".as_bytes(),
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(5) {
        let place = random.below(bytes.len() + 1);
        let end = (place + random.below(12)).min(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => drop(bytes.splice(place..end, random.of(PIECES).iter().copied())),
            3 => drop(bytes.splice(place..place, random.of(PIECES).iter().copied())),
            4 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            5 if place < bytes.len() => bytes[place] = random.next() as u8,
            6 => {
                let again = bytes[place..end].to_vec();
                drop(bytes.splice(place..place, again));
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(place);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(1 << 16);
    bytes
}

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
    // Without their white space, so that a mutation more often hits something.
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
            let dated = kindred_model::records::InteractionKey { day: Some(day), ..key.clone() };
            vec![
                (interaction.owner.clone(), key).to_bytes(),
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
                    from_invites: 100,
                    from_items: vec![(day, 10), (Day(20_500), -5)],
                }),
            ]
        }
        _ => panic!("no seeds for {target}"),
    }
}

/// Says which bytes it was when a target panics.
struct Blame<'a>(&'a str, &'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the target {} does not hold for b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

#[test]
fn every_target_holds_on_mutated_examples() {
    let seconds = std::env::var("KINDRED_FUZZ_SECONDS").map_or(1.0, |seconds| seconds.parse().expect("a number of seconds"));
    let each = Duration::from_secs_f64(seconds / targets::ALL.len() as f64);
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        for seed in &seeds {
            let _blame = Blame(name, seed);
            target(seed);
        }
        let (start, mut random, mut rounds) = (Instant::now(), Random(1), 0u64);
        // At least so many however slow the machine is: a test that tried nothing would show nothing.
        while rounds < 2_000 || start.elapsed() < each {
            let bytes = mutate(&mut random, &seeds);
            let _blame = Blame(name, &bytes);
            target(&bytes);
            rounds += 1;
        }
        println!("{name}: {rounds} inputs");
    }
}

/// The fuzzer has a binary for each target: one that is only in the list would be fuzzed by nobody.
#[test]
fn every_target_has_its_binary() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in targets::ALL {
        let binary = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(binary.contains(&format!("targets::{name}(bytes)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets::ALL.len());
}
