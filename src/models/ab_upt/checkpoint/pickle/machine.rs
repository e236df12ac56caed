//! The machine that a pickle is a program for: a stack, marks on it, and a memo.

use std::collections::HashMap;

use super::{Object, Place};

/// Objects of a pickle at most; one of a network with ten thousand tensors has about a hundred thousand.
pub(super) const MOST_OBJECTS: usize = 1 << 22;

/// The newest protocol that is read. `torch.save` writes 2 unless it is told otherwise; 3 adds bytes.
const NEWEST_PROTOCOL: u8 = 3;

/// The machine that a pickle is a program for.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Place>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Executes the whole program: all objects, and the place of the one that it leaves.
    pub(super) fn run(mut self) -> Result<(Vec<Object>, Place), String> {
        loop {
            let start = self.at;
            match self.step() {
                Ok(false) => {}
                Ok(true) => break,
                Err(reason) => return Err(format!("pickle, byte {start}: {reason}")),
            }
        }
        let root = self.pop()?;
        Ok((self.objects, root))
    }

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
