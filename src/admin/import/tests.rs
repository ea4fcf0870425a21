//! Texts of every format, varied at random: what is wrong is refused with its
//! line, and nothing else happens.

use super::*;

/// Numbers without a pattern (xorshift), the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit.max(1)
    }
}

/// A text of each format that an import takes, to be varied. Each has the
/// records of one database: mixed ones are refused as another program's,
/// however they are varied.
fn seeds() -> Vec<Vec<u8>> {
    let triplet = ("192.0.2.0/a\\fc\\\\/b", "1700000000,1700000400,1,91");
    let client = ("192.0.2.1", "5,1700000000");
    let digits = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let mut print =
        String::from("VERSION=3\nformat=print\ndatabase=postgrey.db\ntype=btree\nHEADER=END\n");
    let mut hex = String::from(
        "VERSION=3\nformat=bytevalue\ndatabase=postgrey_clients.db\ntype=btree\nHEADER=END\n",
    );
    let (mut tab, mut json) = (String::new(), String::new());
    for _ in 0..12 {
        let (key, value) = triplet;
        print.push_str(&format!(" {key}\n {value}\n"));
        tab.push_str(&format!("{key}\t{value}\n"));
        let (key, value) = client;
        hex.push_str(&format!(" {}\n {}\n", digits(key), digits(value)));
        json.push_str(
            &serde_json::json!({"key": key, "value": value, "database": "clients"}).to_string(),
        );
        json.push('\n');
    }
    print.push_str("DATA=END\n");
    hex.push_str("DATA=END\n");
    [print, hex, tab, json].map(String::into_bytes).to_vec()
}

const SCRAPS: [&[u8]; 14] = [
    b"\n",
    b"\t",
    b" ",
    b"\\",
    b"\0",
    b"\xff",
    b",",
    b"/",
    b"DATA=END\n",
    b"HEADER=END\n",
    b"VERSION=3\n",
    b"database=x\n",
    b"{\"key\":{}}\n",
    b"999999999999999999999999999999e999",
];

/// The seed with up to eight pieces cut, doubled, overwritten or filled.
fn varied(random: &mut Random, mut text: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(8) {
        let at = random.below(text.len());
        let end = (at + random.below(40)).min(text.len());
        match random.below(5) {
            0 => text.truncate(at),
            1 => {
                let piece = text[at..end].to_vec();
                text.splice(at..at, piece);
            }
            2 => {
                text.drain(at..end);
            }
            3 => {
                let octet = random.below(256) as u8;
                if let Some(old) = text.get_mut(at) {
                    *old = octet;
                }
            }
            _ => {
                let scrap = SCRAPS[random.below(SCRAPS.len())];
                text.splice(at..at, scrap.iter().copied());
            }
        }
    }
    text
}

#[test]
fn ten_thousand_hostile_texts_are_refused_with_a_line_or_taken_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let seeds = seeds();
    for seed in &seeds {
        assert_eq!(try_text(seed, dir.path()), Ok(12));
    }
    let (mut refused, mut taken) = (0, 0);
    for round in 0..10_000 {
        let text = varied(&mut random, seeds[round % seeds.len()].clone());
        match try_text(&text, dir.path()) {
            Ok(_) => taken += 1,
            Err(message) => {
                refused += 1;
                let start = message.strip_prefix("ERROR: TEXT line ").expect(&message);
                let (line, _) = start.split_once(": ").expect(&message);
                let lines = text.iter().filter(|&&octet| octet == b'\n').count() + 1;
                assert!(line.parse::<usize>().expect(&message) <= lines, "{message}");
            }
        }
    }
    assert!(refused > 500 && taken > 500, "{refused} {taken}");
}
