//! WGSL as tokens: enough to find operators and constants, and the functions that they are in.

use std::ops::Range;

/// Longest first.
const OPERATORS: &[&str] = &[
    "<<=", ">>=", "->", "<=", ">=", "==", "!=", "&&", "||", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<",
    ">>", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    Operator,
    Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// All tokens of a text, without comments and spaces.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (kind, len) = if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
            continue;
        } else if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first.is_alphabetic() || first == '_' {
            (Kind::Word, rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()))
        } else if first.is_ascii_digit() {
            (Kind::Number, number(rest))
        } else if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            (Kind::Operator, operator.len())
        } else {
            (Kind::Mark, first.len_utf8())
        };
        tokens.push(Token { kind, text: &rest[..len], start: at });
        at += len;
    }
    tokens
}

/// Length of a block comment, and of those within.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of a literal. A sign belongs to it behind a decimal exponent only.
fn number(text: &str) -> usize {
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut previous = ' ';
    let end = text.find(|c: char| {
        let is_exponent = !is_hexadecimal && matches!(previous, 'e' | 'E') && matches!(c, '+' | '-');
        previous = c;
        !(c.is_ascii_alphanumeric() || c == '.' || is_exponent)
    });
    end.unwrap_or(text.len())
}

/// A function, a constant, a variable or a type at the top level of a text.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    /// Which tokens, attributes included.
    pub(super) tokens: Range<usize>,
}

/// The items of a text in order.
pub(super) fn items<'a>(tokens: &[Token<'a>]) -> Vec<Item<'a>> {
    let (mut items, mut first, mut depth) = (Vec::new(), 0, 0usize);
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" => depth += 1,
            "}" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(token.text, "}" | ";") {
            items.extend(item(tokens, first..i + 1));
            first = i + 1;
        }
    }
    items
}

fn item<'a>(tokens: &[Token<'a>], range: Range<usize>) -> Option<Item<'a>> {
    const KEYWORDS: [&str; 6] = ["fn", "const", "override", "var", "struct", "alias"];
    let words = tokens[range.clone()].iter().filter(|token| token.kind == Kind::Word).map(|token| token.text);
    let mut behind = words.skip_while(|word| !KEYWORDS.contains(word));
    let keyword = behind.next()?;
    // Behind `var` comes its address space.
    let mut named = behind.skip_while(|word| {
        keyword == "var" && matches!(*word, "workgroup" | "private" | "storage" | "uniform" | "read" | "read_write")
    });
    Some(Item { name: named.next()?, tokens: range })
}
