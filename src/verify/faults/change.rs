//! What is changed at a place: one change for each operator, constant, barrier, minimum and maximum.

use super::text::{Kind, Token};

/// A change of a text: these bytes to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) to: String,
}

/// Operators with a space on both sides, which a sign and the brackets of a template have not.
const OPERATORS: &[(&str, &str)] = &[
    ("+", "-"),
    ("-", "+"),
    ("*", "+"),
    ("/", "*"),
    ("%", "/"),
    ("+=", "-="),
    ("-=", "+="),
    ("*=", "+="),
    ("/=", "*="),
    ("<", "<="),
    ("<=", "<"),
    (">", ">="),
    (">=", ">"),
    ("==", "!="),
    ("!=", "=="),
    ("&&", "||"),
    ("||", "&&"),
    ("<<", ">>"),
    (">>", "<<"),
    ("&", "|"),
    ("|", "&"),
    ("^", "|"),
];

const FUNCTIONS: &[(&str, &str)] = &[("min", "max"), ("max", "min"), ("atomicMin", "atomicMax"), ("atomicMax", "atomicMin")];
const CONSTANTS: &[(&str, &str)] = &[("true", "false"), ("false", "true")];
const BARRIERS: &[&str] = &["workgroupBarrier", "storageBarrier"];

/// All changes to tokens of `source`, in order. Attributes and arguments of templates are no places: a changed binding or type is another
/// program, or none.
pub(super) fn changes(source: &str, tokens: &[Token<'_>]) -> Vec<(usize, Change)> {
    let (mut found, mut template, mut attribute) = (Vec::new(), 0, None::<usize>);
    for (i, token) in tokens.iter().enumerate() {
        let before = source[..token.start].ends_with(char::is_whitespace);
        let spaced = before && source[token.end()..].starts_with(char::is_whitespace);
        match token.text {
            "<" if !spaced => template += 1,
            ">" | ">>" if !before => template = (template - token.text.len() as i32).max(0),
            ";" | "{" => template = 0,
            "(" if attribute.is_none() && i >= 2 && tokens[i - 2].text == "@" => attribute = Some(0),
            _ => {}
        }
        if let Some(depth) = &mut attribute {
            match token.text {
                "(" => *depth += 1,
                ")" => *depth -= 1,
                _ => {}
            }
            if *depth == 0 {
                attribute = None;
            }
        } else if template == 0 {
            let following: Vec<&str> = tokens[i + 1..].iter().take(2).map(|token| token.text).collect();
            found.extend(
                change(token, spaced, &following)
                    .map(|(longer, to)| (i, Change { start: token.start, end: tokens[i + longer].end(), to })),
            );
        }
    }
    found
}

/// The text instead of a token and as many behind it.
fn change(token: &Token<'_>, spaced: bool, following: &[&str]) -> Option<(usize, String)> {
    let in_table =
        |table: &[(&str, &str)]| table.iter().find(|(from, _)| *from == token.text).map(|(_, to)| (0, (*to).to_owned()));
    match token.kind {
        Kind::Operator if spaced => in_table(OPERATORS),
        Kind::Number => number(token.text).map(|to| (0, to)),
        Kind::Word if BARRIERS.contains(&token.text) && following == ["(", ")"] => Some((2, String::new())),
        Kind::Word if following.first() == Some(&"(") => in_table(FUNCTIONS),
        Kind::Word => in_table(CONSTANTS),
        Kind::Operator | Kind::Mark => None,
    }
}

/// An integer plus one; another number doubled, or one instead of zero.
fn number(text: &str) -> Option<String> {
    if let Some(digits) = text.strip_prefix("0x") {
        let (digits, suffix) = split_suffix(digits, &['u', 'i']);
        return Some(format!("{:#x}{suffix}", u32::from_str_radix(digits, 16).ok()?.wrapping_add(1)));
    }
    let (digits, suffix) = split_suffix(text, &['u', 'i', 'f', 'h']);
    if let (Ok(integer), true) = (digits.parse::<u32>(), matches!(suffix, "" | "u" | "i")) {
        return Some(format!("{}{suffix}", integer.wrapping_add(1)));
    }
    let number: f64 = digits.parse().ok()?;
    Some(format!("{:?}{suffix}", if number == 0.0 { 1.0 } else { 2.0 * number }))
}

fn split_suffix<'a>(text: &'a str, suffixes: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.trim_end_matches(suffixes).len())
}
