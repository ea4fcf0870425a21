//! `man/ja/postgrey.8` against the English page.
//!
//! What is proved: it has the same sections, options, files, signals
//! and other tags in the same order, the same examples and lines of the log, and as
//! many paragraphs, each with the options, figures, names and literal words of the
//! English one. What that does not see, a change of words alone, is seen by a mark:
//! each section names the state of the English one that it says the same as.

use std::fs;

use sha1::{Digest, Sha1};

use super::words::{self, TITLES, Words, words};
use super::{arguments, plain, root};

const ENGLISH: &str = "man/postgrey.8";
const JAPANESE: &str = "man/ja/postgrey.8";
/// What a mark begins with, in the line after a heading.
const MARK: &str = ".\\\" English: ";

/// Examples with words in them, by their first line, which are translated.
const TABLES: &[&str] = &[
    "asked at  client in",
    "RCPT      yes or no   too small",
    "database             key",
    "name or value of an attribute",
    "                    targrey-1.37",
    "record (with its time to live)",
];

/// A section or a part of one.
struct Section {
    title: String,
    items: Vec<Item>,
    /// The English text, without line ends.
    source: String,
    mark: Option<String>,
}

/// A paragraph with its tag, or a block of examples.
struct Item {
    tag: String,
    is_block: bool,
    text: String,
    words: Words,
}

impl Item {
    fn paragraph(tag: &str) -> Item {
        Item {
            tag: tag.to_owned(),
            is_block: false,
            text: String::new(),
            words: Words::default(),
        }
    }

    fn block(lines: &[&str]) -> Item {
        let shown = lines.iter().filter(|line| !line.starts_with(".R"));
        let text: Vec<String> = shown.map(|line| plain(line)).collect();
        let text = text.join("\n");
        Item {
            tag: String::new(),
            is_block: true,
            words: words(&text).1,
            text,
        }
    }

    /// How a message names it.
    fn name(&self) -> String {
        let text: String = self.text.trim().chars().take(60).collect();
        let text = text.replace('\n', " / ");
        match (self.is_block, self.tag.as_str()) {
            (true, _) => format!("the lines \"{text}...\""),
            (false, "") => format!("the paragraph \"{text}...\""),
            (false, tag) => format!("\"{tag}\": {text}..."),
        }
    }

    /// What the Japanese item lacks of the English one, and has too much.
    fn differences(&self, japanese: &Item) -> Vec<String> {
        if self.is_block != japanese.is_block || words::translated(&self.tag) != japanese.tag {
            return vec!["it is another one".to_owned()];
        }
        let is_table = TABLES.iter().any(|first| self.text.starts_with(first));
        if self.is_block && !is_table {
            let is_same = self.text == japanese.text;
            return if is_same {
                vec![]
            } else {
                vec!["the lines differ".to_owned()]
            };
        }
        self.words.missing_in(&japanese.words, &japanese.text)
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The sections of a page.
fn sections(source: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(name, ".SH" | ".SS") {
            sections.push(Section {
                title: plain(&arguments(rest).join(" ")),
                items: Vec::new(),
                source: String::new(),
                mark: None,
            });
        }
        let Some(section) = sections.last_mut() else {
            continue;
        };
        if let Some(mark) = line.strip_prefix(MARK) {
            section.mark = Some(mark.to_owned());
        }
        section.source += &format!("{line} ");
        match name {
            ".SH" | ".SS" | ".\\\"" => section.source.clear(),
            ".PP" | ".RS" | ".RE" => section.items.push(Item::paragraph("")),
            ".IP" => section.items.push(Item::paragraph(&plain(rest))),
            ".TP" => {
                let tag = lines.next().unwrap();
                section.source += &format!("{tag} ");
                section.items.push(Item::paragraph(&words(tag).0));
            }
            ".nf" => {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != ".fi").collect();
                section.source += &block.join("\n");
                section.items.push(Item::block(&block));
                section.items.push(Item::paragraph(""));
            }
            _ => {
                if section.items.is_empty() {
                    section.items.push(Item::paragraph(""));
                }
                let item = section.items.last_mut().unwrap();
                let (text, words) = words(line);
                item.text += &(text + " ");
                item.words.add(words);
            }
        }
    }
    for section in &mut sections {
        let is_empty = |item: &Item| item.text.is_empty() && item.tag.is_empty();
        section.items.retain(|item| !is_empty(item));
    }
    sections
}

