//! Plain data of a pickle as JSON, within a budget: a walk through objects that hold each other can be endless.

use serde_json::{Map, Number, Value};

use super::{Object, Pickle, Place};

/// Levels of plain data at most.
const DEEPEST_DATA: usize = 64;

/// Objects and letters of plain data at most.
pub(super) const MOST_DATA: usize = 1 << 22;

impl Pickle {
    /// Plain data as JSON, and anything else in it as null.
    ///
    /// # Errors
    /// Data that is nested too deep, as what contains itself is, or that is too large when written out.
    pub(in super::super) fn to_json(&self, place: Place) -> Result<Value, String> {
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
