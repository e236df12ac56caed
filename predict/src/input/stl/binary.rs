//! The binary form: a free text of 80 bytes, the number of triangles, 50 bytes for each.

use anyhow::{Result, bail};

use super::{Solid, Triangle};

/// Bytes of the free text.
const TEXT: usize = 80;

/// Bytes before the triangles.
const HEADER: usize = TEXT + 4;

/// Bytes of a triangle: normal, corners, attributes.
const TRIANGLE: usize = 50;

/// Bytes of a normal.
const NORMAL: usize = 12;

/// The solids of a file whose numbers of triangles give exactly its length: one, or several files behind each other. The
/// numbers may be in either byte order.
pub(super) fn exact(bytes: &[u8]) -> Option<Vec<Solid>> {
    [u32::from_le_bytes, u32::from_be_bytes].into_iter().find_map(|order| {
        let (mut rest, mut solids) = (bytes, Vec::new());
        while !rest.is_empty() {
            let count: [u8; 4] = rest.get(TEXT..HEADER)?.try_into().ok()?;
            let length = usize::try_from(order(count)).ok()?.checked_mul(TRIANGLE)?;
            let (text, body) = (&rest[..TEXT], rest.get(HEADER..HEADER.checked_add(length)?)?);
            rest = &rest[HEADER + length..];
            solids.push((text, body));
        }
        if solids.is_empty() {
            return None;
        }
        // The name of the only solid would be the remark of a program.
        let several = solids.len() > 1;
        let solids = solids.into_iter().map(|(text, body)| Solid {
            name: if several { name(text) } else { String::new() },
            triangles: triangles(body, order),
        });
        Some(solids.collect())
    })
}

/// A file whose number of triangles is wrong, as of programs that write it before they know. Its length says how many
/// there are, if that is a whole number.
pub(super) fn by_size(bytes: &[u8]) -> Result<Vec<Solid>> {
    let Some(body) = bytes.get(HEADER..) else {
        bail!("not an STL file: {} bytes, but a binary header alone has {HEADER}", bytes.len());
    };
    let promised = u32::from_le_bytes([bytes[TEXT], bytes[TEXT + 1], bytes[TEXT + 2], bytes[TEXT + 3]]);
    let (present, left) = (body.len() / TRIANGLE, body.len() % TRIANGLE);
    if left != 0 {
        bail!(
            "damaged, or not an STL file: its header promises {promised} triangles in {} bytes, got {}; behind triangle \
             {present} are {left} bytes, from byte {} on",
            HEADER as u64 + u64::from(promised) * TRIANGLE as u64,
            bytes.len(),
            bytes.len() - left
        );
    }
    // Those who do not know write 0 or the largest number.
    if promised != 0 && promised != u32::MAX {
        crate::terminal::remark(format_args!(
            "warning: an STL file promises {promised} triangles and holds {present}, which are taken"
        ));
    }
    Ok(vec![Solid { name: String::new(), triangles: triangles(body, u32::from_le_bytes) }])
}

fn triangles(body: &[u8], order: fn([u8; 4]) -> u32) -> Vec<Triangle> {
    let (triangles, _) = body.as_chunks::<TRIANGLE>();
    let corner = |triangle: &[u8; TRIANGLE], number: usize| {
        let at = NORMAL + 4 * number;
        f32::from_bits(order([triangle[at], triangle[at + 1], triangle[at + 2], triangle[at + 3]]))
    };
    let corners =
        |triangle| std::array::from_fn(|vertex| std::array::from_fn(|axis| corner(triangle, 3 * vertex + axis)));
    triangles.iter().map(corners).collect()
}

/// What the free text of a solid calls it.
fn name(text: &[u8]) -> String {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    let text = text.trim();
    text.strip_prefix("solid ").unwrap_or(text).trim().to_string()
}