fn state(section: &Section) -> String {
    let words: Vec<&str> = section.source.split_whitespace().collect();
    let hash = Sha1::digest(words.join(" ").as_bytes());
    hash.iter()
        .take(4)
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// The items that are the same in both, in their order, as many as possible.
fn common(english: &[Item], japanese: &[Item]) -> Vec<(usize, usize)> {
    let same = |e: usize, j: usize| english[e].differences(&japanese[j]).is_empty();
    let (height, width) = (english.len(), japanese.len());
    let mut length = vec![vec![0; width + 1]; height + 1];
    for e in (0..height).rev() {
        for j in (0..width).rev() {
            length[e][j] = match same(e, j) {
                true => 1 + length[e + 1][j + 1],
                false => length[e + 1][j].max(length[e][j + 1]),
            };
        }
    }
    let (mut e, mut j, mut pairs) = (0, 0, Vec::new());
    while e < height && j < width {
        if same(e, j) {
            pairs.push((e, j));
            (e, j) = (e + 1, j + 1);
        } else if length[e + 1][j] >= length[e][j + 1] {
            e += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// What differs between two sections.
fn compare(english: &Section, japanese: &Section) -> Vec<String> {
    let mut found = Vec::new();
    let mut pairs = common(&english.items, &japanese.items);
    pairs.push((english.items.len(), japanese.items.len()));
    let (mut from_e, mut from_j) = (0, 0);
    for (e, j) in pairs {
        let ours = &english.items[from_e..e];
        let theirs = &japanese.items[from_j..j];
        let is_one_for_one = ours.len() == theirs.len();
        let mut others: Vec<&Item> = theirs.iter().collect();
        for (at, item) in ours.iter().enumerate() {
            let tag = words::translated(&item.tag);
            let is_its = |other: &&Item| !tag.is_empty() && other.tag == tag;
            let its = others.iter().position(is_its);
            let its = its.map(|at| others.remove(at));
            match its.or(is_one_for_one.then(|| &theirs[at])) {
                None => found.push(format!("lacks {}", item.name())),
                Some(other) => found.push(format!(
                    "{}\n    is in Japanese {}\n    {}",
                    item.name(),
                    other.name(),
                    item.differences(other).join(", ")
                )),
            }
        }
        if !is_one_for_one {
            let others = others.iter();
            found.extend(others.map(|item| format!("has, in this place, {}", item.name())));
        }
        (from_e, from_j) = (e + 1, j + 1);
    }
    found
}

/// Everything that keeps the pages from being in step.
fn complaints(english: &str, japanese: &str) -> Vec<String> {
    let mut found = Vec::new();
    let header = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(".TH"));
        arguments(line.unwrap())[..5].join(" ")
    };
    if header(english) != header(japanese) {
        found.push(format!("the line .TH is {}", header(english)));
    }
    let (ours, theirs) = (sections(english), sections(japanese));
    let mut rest = theirs.iter().peekable();
    for section in &ours {
        let title = &section.title;
        let Some((_, wanted)) = TITLES.iter().find(|(of, _)| of == title) else {
            found.push(format!(
                "the section \"{title}\" has no title in Japanese: add it to TITLES in {}",
                words::FILE
            ));
            continue;
        };
        if rest.peek().is_none_or(|other| other.title != *wanted) {
            match theirs.iter().any(|other| other.title == *wanted) {
                true => found.push(format!("the section {title} ({wanted}) is elsewhere")),
                false => found.push(format!("the section {title} ({wanted}) is missing")),
            }
            continue;
        }
        let other = rest.next().unwrap();
        let differences = compare(section, other).into_iter();
        found.extend(differences.map(|text| format!("section {title} ({wanted}): {text}")));
        if !section.items.is_empty() && other.mark.as_ref() != Some(&state(section)) {
            found.push(format!(
                "section {title} ({wanted}): the English text has changed since; when this one \
                 says the same, write below its heading\n    {MARK}{}",
                state(section)
            ));
        }
    }
    found.extend(rest.map(|other| format!("the section {} is in Japanese only", other.title)));
    found
}

#[test]
fn the_japanese_page_is_in_step_with_the_english_one() {
    let found = complaints(&read(ENGLISH), &read(JAPANESE));
    let sections = sections(&read(ENGLISH));
    let count: usize = sections.iter().map(|section| section.items.len()).sum();
    assert!(sections.len() > 40 && count > 230, "{count}");
    assert!(
        found.is_empty(),
        "{JAPANESE} is not in step with {ENGLISH}:\n* {}",
        found.join("\n* ")
    );
}

/// The comparison sees what it is for: each of these changes of the English page,
/// and says where.
#[test]
fn a_change_of_the_english_page_is_named() {
    let (english, japanese) = (read(ENGLISH), read(JAPANESE));
    let new_section = ".SH QUITE ANOTHER\nIt is new.\n.SH COMPATIBILITY\n";
    for (old, new, said) in [
        (
            ".SH COMPATIBILITY\n",
            new_section,
            "\"QUITE ANOTHER\" has no title",
        ),
        (
            ".TP\n.BI \\-\\-delay= SECONDS\n",
            ".TP\n.BI \\-\\-later= N\nAn option.\n.TP\n.BI \\-\\-delay= SECONDS\n",
            "section Greylisting (greylisting): lacks \"--later=N\": An option.",
        ),
        ("Default: 300.\n", "Default: 301.\n", "lacks 301"),
        (
            ".SS Pools\n",
            ".SS Pools\nA paragraph.\n.PP\n",
            "section Pools (プール): lacks the paragraph \"A paragraph.",
        ),
        (
            "svcadm enable postgrey\n.RE",
            "svcadm restart postgrey\n.RE",
            "section SMF (SMF): the lines \"svccfg",
        ),
        (
            ".B USR1\n",
            ".B USR2\n",
            "section PROCESSES AND SIGNALS (プロセスとシグナル): \"USR2\"",
        ),
        (
            ".I /etc/default/postgrey\nOptions",
            ".I /etc/default/grey\nOptions",
            "section FILES (ファイル): \"/etc/default/grey\"",
        ),
        (
            "Log each connection, too.",
            "Log no connection.",
            "section Log (ログ出力): the English text has changed since",
        ),
        (".SH SECURITY\n", ".SH SAFETY\n", "\"SAFETY\" has no title"),
        ("postgrey 2.0.0", "postgrey 2.0.1", "the line .TH is "),
    ] {
        assert_eq!(english.matches(old).count(), 1, "{old}");
        let found = complaints(&english.replace(old, new), &japanese).join("\n* ");
        assert!(found.contains(said), "{said}\n--\n{found}");
    }
    // A section that is gone from the Japanese page, and one in another place.
    let without = japanese.replace(".SH セキュリティ\n", "");
    let found = complaints(&english, &without).join("\n");
    assert!(
        found.contains("SECURITY (セキュリティ) is missing"),
        "{found}"
    );
    let (start, end) = japanese.split_once(".SH ファイル\n").unwrap();
    let (files, end) = end.split_once(".SH 互換性\n").unwrap();
    let swapped = format!("{start}.SH 互換性\n{end}.SH ファイル\n{files}");
    let found = complaints(&english, &swapped).join("\n");
    assert!(found.contains("FILES (ファイル) is elsewhere"), "{found}");
}
