//! `text`: words, regular expressions and distances.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;
use super::super::str_methods::{lower, strip, title, upper};
use super::super::str_split::{own, texts};

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new("text.char_ngrams(s, n)", "All runs of n characters.", ("text.char_ngrams(\"abcd\", 3)", "[\"abc\", \"bcd\"]"), char_ngrams).passes_none(),
    Def::new("text.contains_any(s, words)", "Whether one of the strings occurs in it.", ("text.contains_any(\"iPhone 15 Pro\", [\"Pro\", \"Max\"])", "True"), contains_any).passes_none(),
    Def::new("text.count(s, pattern)", "How often the regular expression matches.", ("text.count(\"a1b22\", \"[0-9]+\")", "2"), count).passes_none().pattern(1),
    Def::new("text.find_all(s, pattern)", "Every match of the regular expression.", ("text.find_all(\"a1b22\", \"[0-9]+\")", "[\"1\", \"22\"]"), find_all).passes_none().pattern(1),
    Def::new("text.jaccard(a, b)", "The share of words that both have, of all their words: 0 to 1.", ("text.jaccard(\"red shoe\", \"blue shoe\")", "0.3333333333333333"), jaccard).passes_none(),
    Def::new("text.levenshtein(a, b)", "How many characters to insert, delete or replace to make one the other; at most 10,000 characters each.", ("text.levenshtein(\"kitten\", \"sitting\")", "3"), levenshtein).passes_none(),
    Def::new("text.lower(s)", "In lower case.", ("text.lower(\"AbC\")", "\"abc\""), lower).passes_none(),
    Def::new("text.matches(s, pattern)", "Whether the regular expression matches anywhere; `^` and `$` bind it to the ends.", ("text.matches(\"iPhone 15\", \"[0-9]+\")", "True"), matches).passes_none().pattern(1),
    Def::new("text.ngrams(words, n)", "All runs of n words of a list, joined by a space.", ("text.ngrams([\"a\", \"b\", \"c\"], 2)", "[\"a b\", \"b c\"]"), ngrams).passes_none(),
    Def::new("text.normalize_whitespace(s)", "Without white space at its ends, and each run of it one space.", ("text.normalize_whitespace(\" a  b \")", "\"a b\""), normalize_whitespace).passes_none(),
    Def::new("text.replace(s, pattern, by)", "With each match of the regular expression replaced; `$1` is its first group.", ("text.replace(\"a1b22\", \"[0-9]+\", \"#\")", "\"a#b#\""), replace).passes_none().pattern(1),
    Def::new("text.search(s, pattern, group=0)", "The first match of the regular expression, or a group of it; None where there is none.", ("text.search(\"128 GB\", \"([0-9]+) GB\", 1)", "\"128\""), search).passes_none().pattern(1),
    Def::new("text.similarity(a, b)", "1 - levenshtein / the longer length: 1 is the same text.", ("text.similarity(\"abcd\", \"abce\")", "0.75"), similarity).passes_none(),
    Def::new("text.strip(s)", "Without white space at both ends.", ("text.strip(\" a \")", "\"a\""), |m, a| strip(m, &[a[0], Val::Unset])).passes_none(),
    Def::new("text.title(s)", "Each word with an upper-case letter first.", ("text.title(\"red shoe\")", "\"Red Shoe\""), title).passes_none(),
    Def::new("text.tokens(s)", "Its words in lower case: runs of letters and digits.", ("text.tokens(\"Red-Shoe, 42!\")", "[\"red\", \"shoe\", \"42\"]"), tokens).passes_none(),
    Def::new("text.truncate(s, n)", "Its first n characters.", ("text.truncate(\"abcdef\", 3)", "\"abc\""), truncate).passes_none(),
    Def::new("text.upper(s)", "In upper case.", ("text.upper(\"AbC\")", "\"ABC\""), upper).passes_none(),
    Def::new("text.word_count(s)", "How many words it has, as `text.tokens` finds them.", ("text.word_count(\"Red shoe\")", "2"), word_count).passes_none(),
];

type Out = Result<Val, Stop>;

