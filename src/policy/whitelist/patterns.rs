//! All patterns of a list, matched in one pass.
//!
//! The automaton of the `regex` crate answers for the whole set in time linear
//! in the text. What it cannot express (look-around, back-references,
//! possessive repeats) goes one by one to `fancy-regex`, which backtracks; its
//! steps are bounded, since the text comes from strangers.

use super::Rank;
use super::perl;
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

/// Backtracking steps after which a pattern counts as not matching. A sane
/// pattern needs a few for each octet of a name; a hundred thousand take
/// milliseconds.
const STEPS: usize = 100_000;

/// Octets a single compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// Octets one set may take; more patterns than fit make another set.
const SET_SIZE: usize = 32 << 20;

/// Octets of the automaton's states kept between look-ups: too few, and a
/// large set rebuilds them all the time.
const STATES_SIZE: usize = 8 << 20;

/// The patterns of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    /// Rank and text, in file order, of the patterns for the automaton.
    pub(super) linear: Vec<(Rank, String)>,
    /// The automata made of them: one, unless it would grow too large.
    sets: Vec<Set>,
    /// The patterns which need backtracking, in file order.
    pub(super) backtracking: Vec<(Rank, fancy_regex::Regex)>,
}

/// Patterns which follow each other, as one automaton.
#[derive(Clone, Debug)]
struct Set {
    ranks: Vec<Rank>,
    automaton: RegexSet,
}

impl Patterns {
    /// Takes a pattern in Perl's syntax, without its slashes. The error says,
    /// in one line, why it cannot be used.
    pub fn add(&mut self, pattern: &[u8], rank: Rank) -> Result<(), String> {
        let translated = perl::translate(pattern)?;
        if !translated.needs_backtracking {
            match build_one(&translated.text) {
                Ok(()) => {
                    self.linear.push((rank, translated.text));
                    return Ok(());
                }
                Err(error @ regex::Error::CompiledTooBig(_)) => return Err(last_line(&error)),
                Err(_) => {}
            }
        }
        let regex = build_backtracking(&translated.text).map_err(|error| last_line(&error))?;
        self.backtracking.push((rank, regex));
        Ok(())
    }

    /// Builds the automata; patterns match from now on. Returns those which
    /// have to be left out after all.
    pub fn finish(&mut self) -> Vec<(Rank, String)> {
        self.sets.clear();
        let mut failed = Vec::new();
        build_sets(&self.linear, SET_SIZE, &mut self.sets, &mut failed);
        failed
    }

    /// True if one of the patterns is found anywhere in the text.
    pub fn has(&self, text: &[u8]) -> bool {
        self.sets.iter().any(|set| set.automaton.is_match(text))
            || self
                .backtracking
                .iter()
                .any(|(_, regex)| matches!(regex.is_match(text), Ok(true)))
    }

    /// The first one of those that need no backtracking.
    pub(super) fn find_linear(&self, text: &[u8]) -> Option<Rank> {
        self.sets.iter().find_map(|set| set.find(text))
    }

    /// The first pattern, in file order, found anywhere in the text.
    pub fn find(&self, text: &[u8]) -> Option<Rank> {
        let best = self.find_linear(text);
        let earlier = |&&(rank, _): &&(Rank, _)| best.is_none_or(|found| rank < found);
        let is_found =
            |(_, regex): &&(Rank, fancy_regex::Regex)| matches!(regex.is_match(text), Ok(true));
        let first = self.backtracking.iter().take_while(earlier).find(is_found);
        first.map(|&(rank, _)| rank).or(best)
    }
}

impl Set {
    fn find(&self, text: &[u8]) -> Option<Rank> {
        // Which one it was costs an allocation: only on a hit.
        if !self.automaton.is_match(text) {
            return None;
        }
        let index = self.automaton.matches(text).iter().next()?;
        self.ranks.get(index).copied()
    }
}

fn build_one(text: &str) -> Result<(), regex::Error> {
    let mut builder = RegexBuilder::new(text);
    builder
        .unicode(false)
        .case_insensitive(true)
        .size_limit(PATTERN_SIZE);
    builder.build().map(|_| ())
}

fn build_backtracking(text: &str) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    let mut builder = fancy_regex::RegexBuilder::new(text);
    builder
        .bytes_mode(fancy_regex::BytesMode::Ascii)
        .case_insensitive(true)
        .backtrack_limit(STEPS)
        .delegate_size_limit(PATTERN_SIZE)
        .max_prog_size(PATTERN_SIZE / 16);
    builder.build()
}

