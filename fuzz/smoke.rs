//! Runs fuzz targets on the stable compiler: mutated examples, for a second or as long as `KINDRED_FUZZ_SECONDS` says. The same inputs
//! every time for the same number of rounds. Tests include it beside a file of targets.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// The list of all targets of a file, by name; the fuzzer has a binary of that name for each.
macro_rules! targets {
    [$($name:ident),+ $(,)?] => {
        /// All targets by name.
        pub const ALL: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),+];
    };
}

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
    b"%2f",
    b"%ff",
    b"&",
    b"=",
    b"; ",
    b"\n",
    b"\r\n",
    b"::ffff:10.0.0.1",
    b"W/\"",
    b"Bearer ",
    b"`",
    b"/~1",
    b".",
    b"@",
    b"+86",
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

/// Says which bytes it was when a target panics.
struct Blame<'a>(&'a str, &'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the target {} does not hold for b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

/// Runs targets one after the other, all of them though one does not hold; `seeds` are a target's examples. Each has a binary.
pub fn run(all: &[(&str, Target)], seeds: impl Fn(&str) -> Vec<Vec<u8>>) {
    check_binaries(all);
    let seconds = std::env::var("KINDRED_FUZZ_SECONDS").map_or(1.0, |seconds| seconds.parse().expect("a number of seconds"));
    let each = Duration::from_secs_f64(seconds / all.len() as f64);
    let holds = |(name, target): &&(&str, Target)| {
        std::panic::catch_unwind(AssertUnwindSafe(|| run_one(name, *target, &seeds(name), each))).is_ok()
    };
    let broken: Vec<&str> = all.iter().filter(|one| !holds(one)).map(|(name, _)| *name).collect();
    assert!(broken.is_empty(), "do not hold: {}", broken.join(", "));
}

fn run_one(name: &str, target: Target, seeds: &[Vec<u8>], each: Duration) {
    for seed in seeds {
        let _blame = Blame(name, seed);
        target(seed);
    }
    let (start, mut random, mut rounds) = (Instant::now(), Random(1), 0u64);
    // At least so many however slow the machine is: a test that tried nothing would show nothing.
    while rounds < 2_000 || start.elapsed() < each {
        let bytes = mutate(&mut random, seeds);
        let _blame = Blame(name, &bytes);
        target(&bytes);
        rounds += 1;
    }
    println!("{name}: {rounds} inputs");
}

/// The fuzzer has a binary for each target: one without would be fuzzed by nobody.
fn check_binaries(all: &[(&str, Target)]) {
    for (name, _) in all {
        let binary = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/target.rs\"");
        assert!(include_str!("Cargo.toml").contains(&binary), "{name} has no binary");
        assert!(include_str!("README.md").contains(&format!("`{name}`")), "{name} is not in the readme");
    }
}