/// Longest pattern, in bytes, and the largest it may become when compiled: both bound how long a
/// search takes for each byte of text.
const MAX_PATTERN: usize = 1000;
const MAX_COMPILED: usize = 256 << 10;
/// Longest text that a regular expression searches.
const MAX_SEARCHED: usize = 64 << 10;
/// Different patterns made at run time that one session keeps.
const KEPT_PATTERNS: usize = 32;

pub(in super::super) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("the regular expression is longer than {MAX_PATTERN} bytes"));
    }
    let mut builder = RegexBuilder::new(pattern);
    let built = builder.size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED * 2).nest_limit(50).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a regular expression: {reason}")
        }
    })
}

/// Runs `with` on a text and its compiled pattern.
fn searched<T>(
    m: &mut Machine<'_>,
    a: &[Val],
    with: impl FnOnce(&Machine<'_>, &str, &Regex) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let text = m.text(a[0], "s")?;
    let pattern = m.text(a[1], "pattern")?;
    if text.len() > MAX_SEARCHED {
        let message = format!("a regular expression searches at most {} KiB of text", MAX_SEARCHED >> 10);
        return Err(Fault::failed(message));
    }
    m.heap.meter.work(1 + text.len() * (8 + pattern.len()) / 64)?;
    let (text, patterns) = (text.to_owned(), m.patterns);
    if let Some(compiled) = patterns.get(pattern) {
        return with(m, &text, compiled);
    }
    let pattern = pattern.to_owned();
    let compiled = match m.own_patterns.remove(&pattern) {
        Some(compiled) => compiled,
        None => {
            // Some 10 to 1000 microseconds.
            m.heap.meter.work(20_000)?;
            m.heap.meter.alloc(MAX_COMPILED / 4)?;
            compile_pattern(&pattern).map_err(Fault::failed)?
        }
    };
    let result = with(m, &text, &compiled);
    if m.own_patterns.len() >= KEPT_PATTERNS {
        m.own_patterns.clear();
    }
    m.own_patterns.insert(pattern, compiled);
    result
}

fn matches(m: &mut Machine<'_>, a: &[Val]) -> Out {
    searched(m, a, |_, text, pattern| Ok(Val::Bool(pattern.is_match(text))))
}

fn count(m: &mut Machine<'_>, a: &[Val]) -> Out {
    searched(m, a, |m, text, pattern| {
        let mut count = 0;
        for _ in pattern.find_iter(text) {
            // Each search may scan to the end: see the clock.
            m.heap.meter.check_clock()?;
            count += 1;
        }
        Ok(Val::Int(count))
    })
}

fn find_all(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let found = searched(m, a, |m, text, pattern| {
        let mut found = Vec::new();
        for part in pattern.find_iter(text) {
            m.heap.meter.check_clock()?;
            m.heap.meter.alloc(size_of::<std::sync::Arc<str>>())?;
            found.push(part.as_str().into());
        }
        Ok(found)
    })?;
    texts(m, found)
}

fn search(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let group = m.int_or(a[2], "group", 0)?;
    let found = searched(m, a, |_, text, pattern| {
        let group = usize::try_from(group).ok().filter(|group| *group < pattern.captures_len());
        let Some(group) = group else { return Err(Fault::failed("the pattern has no such group")) };
        let found = pattern
            .captures(text)
            .and_then(|captures| captures.get(group).map(|part| part.as_str().to_owned()));
        Ok(found)
    })?;
    match found {
        Some(found) => m.heap.new_str(found),
        None => Ok(Val::None),
    }
}

fn replace(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let by = m.text(a[2], "by")?.to_owned();
    let replaced = searched(m, a, |m, text, pattern| {
        let mut out = String::new();
        let mut end = 0;
        for captures in pattern.captures_iter(text) {
            m.heap.meter.check_clock()?;
            let Some(found) = captures.get(0) else { continue };
            out.push_str(&text[end..found.start()]);
            // A group may be as long as the text, and be named many times.
            m.heap.meter.alloc(by.len().saturating_mul(1 + found.len()))?;
            captures.expand(&by, &mut out);
            end = found.end();
        }
        out.push_str(&text[end..]);
        Ok(out)
    })?;
    m.heap.new_str(replaced)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn tokens(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "s")?;
    m.heap.meter.work(text.len() / 8)?;
    m.heap.meter.alloc(text.len())?;
    let lowered = text.to_lowercase();
    let found = own(m, words(&lowered))?;
    texts(m, found)
}

fn word_count(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "s")?;
    m.heap.meter.work(text.len() / 8)?;
    Ok(Val::Int(words(text).count() as i64))
}

