//! Pickles of `torch.save`, read as data: nothing in them is looked up, imported or called.
//!
//! A pickle is a program for a machine with a stack and a memo. Here every object that it makes has a place in one list,
//! and stack, memo and containers hold places. So an object that a hundred others refer to is stored once, memory grows with
//! the length of the pickle and not with what it would unfold to, and dropping the deepest nesting is no recursion. A walk
//! through the objects can still be endless, which is why [`Pickle::to_json`] has a budget.

mod json;
mod machine;

use std::ops::Index;

use machine::Machine;

/// The place of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

/// What a pickle makes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Place>),
    List(Vec<Place>),
    Dict(Vec<(Place, Place)>),
    /// A class or function, by its name without the module.
    Global(String),
    /// What calling a class or function would give.
    Call {
        callable: Place,
        arguments: Place,
    },
    /// What lies outside of the pickle, by its description.
    Persistent(Place),
    /// Bytes, and whole numbers beyond 64 bits.
    Other,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    root: Place,
}

impl Index<Place> for Pickle {
    type Output = Object;

    fn index(&self, place: Place) -> &Object {
        // Places are made with their objects, and objects are never removed.
        &self.objects[place.0 as usize]
    }
}

impl Pickle {
    /// Reads a pickle, or says where it cannot be read and why.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (objects, root) = Machine::new(bytes).run()?;
        Ok(Self { objects, root })
    }

    /// The object that the pickle was made of.
    pub(super) fn root(&self) -> Place {
        self.root
    }

    /// The entries of a dictionary whose keys are texts, in their order; others are left out. `None` if it is no dictionary.
    ///
    /// # Errors
    /// Two entries of one key.
    pub(super) fn entries(&self, place: Place) -> Option<Result<Vec<(&str, Place)>, String>> {
        let Object::Dict(entries) = &self[place] else { return None };
        let named = entries.iter().filter_map(|&(key, value)| match &self[key] {
            Object::Text(key) => Some((key.as_str(), value)),
            _ => None,
        });
        let named: Vec<_> = named.collect();
        let mut names: Vec<_> = named.iter().map(|&(name, _)| name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Some(Err(format!("'{}' stands twice in a dictionary", pair[0]))),
            None => Some(Ok(named)),
        }
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, place: Place) -> Option<&[Place]> {
        match &self[place] {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::json::MOST_DATA;
    use super::machine::MOST_OBJECTS;
    use super::*;

    fn json_of(pickle: &[u8]) -> Result<Value, String> {
        let pickle = Pickle::read(pickle)?;
        pickle.to_json(pickle.root())
    }

    #[test]
    fn plain_data_is_json() {
        // pickle.dumps({"a": [1, -2, 300, 70000, 2**40, -2**40, 2**70], "b": (True, None, 1.5), "c": {}}, 2)
        let pickle =
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\
            \x00\x00\x00\x00\x01\x8a\x06\x00\x00\x00\x00\x00\xff\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@eX\x01\x00\x00\
            \x00bq\x03\x88NG?\xf8\x00\x00\x00\x00\x00\x00\x87q\x04X\x01\x00\x00\x00cq\x05}q\x06u.";
        let expected = json!({
            "a": [1, -2, 300, 70000, 1i64 << 40, -(1i64 << 40), null],
            "b": [true, null, 1.5],
            "c": {},
        });
        assert_eq!(json_of(pickle).unwrap(), expected);
    }

    #[test]
    fn what_is_remembered_is_the_object_itself() {
        // x = []; [x, x], and x grows afterwards.
        assert_eq!(json_of(b"\x80\x02](]q\x00K\x07ah\x00e.").unwrap(), json!([[7], [7]]));
        assert_eq!(
            json_of(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.").unwrap_err(),
            "it is nested deeper than 64 levels"
        );
    }

    #[test]
    fn what_unfolds_beyond_measure_is_refused_before_it_does() {
        // t0 = (); t1 = (t0, t0); t2 = (t1, t1) …
        let mut bomb = b"\x80\x02)q\x00".to_vec();
        for level in 0..60u8 {
            bomb.extend([b'h', level, b'h', level, 0x86, b'q', level + 1]);
        }
        bomb.push(b'.');
        let pickle = Pickle::read(&bomb).unwrap();
        assert_eq!(pickle.objects.len(), 61);
        assert_eq!(
            pickle.to_json(pickle.root()).unwrap_err(),
            format!("it holds more than {MOST_DATA} values and letters")
        );
        // A long text, named often.
        let mut text = [b"\x80\x02](X".as_slice(), &100_000u32.to_le_bytes(), &[b'x'; 100_000], b"q\x00"].concat();
        text.extend(b"h\x00".repeat(1000));
        text.extend(b"e.");
        assert!(json_of(&text).unwrap_err().contains("letters"));
        // Nesting.
        let levels = 300_000;
        let nestings: [(&[u8], &[u8], &[u8]); 4] =
            [(b")", b"", b"\x85"), (b"]", b"]", b"a"), (b"", b"(", b"t"), (b"}", b"X\x00\x00\x00\x00}", b"s")];
        for (first, open, close) in nestings {
            let deep = [b"\x80\x02", first, &open.repeat(levels), &close.repeat(levels), b"."].concat();
            assert_eq!(json_of(&deep).unwrap_err(), "it is nested deeper than 64 levels", "{}", close.escape_ascii());
        }
        let many = [b"N".repeat(MOST_OBJECTS + 1).as_slice(), b"."].concat();
        assert!(Pickle::read(&many).unwrap_err().contains("objects"));
    }

    #[test]
    fn what_is_no_pickle_is_refused_with_its_place() {
        let table: &[(&[u8], &str)] = &[
            (b"", "byte 0: it ends early"),
            (b"\x80\x02", "byte 2: it ends early"),
            (b"\x80\x02.", "its stack is empty"),
            (b"\x80\x02X\xff\xff\xff\xffab", "byte 2: it ends early"),
            (b"\x80\x02X\x01\x00\x00\x00\xff.", "byte 2: a text: invalid utf-8"),
            (b"\x80\x02h\x07.", "byte 2: its memo has no entry 7"),
            (b"\x80\x02q\x07.", "byte 2: its stack is empty"),
            (b"\x80\x02t.", "byte 2: there is no mark on its stack"),
            (b"\x80\x02N(\x85.", "byte 4: its stack is empty"),
            (b"\x80\x02N(K\x01s.", "byte 6: its stack is empty"),
            (b"\x80\x02}(K\x01u.", "byte 6: a key of a dictionary has no value"),
            (b"\x80\x02NK\x01a.", "byte 5: it appends to what is no list"),
            (b"\x80\x02NK\x01K\x01s.", "byte 7: it inserts into what is no dictionary"),
            (b"\x80\x02cos\nsystem", "byte 2: it ends early"),
            (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.", "byte 0: it has protocol 4"),
            (b"\x80\x05}.", "byte 0: it has protocol 5"),
            (b"(dp0\n.", "byte 2: opcode 0x70 is none that torch.save writes"),
            (b"import os", "byte 0: opcode 0x69"),
        ];
        for (pickle, expected) in table {
            let message = json_of(pickle).unwrap_err();
            assert!(message.contains(expected), "{}: {message}", pickle.escape_ascii());
        }
    }

    #[test]
    fn no_key_stands_twice() {
        let twice = b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.";
        assert_eq!(json_of(twice).unwrap_err(), "'a' stands twice in a dictionary");
    }
}
