//! Where in a pickle the weights of a network are.
//!
//! Training scripts store them beside optimisers, averages and settings, under names of their own. So every dictionary that
//! holds tensors is a candidate, those with a tensor that each AB-UPT has come first, and where several are left the caller
//! must choose: two sets of weights, such as those of training and their average, are not the same network.

use std::collections::HashSet;

use super::names::ROOT_TENSOR;
use super::pickle::{Object, Pickle, Place};

/// Dictionaries in dictionaries that are looked through.
const DEEPEST: usize = 4;

/// How functions that rebuild tensors begin.
const REBUILD: &str = "_rebuild_";

/// A dictionary with tensors.
pub(super) struct Weights<'a> {
    /// Names of the dictionaries that it lies in, joined by dots; nothing at the top.
    pub key: String,
    pub entries: Vec<(&'a str, Place)>,
}

/// The weights under a key, or else the only ones.
pub(super) fn find<'a>(pickle: &'a Pickle, key: Option<&str>) -> Result<Weights<'a>, String> {
    if pickle.entries(pickle.root()).is_none() {
        return Err(match class_of(pickle, pickle.root()) {
            Some(class) if class.starts_with(REBUILD) => "it holds a single tensor, which is no network".to_string(),
            Some(class) => whole_object("it holds", class),
            None => "it does not hold a dictionary".to_string(),
        });
    }
    let mut found = Vec::new();
    walk(pickle, pickle.root(), String::new(), DEEPEST, &mut HashSet::new(), &mut found)?;
    if let Some(key) = key {
        let keys = list(&found);
        let chosen = found.into_iter().find(|weights| weights.key == key);
        return chosen.ok_or_else(|| format!("there are no weights under '{key}'; there are some under {keys}"));
    }
    let is_network = |weights: &Weights| weights.entries.iter().any(|(name, _)| name.ends_with(ROOT_TENSOR));
    if found.iter().any(is_network) {
        found.retain(is_network);
    }
    match found.len() {
        0 => Err(without_tensors(pickle)),
        1 => Ok(found.remove(0)),
        _ => Err(format!(
            "it holds several sets of weights, under {}; say which one: --weights-key, or Checkpoint::open_key",
            list(&found)
        )),
    }
}

/// Collects the dictionaries that hold tensors.
fn walk<'a>(
    pickle: &'a Pickle,
    place: Place,
    key: String,
    depth: usize,
    seen: &mut HashSet<Place>,
    found: &mut Vec<Weights<'a>>,
) -> Result<(), String> {
    if depth == 0 || !seen.insert(place) {
        return Ok(());
    }
    let Some(entries) = pickle.entries(place).transpose()? else { return Ok(()) };
    for &(name, value) in &entries {
        let inner = if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
        walk(pickle, value, inner, depth - 1, seen, found)?;
    }
    if entries.iter().any(|&(_, value)| class_of(pickle, value).is_some_and(|class| class.starts_with(REBUILD))) {
        found.push(Weights { key, entries });
    }
    Ok(())
}

/// The class or function that an object would be made by.
fn class_of(pickle: &Pickle, place: Place) -> Option<&str> {
    let Object::Call { callable, .. } = pickle[place] else { return None };
    match &pickle[callable] {
        Object::Global(class) => Some(class),
        _ => None,
    }
}

/// What a file without tensors holds instead.
fn without_tensors(pickle: &Pickle) -> String {
    let entries = pickle.entries(pickle.root()).and_then(Result::ok).unwrap_or_default();
    let object = entries.iter().find_map(|&(name, value)| Some((name, class_of(pickle, value)?)));
    match object {
        Some((name, class)) => whole_object(&format!("it holds no tensors, but under '{name}'"), class),
        None => "it holds no tensors".to_string(),
    }
}

fn whole_object(what: &str, class: &str) -> String {
    format!("{what} a whole object of class '{class}'; save the weights alone: torch.save(module.state_dict(), file)")
}

fn list(found: &[Weights]) -> String {
    let keys = found.iter().map(|weights| match weights.key.as_str() {
        "" => "the top (key '')".to_string(),
        key => format!("'{key}'"),
    });
    keys.collect::<Vec<_>>().join(", ")
}