fn normalize_whitespace(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "s")?;
    m.heap.meter.work(text.len() / 8)?;
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    m.heap.new_str(out)
}

fn truncate(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let n = m.int(a[1], "n")?.max(0) as usize;
    let text = m.text(a[0], "s")?;
    match text.char_indices().nth(n).map(|(end, _)| text[..end].to_owned()) {
        Some(cut) => m.heap.new_str(cut),
        None => Ok(a[0]),
    }
}

fn size(m: &Machine<'_>, value: Val) -> Result<usize, Stop> {
    match usize::try_from(m.int(value, "n")?) {
        Ok(n @ 1..=100) => Ok(n),
        _ => Err(Fault::failed("n must be from 1 to 100")),
    }
}

fn char_ngrams(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let n = size(m, a[1])?;
    let text = m.text(a[0], "s")?;
    m.heap.meter.alloc(text.len().saturating_mul(n + 48))?;
    m.heap.meter.work(text.len())?;
    let characters: Vec<char> = text.chars().collect();
    let grams = characters.windows(n).map(|gram| gram.iter().collect::<String>().into()).collect();
    texts(m, grams)
}

fn ngrams(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let n = size(m, a[1])?;
    let items = m.items(a[0], "words")?;
    let mut words = Vec::with_capacity(items.len());
    for item in items {
        words.push(m.text(*item, "each word")?);
    }
    let mut grams = Vec::new();
    for gram in words.windows(n) {
        let length = gram.iter().map(|word| word.len() + 1).sum::<usize>();
        m.heap.meter.scan(length)?;
        m.heap.meter.alloc(size_of::<std::sync::Arc<str>>())?;
        grams.push(gram.join(" ").into());
    }
    texts(m, grams)
}

fn contains_any(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "s")?;
    for word in m.items(a[1], "words")? {
        m.heap.meter.scan(text.len())?;
        if text.contains(m.text(*word, "each word")?) {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

fn jaccard(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (first, second) = (m.text(a[0], "a")?, m.text(a[1], "b")?);
    m.heap.meter.work((first.len() + second.len()) / 2)?;
    m.heap.meter.alloc((first.len() + second.len()) * 8)?;
    let (first, second) = (first.to_lowercase(), second.to_lowercase());
    let (first, second): (HashSet<&str>, HashSet<&str>) = (words(&first).collect(), words(&second).collect());
    let both = first.intersection(&second).count();
    let all = first.len() + second.len() - both;
    Ok(Val::Float(if all == 0 { 1.0 } else { both as f64 / all as f64 }))
}

/// Both texts as characters, with their distance paid for.
fn measured(m: &Machine<'_>, a: &[Val]) -> Result<(Vec<char>, Vec<char>), Stop> {
    let (first, second) = (m.text(a[0], "a")?, m.text(a[1], "b")?);
    m.heap.meter.alloc((first.len() + second.len()) * 8)?;
    let characters = |text: &str| text.chars().collect::<Vec<char>>();
    let (first, second) = (characters(first), characters(second));
    if first.len().max(second.len()) > 10_000 {
        return Err(Fault::failed("the texts are longer than 10,000 characters"));
    }
    m.heap.meter.work(first.len() * second.len() / 16)?;
    Ok((first, second))
}

fn levenshtein(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (first, second) = measured(m, a)?;
    Ok(Val::Int(edit_distance(&first, &second) as i64))
}

fn similarity(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (first, second) = measured(m, a)?;
    let longer = first.len().max(second.len());
    let distance = edit_distance(&first, &second);
    Ok(Val::Float(if longer == 0 { 1.0 } else { 1.0 - distance as f64 / longer as f64 }))
}

pub(in super::super) fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
