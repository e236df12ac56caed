//! The written-out form, line by line.
//!
//! Words may be upper or lower case and any number of blanks apart. Blank lines and comments may stand anywhere, colours
//! between triangles. Names of solids may be any bytes.

use anyhow::{Context, Result, bail};

use super::Solid;

/// A mark that some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How lines begin that say nothing.
const COMMENTS: [&[u8]; 4] = [b"#", b";", b"//", b"!"];

/// What must come next.
#[derive(Clone, Copy)]
enum State {
    /// A solid, or the end of the file.
    Outside,
    /// A facet, or the end of the solid.
    Solid,
    Facet,
    /// So many vertices were there.
    Loop(usize),
    EndOfFacet,
}

/// Whether the first line with a word begins a solid.
pub(super) fn begins_solid(bytes: &[u8]) -> bool {
    let first = lines(bytes).next();
    first.is_some_and(|(_, line)| words(line).next().is_some_and(|word| word.eq_ignore_ascii_case(b"solid")))
}

/// Reads all solids.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Solid>> {
    let (mut solids, mut state, mut corners) = (Vec::new(), State::Outside, [[0.0; 3]; 3]);
    let mut solid = Solid::default();
    for (number, line) in lines(bytes) {
        let is = |expected: &[&str]| {
            let mut words = words(line);
            expected
                .iter()
                .all(|expected| words.next().is_some_and(|word| word.eq_ignore_ascii_case(expected.as_bytes())))
        };
        let shown = || format!("line {number}: '{}'", String::from_utf8_lossy(&line[..line.len().min(60)]));
        let expected = |what: &str| anyhow::anyhow!("{}: expected {what}", shown());
        state = match state {
            State::Outside if is(&["solid"]) => {
                let name = String::from_utf8_lossy(&line[b"solid".len()..]).trim().to_string();
                solid = Solid { name, triangles: Vec::new() };
                State::Solid
            }
            State::Outside => return Err(expected("a solid or the end of the file")),
            State::Solid if is(&["facet"]) => State::Facet,
            State::Solid if is(&["endsolid"]) || is(&["end", "solid"]) => {
                solids.push(std::mem::take(&mut solid));
                State::Outside
            }
            State::Solid if is(&["color"]) || is(&["colour"]) => State::Solid,
            State::Solid => return Err(expected("'facet' or 'endsolid'")),
            State::Facet if is(&["outer", "loop"]) => State::Loop(0),
            State::Facet => return Err(expected("'outer loop'")),
            State::Loop(3) if is(&["endloop"]) || is(&["end", "loop"]) => State::EndOfFacet,
            State::Loop(3) => return Err(expected("'endloop', a facet has three vertices")),
            State::Loop(vertex) if is(&["vertex"]) => {
                corners[vertex] = coordinates(line).with_context(shown)?;
                State::Loop(vertex + 1)
            }
            State::Loop(vertices) => {
                return Err(expected(&format!("'vertex', a facet has three and this one {vertices}")));
            }
            State::EndOfFacet if is(&["endfacet"]) || is(&["end", "facet"]) => {
                solid.triangles.push(corners);
                State::Solid
            }
            State::EndOfFacet => return Err(expected("'endfacet'")),
        };
    }
    match state {
        State::Outside => Ok(solids),
        _ => bail!(
            "truncated: there is no 'endsolid' after line {}",
            lines(bytes).last().map_or(0, |(number, _)| number)
        ),
    }
}

/// Lines that say something, counted from 1, without blanks around them.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let ending = if bytes.contains(&b'\n') { b'\n' } else { b'\r' };
    let lines = bytes.split(move |&byte| byte == ending).map(<[u8]>::trim_ascii).enumerate();
    let says = |line: &[u8]| !line.is_empty() && !COMMENTS.iter().any(|comment| line.starts_with(comment));
    lines.filter(move |(_, line)| says(line)).map(|(at, line)| (at + 1, line))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The numbers of a line `vertex x y z`.
fn coordinates(line: &[u8]) -> Result<[f32; 3]> {
    let mut numbers = words(line).skip(1);
    let mut vertex = [0.0; 3];
    for x in &mut vertex {
        let word = numbers.next().context("a vertex has three numbers")?;
        let number = str::from_utf8(word).ok().and_then(|word| word.parse::<f32>().ok());
        let number = number.with_context(|| format!("'{}' is no number", String::from_utf8_lossy(word)))?;
        if !number.is_finite() {
            bail!("'{}' is no finite number of 32 bits", String::from_utf8_lossy(word));
        }
        *x = number;
    }
    if numbers.next().is_some() {
        bail!("a vertex has three numbers, here are more");
    }
    Ok(vertex)
}
