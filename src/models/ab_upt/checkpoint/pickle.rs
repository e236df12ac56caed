//! Pickles of `torch.save`, read as data: nothing in them is looked up, imported or called.
//!
//! A pickle is a program for a machine with a stack and a memo. Here every object that it makes has a place in one list,
//! and stack, memo and containers hold places. So an object that a hundred others refer to is stored once, memory grows with
//! the length of the pickle and not with what it would unfold to, and dropping the deepest nesting is no recursion. A walk
//! through the objects can still be endless, which is why [`Pickle::to_json`] has a budget.

use std::collections::HashMap;
use std::ops::Index;

use serde_json::{Map, Number, Value};

/// Objects of a pickle at most; one of a network with ten thousand tensors has about a hundred thousand.
const MOST_OBJECTS: usize = 1 << 22;

/// The newest protocol that is read. `torch.save` writes 2 unless it is told otherwise; 3 adds bytes.
const NEWEST_PROTOCOL: u8 = 3;

/// Levels of plain data at most.
const DEEPEST_DATA: usize = 64;

/// Objects and letters of plain data at most.
const MOST_DATA: usize = 1 << 22;

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
        let mut machine =
            Machine { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        loop {
            let start = machine.at;
            match machine.step() {
                Ok(false) => {}
                Ok(true) => break,
                Err(reason) => return Err(format!("pickle, byte {start}: {reason}")),
            }
        }
        let root = machine.pop()?;
        Ok(Self { objects: machine.objects, root })
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

    /// Plain data as JSON, and anything else in it as null.
    ///
    /// # Errors
    /// Data that is nested too deep, as what contains itself is, or that is too large when written out.
    pub(super) fn to_json(&self, place: Place) -> Result<Value, String> {
        let mut left = MOST_DATA;
        self.data(place, DEEPEST_DATA, &mut left)
    }

    fn data(&self, place: Place, depth: usize, left: &mut usize) -> Result<Value, String> {
        let object = &self[place];
        let cost = match object {
            Object::Text(text) => text.len(),
            Object::Dict(entries) => entries.len(),
            _ => 0,
        };
        *left =
            left.checked_sub(1 + cost).ok_or_else(|| format!("it holds more than {MOST_DATA} values and letters"))?;
        let depth = depth.checked_sub(1).ok_or_else(|| format!("it is nested deeper than {DEEPEST_DATA} levels"))?;
        Ok(match object {
            Object::Bool(value) => Value::from(*value),
            Object::Int(number) => Value::from(*number),
            Object::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Object::Text(text) => Value::from(text.as_str()),
            Object::Tuple(items) | Object::List(items) => {
                let items = items.iter().map(|&item| self.data(item, depth, left));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Object::Dict(_) => {
                let mut map = Map::new();
                for (key, value) in self.entries(place).transpose()?.unwrap_or_default() {
                    *left = left.saturating_sub(key.len());
                    map.insert(key.to_string(), self.data(value, depth, left)?);
                }
                Value::Object(map)
            }
            Object::None | Object::Global(_) | Object::Call { .. } | Object::Persistent(_) | Object::Other => {
                Value::Null
            }
        })
    }
}

/// The machine that a pickle is a program for.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Place>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; whether it was the last. Opcodes by their names in Python's `pickletools`.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.array()?;
        match code {
            // PROTO
            0x80 => self.protocol()?,
            // STOP
            b'.' => return Ok(true),
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            // BININT1, BININT2, BININT
            b'K' => {
                let [number] = self.array()?;
                self.push(Object::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()))?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()))?;
            }
            // LONG1, LONG4
            0x8a => {
                let [length] = self.array()?;
                let number = whole(self.take(length.into())?);
                self.push(number)?;
            }
            0x8b => {
                let length = self.length()?;
                let number = whole(self.take(length)?);
                self.push(number)?;
            }
            // BINFLOAT, which alone has the higher byte first
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Object::Float(number))?;
            }
            // BINUNICODE
            b'X' => {
                let length = self.length()?;
                let text = std::str::from_utf8(self.take(length)?).map_err(|error| format!("a text: {error}"))?;
                self.push(Object::Text(text.to_string()))?;
            }
            // SHORT_BINSTRING, SHORT_BINBYTES; BINSTRING, BINBYTES
            b'U' | b'C' => {
                let [length] = self.array()?;
                self.take(length.into())?;
                self.push(Object::Other)?;
            }
            b'T' | b'B' => {
                let length = self.length()?;
                self.take(length)?;
                self.push(Object::Other)?;
            }
            // MARK, POP_MARK, POP
            b'(' => self.marks.push(self.stack.len()),
            b'1' => drop(self.pop_to_mark()?),
            b'0' => drop(self.pop()?),
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Object::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=code {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Object::Tuple(items))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))?;
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Object::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b'd' => {
                let items = pairs(self.pop_to_mark()?)?;
                self.push(Object::Dict(items))?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])?;
            }
            b'u' => {
                let items = pairs(self.pop_to_mark()?)?;
                self.insert(items)?;
            }
            // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            b'q' => {
                let [key] = self.array()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            b'h' => {
                let [key] = self.array()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            // GLOBAL: two lines, module and name
            b'c' => {
                self.line()?;
                let name = String::from_utf8_lossy(self.line()?).into_owned();
                self.push(Object::Global(name))?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let is_dict = matches!(&self.objects[callable.0 as usize], Object::Global(name)
                    if matches!(name.as_str(), "OrderedDict" | "defaultdict"));
                self.push(match is_dict {
                    true => Object::Dict(Vec::new()),
                    false => Object::Call { callable, arguments },
                })?;
            }
            // BUILD: attributes of an object, which are nothing that is looked at
            b'b' => drop(self.pop()?),
            // BINPERSID
            b'Q' => {
                let description = self.pop()?;
                self.push(Object::Persistent(description))?;
            }
            other => return Err(format!("opcode {other:#04x} is none that torch.save writes")),
        }
        Ok(false)
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.array()? {
            [protocol] if protocol > NEWEST_PROTOCOL => Err(format!(
                "it has protocol {protocol}, and protocols up to {NEWEST_PROTOCOL} are read; torch.save writes 2 unless \
                 pickle_protocol says otherwise"
            )),
            _ => Ok(()),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or("it ends early")?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "it ends early".to_string())
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|error| error.to_string())
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends early")?;
        let line = self.take(length)?;
        self.at += 1;
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        let count = self.objects.len();
        let place = u32::try_from(count).ok().filter(|_| count < MOST_OBJECTS);
        let place = place.ok_or_else(|| format!("it makes more than {MOST_OBJECTS} objects"))?;
        self.objects.push(object);
        self.stack.push(Place(place));
        Ok(())
    }

    fn pop(&mut self) -> Result<Place, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(empty),
            false => Err(empty()),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Place>, String> {
        let mark = self.marks.pop().ok_or("there is no mark on its stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Place, String> {
        self.stack.last().copied().ok_or_else(empty)
    }

    fn top_object(&mut self) -> Result<&mut Object, String> {
        let top = self.top()?;
        Ok(&mut self.objects[top.0 as usize])
    }

    fn append(&mut self, items: Vec<Place>) -> Result<(), String> {
        match self.top_object()? {
            Object::List(list) => list.extend(items),
            // An object of a class that only Python knows.
            Object::Call { .. } => {}
            _ => return Err("it appends to what is no list".to_string()),
        }
        Ok(())
    }

    fn insert(&mut self, items: Vec<(Place, Place)>) -> Result<(), String> {
        match self.top_object()? {
            Object::Dict(dict) => dict.extend(items),
            Object::Call { .. } => {}
            _ => return Err("it inserts into what is no dictionary".to_string()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let place = self.memo.get(&key).copied().ok_or_else(|| format!("its memo has no entry {key}"))?;
        self.stack.push(place);
        Ok(())
    }
}

fn empty() -> String {
    "its stack is empty".to_string()
}

fn pairs(items: Vec<Place>) -> Result<Vec<(Place, Place)>, String> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key of a dictionary has no value".to_string()),
    }
}

/// A whole number in two's complement, the lowest byte first.
fn whole(bytes: &[u8]) -> Object {
    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut number = [fill; 8];
    match number.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Object::Other,
    }
    Object::Int(i64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