/// Builds one set of all patterns or, where that is too large, of each half.
fn build_sets(
    patterns: &[(Rank, String)],
    size: usize,
    sets: &mut Vec<Set>,
    failed: &mut Vec<(Rank, String)>,
) {
    if patterns.is_empty() {
        return;
    }
    let mut builder = RegexSetBuilder::new(patterns.iter().map(|(_, text)| text));
    builder
        .unicode(false)
        .case_insensitive(true)
        .size_limit(size)
        .dfa_size_limit(STATES_SIZE);
    match (builder.build(), patterns) {
        (Ok(automaton), _) => {
            let ranks = patterns.iter().map(|&(rank, _)| rank).collect();
            sets.push(Set { ranks, automaton });
        }
        (Err(error), [(rank, _)]) => failed.push((*rank, last_line(&error))),
        (Err(_), _) => {
            let (head, tail) = patterns.split_at(patterns.len() / 2);
            build_sets(head, size, sets, failed);
            build_sets(tail, size, sets, failed);
        }
    }
}

/// The engines draw the pattern and point at the mistake, over several lines;
/// the reason stands in the last one.
fn last_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let reason = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    format!("bad pattern: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(all: &[&str]) -> Patterns {
        let mut patterns = Patterns::default();
        for (rank, pattern) in all.iter().enumerate() {
            patterns.add(pattern.as_bytes(), rank).expect(pattern);
        }
        assert_eq!(patterns.finish(), []);
        patterns
    }

    #[test]
    fn nothing_matches_an_empty_list() {
        assert_eq!(patterns(&[]).find(b"a"), None);
    }

    #[test]
    fn first_in_file_order_wins_over_both_engines() {
        let list = patterns(&["(?<!x)a", "a", "(b)\\1", "b", "(?=c)c"]);
        assert_eq!(list.find(b"ya"), Some(0));
        assert_eq!(list.find(b"xa"), Some(1));
        assert_eq!(list.find(b"bb"), Some(2));
        assert_eq!(list.find(b"b"), Some(3));
        assert_eq!(list.find(b"xC"), Some(4));
        assert_eq!(list.find(b"z"), None);
        assert_eq!((list.linear.len(), list.backtracking.len()), (2, 3));
    }

    #[test]
    fn a_pattern_that_runs_away_counts_as_no_match() {
        let list = patterns(&["^(a|aa)+\\1$", "b$"]);
        let mut name = vec![b'a'; 300];
        name.push(b'b');
        assert_eq!(list.find(&name), Some(1));
    }

    #[test]
    fn bad_patterns_are_told_in_one_line() {
        for bad in [
            "(",
            "[a",
            "*a",
            "a**",
            "(?<=a",
            "\\",
            "a{2,1}",
            "(?z)a",
            "\\2",
            "(?:x{999}){999}",
        ] {
            let why = Patterns::default().add(bad.as_bytes(), 0).expect_err(bad);
            assert!(
                why.starts_with("bad pattern: ") && why.len() > 20,
                "{bad}: {why}"
            );
            assert!(!why.contains('\n'), "{bad}: {why}");
        }
    }

    #[test]
    fn a_large_set_is_split_and_keeps_its_order() {
        let texts: Vec<(Rank, String)> = (0..50).map(|n| (n, format!("^h{n}x?$"))).collect();
        let (mut sets, mut failed) = (Vec::new(), Vec::new());
        build_sets(&texts, 10_000, &mut sets, &mut failed);
        assert!(
            sets.len() > 1 && failed.is_empty(),
            "{} sets, {failed:?}",
            sets.len()
        );
        let list = Patterns {
            sets,
            ..Patterns::default()
        };
        assert_eq!(list.find(b"H49x"), Some(49));
        assert_eq!(list.find(b"h0"), Some(0));
    }

    #[test]
    fn a_pattern_too_large_for_any_set_is_returned() {
        let (mut sets, mut failed) = (Vec::new(), Vec::new());
        build_sets(
            &[(3, "a{100}".into()), (4, "b".into())],
            2_000,
            &mut sets,
            &mut failed,
        );
        assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [3]);
        assert_eq!(sets.len(), 1);
    }

    #[test]
    fn octets_are_octets_in_both_engines() {
        let list = patterns(&[
            "^x\\xe9$",
            "^y[\\x80-\\xff]+$",
            "^(z)\\1\\xe9[^a]$",
            "(?<!\\w)\\bq\\W$",
        ]);
        assert_eq!(list.find(b"x\xe9"), Some(0));
        assert_eq!(list.find(b"x\xc9"), None, "case is folded in ASCII only");
        assert_eq!(list.find(b"y\xc3\xa9"), Some(1));
        assert_eq!(list.find(b"zz\xe9\xff"), Some(2));
        assert_eq!(list.find(b"zz\xc9\xff"), None);
        assert_eq!(
            list.find(b"\xe9q\xe9"),
            Some(3),
            "a high octet is no word character"
        );
    }
}
