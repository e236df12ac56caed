//! From PTX text to words and marks.

use anyhow::{Context, Result, bail};

/// A word, a number or a punctuation mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, directive, opcode with its modifiers, or number.
    Word(&'a str),
    /// What stands in quotes.
    Text(&'a str),
    Mark(char),
}

/// All tokens, each with the number of its line.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>> {
    let mut tokens = Vec::new();
    let mut in_comment = false;
    for (number, line) in (1..).zip(text.lines()) {
        let mut rest = line;
        loop {
            if in_comment {
                let Some((_, behind)) = rest.split_once("*/") else { break };
                (rest, in_comment) = (behind, false);
            }
            rest = rest.trim_start();
            let Some(first) = rest.chars().next() else { break };
            if rest.starts_with("//") {
                break;
            }
            if let Some(behind) = rest.strip_prefix("/*") {
                (rest, in_comment) = (behind, true);
                continue;
            }
            let token;
            (token, rest) = match first {
                '"' => {
                    let (text, behind) = rest[1..].split_once('"').context(format!("line {number}: open quotes"))?;
                    (Token::Text(text), behind)
                }
                _ if is_word(first) => {
                    let (word, behind) = rest.split_at(word_length(rest));
                    (Token::Word(word), behind)
                }
                _ if first.is_ascii_punctuation() => (Token::Mark(first), &rest[1..]),
                _ => bail!("line {number}: unexpected character {first:?}"),
            };
            tokens.push((token, number));
        }
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_$%.".contains(c)
}

/// How much of the text is one word; two colons (`shared::cta`) belong to it, one ends it (a label).
fn word_length(text: &str) -> usize {
    let mut length = 0;
    loop {
        let rest = &text[length..];
        if rest.starts_with("::") {
            length += 2;
        } else if rest.starts_with(is_word) {
            length += 1;
        } else {
            return length;
        }
    }
}
