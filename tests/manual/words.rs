//! The words of a page that are the same in every language.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::{arguments, plain};

/// Headings of the English page, and those of the Japanese one.
pub const TITLES: &[(&str, &str)] = &[
    ("NAME", "名前"),
    ("SYNOPSIS", "書式"),
    ("DESCRIPTION", "説明"),
    ("OPTIONS", "オプション"),
    ("Sockets", "ソケット"),
    ("Process", "プロセス"),
    ("Database", "データベース"),
    ("Greylisting", "greylisting"),
    ("Tarpit", "tarpit"),
    ("Whitelists", "ホワイトリスト"),
    ("Replies", "答え"),
    ("Log", "ログ出力"),
    ("Information", "情報"),
    ("HOW A REQUEST IS DECIDED", "要求の判定"),
    ("Pools", "プール"),
    ("The tarpit of taRgrey", "taRgrey の tarpit"),
    ("A flood of new triplets", "新しいトリプレットの洪水"),
    ("The triplet", "トリプレット"),
    ("PROTOCOL", "プロトコル"),
    ("RECORDS", "レコード"),
    ("Maintenance", "保守"),
    ("Verification", "検査"),
    ("SEVERAL MX HOSTS", "複数の MX ホスト"),
    ("Two hosts and one Redis", "2 台のホストと 1 台の Redis"),
    ("Three hosts and a cluster", "3 台のホストとクラスタ"),
    ("Records", "Redis のレコード"),
    ("Options that must be equal", "同じにするオプション"),
    ("What stays on one host", "ホストごとに残るもの"),
    (
        "Two hosts at the same instant",
        "2 台のホストで同時に起きたとき",
    ),
    ("Clocks", "時計"),
    ("When Redis is in trouble", "Redis に障害があるとき"),
    ("What can be lost", "失われることがあるもの"),
    ("Memory and eviction", "メモリと追い出し"),
    ("Sizing", "規模の見積もり"),
    (
        "From lmdb to Redis and back",
        "lmdb から Redis へ、Redis から lmdb へ",
    ),
    ("LOG", "ログ"),
    ("Requests", "要求"),
    ("Start and end", "起動と終了"),
    ("The database", "データベースの状態"),
    ("Trouble", "障害"),
    ("PROCESSES AND SIGNALS", "プロセスとシグナル"),
    ("EXIT STATUS", "終了ステータス"),
    ("LIMITS", "上限"),
    ("FILES", "ファイル"),
    ("COMPATIBILITY", "互換性"),
    ("SECURITY", "セキュリティ"),
    ("EXAMPLES", "設定例"),
    (
        "Postfix, by TCP or by a UNIX socket",
        "Postfix (TCP または UNIX ソケット)",
    ),
    ("Postfix, by spawn(8)", "Postfix (spawn(8))"),
    ("Exim", "Exim"),
    ("SMF", "SMF"),
    ("init and systemd", "init と systemd"),
    ("FreeBSD", "FreeBSD"),
    ("Asking by hand", "手で問い合わせる"),
    ("SEE ALSO", "関連項目"),
    ("AUTHORS", "作者"),
];

/// This file, for those who have to add to it.
pub const FILE: &str = file!();

/// Words in a font or in quotes, and tags, that are no names but language.
const TRANSLATED: &[(&str, &str)] = &[
    ("must", "必ず"),
    ("was successful", "通過済み"),
    ("the original", "オリジナル"),
    ("Lists, --s25r", "一覧、--s25r"),
    (
        "A host is cut off from Redis",
        "ホストが Redis から切り離された",
    ),
    ("A master dies", "マスタが止まった"),
    ("A network split", "ネットワークが分断された"),
    ("Redis is killed", "Redis が kill された"),
    ("The machine crashes", "マシンがクラッシュした"),
    ("A replica takes over", "レプリカが引き継いだ"),
    ("Memory is full", "メモリがいっぱいになった"),
];

/// What is in bold or italics inside of a line.
static IN_FONT: LazyLock<Regex> = LazyLock::new(|| regex(r"\\f[BI](.+?)\\f[PR]"));
static OPTION: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:^|[^\w-])(--[a-z0-9][a-z0-9-]*)"));
/// Figures, names in capitals, names with an underscore, quotes.
static OTHER: LazyLock<Regex> = LazyLock::new(|| {
    regex(r#"[0-9]+(?:\.[0-9]+)*|\b[A-Z][A-Z0-9_]{2,}\b|\b[a-z]+(?:_[a-z0-9]+)+\b|"[^"]+""#)
});

fn regex(expression: &str) -> Regex {
    Regex::new(expression).unwrap()
}

/// What a paragraph says in any language.
#[derive(Default)]
pub struct Words {
    /// Options of the server.
    options: BTreeSet<String>,
    /// Figures, names in capitals or with an underscore, what is in a font or in
    /// quotes.
    others: BTreeSet<String>,
}

impl Words {
    pub fn add(&mut self, more: Words) {
        self.options.extend(more.options);
        self.others.extend(more.others);
    }

    /// A part in bold or italics, up to where the font ends.
    fn add_in_font(&mut self, part: &str) {
        let part = part.split("\\fR").next().unwrap();
        let part = part.split("\\fP").next().unwrap();
        self.others.insert(plain(part).trim().to_owned());
    }

    /// What the translation, which is this text, lacks or has too much.
    pub fn missing_in(&self, translation: &Words, text: &str) -> Vec<String> {
        let lacking = self.options.difference(&translation.options);
        let lacking = lacking.chain(
            self.others
                .iter()
                .filter(|word| !text.contains(*word) && !text.contains(translated(word))),
        );
        let mut found: Vec<String> = lacking.map(|word| format!("lacks {word}")).collect();
        let more = translation.options.difference(&self.options);
        found.extend(more.map(|word| format!("has {word}")));
        found
    }
}

/// The word as the translation has it.
pub fn translated(word: &str) -> &str {
    TRANSLATED
        .iter()
        .chain(TITLES)
        .find(|(of, _)| *of == word)
        .map_or(word, |(_, japanese)| japanese)
}

/// The text of a line of a page, and its words.
pub fn words(line: &str) -> (String, Words) {
    let mut words = Words::default();
    let mut text = match line.strip_prefix('.') {
        None => plain(line),
        Some(request) => {
            let (name, rest) = request.split_once(' ').unwrap_or((request, ""));
            let parts = arguments(rest);
            let is_mixed = name.len() == 2;
            let in_turn = name.chars().cycle().zip(&parts);
            match is_mixed {
                true => in_turn
                    .filter(|(font, _)| *font != 'R')
                    .for_each(|(_, part)| words.add_in_font(part)),
                false => words.add_in_font(&parts.join(" ")),
            }
            plain(&parts.join(if is_mixed { "" } else { " " }))
        }
    };
    for found in IN_FONT.captures_iter(line) {
        words.add_in_font(&found[1]);
    }
    for found in OPTION.captures_iter(&text) {
        words.options.insert(found[1].to_owned());
    }
    let whole = text.clone();
    // A section that is named in the text, not in a font.
    for (title, _) in TITLES {
        if title.to_uppercase() == *title && text.contains(title) {
            text = text.replace(title, "");
            words.others.insert((*title).to_owned());
        }
    }
    for found in OTHER.find_iter(&text) {
        words
            .others
            .insert(found.as_str().trim_matches('"').to_owned());
    }
    words.others.remove("");
    (whole, words)
}
