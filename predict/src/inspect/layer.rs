//! Attention layers in a file that is no AB-UPT: what their names and shapes allow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use candle_mixed_attention::models::ab_upt::{Checkpoint, StoredTensor};

/// The projections of a layer, by their names in a file.
const PROJECTIONS: [&str; 6] = ["q", "k", "v", "qkv", "kv", "proj"];

/// One line for each layer that the names allow, with what is missing or misshapen.
pub(super) fn describe(checkpoint: &Checkpoint) -> String {
    let tensors = checkpoint.tensors();
    let mut layers: BTreeMap<&str, Layer> = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some(prefix) = layer_of(name) else { continue };
        let layer = layers.entry(prefix).or_insert_with(|| Layer::new(prefix, tensors));
        layer.parts.insert(&name[prefix.len()..], tensor);
    }
    let (mut text, mut used) = (String::new(), 0);
    for layer in layers.values() {
        used += layer.parts.len();
        text.push_str(&layer.describe());
    }
    if text.is_empty() {
        return "none: no tensors named q, k, v, qkv, kv or proj".to_string();
    }
    if used < tensors.len() {
        let _ = writeln!(text, "{} other tensors", tensors.len() - used);
    }
    text
}

/// The prefix of the layer that a tensor belongs to, with its dot: `a.b.` of `a.b.q.weight` and `a.b.q.weight.0`.
fn layer_of(name: &str) -> Option<&str> {
    let end = PROJECTIONS.iter().find_map(|part| {
        let (at, _) = name.match_indices(part).find(|&(at, _)| {
            let rest = &name[at + part.len()..];
            (at == 0 || name[..at].ends_with('.')) && (rest.starts_with(".weight") || rest.starts_with(".bias"))
        })?;
        Some(at)
    })?;
    Some(&name[..end])
}

/// The tensors of one layer.
struct Layer<'a> {
    prefix: &'a str,
    /// By what follows the prefix.
    parts: BTreeMap<&'a str, &'a StoredTensor>,
    /// Wave numbers of one coordinate, stored next to the layer.
    wave_numbers: Option<usize>,
}

impl<'a> Layer<'a> {
    /// A layer without its parts.
    fn new(prefix: &'a str, tensors: &'a BTreeMap<String, StoredTensor>) -> Self {
        let wave_numbers = tensors.get(&format!("{prefix}omega")).and_then(|omega| omega.shape.first().copied());
        Self { prefix, parts: BTreeMap::new(), wave_numbers }
    }

    /// The shape of a weight, the first where each domain has its own.
    fn weight(&self, part: &str) -> Option<&'a [usize]> {
        let own = self.parts.get(format!("{part}.weight").as_str());
        let first = || self.parts.get(format!("{part}.weight.0").as_str());
        own.or_else(first).map(|tensor| tensor.shape.as_slice())
    }

    /// The indices of the domains that have weights of their own; none where all share them.
    fn domains(&self) -> BTreeSet<usize> {
        self.parts.keys().filter_map(|name| name.strip_prefix("proj.weight.")?.parse().ok()).collect()
    }

    /// Width of the tokens, by the output projection or the queries.
    fn hidden_dim(&self) -> Option<usize> {
        self.weight("proj").or_else(|| self.weight("q"))?.first().copied()
    }

    /// Width of the tokens that keys are made of.
    fn source_dim(&self) -> Option<usize> {
        self.weight("k").or_else(|| self.weight("v")).or_else(|| self.weight("kv"))?.get(1).copied()
    }

    /// The modules that load these names.
    fn modules(&self) -> &'static str {
        let other_source = self.source_dim().is_some_and(|width| Some(width) != self.hidden_dim());
        match (self.weight("qkv").is_some(), self.weight("kv").is_some() || other_source) {
            (true, _) => "MixedAttention, AnchorAttention or DotProductAttention",
            (false, true) => "PerceiverAttention",
            (false, false) => "MixedAttention, AnchorAttention, DotProductAttention or PerceiverAttention",
        }
    }

    /// All tensors that the layer must have, with their shapes.
    fn expected(&self, width: usize) -> BTreeMap<String, Vec<usize>> {
        let source = self.source_dim().unwrap_or(width);
        let mut projections = vec![("proj", width, width)];
        if self.weight("qkv").is_some() {
            projections.push(("qkv", width.saturating_mul(3), width));
        } else {
            projections.push(("q", width, width));
            match self.weight("kv").is_some() {
                true => projections.push(("kv", width.saturating_mul(2), source)),
                false => projections.extend([("k", width, source), ("v", width, source)]),
            }
        }
        let domains = self.domains();
        let bias = self.parts.keys().any(|name| name.contains(".bias"));
        let mut expected = BTreeMap::new();
        for (name, outputs, inputs) in projections {
            let untied =
                domains.iter().any(|domain| self.parts.contains_key(format!("{name}.weight.{domain}").as_str()));
            let suffixes = match untied {
                true => domains.iter().map(|domain| format!(".{domain}")).collect(),
                false => vec![String::new()],
            };
            for suffix in suffixes {
                expected.insert(format!("{name}.weight{suffix}"), vec![outputs, inputs]);
                if bias {
                    expected.insert(format!("{name}.bias{suffix}"), vec![outputs]);
                }
            }
        }
        expected
    }

    /// What is missing, misshapen or left over.
    fn problems(&self, width: usize) -> Vec<String> {
        let (prefix, expected) = (self.prefix, self.expected(width));
        let mut problems = Vec::new();
        for (name, shape) in &expected {
            match self.parts.get(name.as_str()) {
                None => problems.push(format!("missing: {prefix}{name} {shape:?}")),
                Some(tensor) if &tensor.shape != shape => {
                    problems.push(format!("shape: {prefix}{name} must be {shape:?}, got {:?}", tensor.shape));
                }
                Some(_) => {}
            }
        }
        let left = self.parts.iter().filter(|(name, _)| !expected.contains_key(**name));
        problems.extend(left.map(|(name, tensor)| format!("unexpected: {prefix}{name} {:?}", tensor.shape)));
        problems
    }

    fn describe(&self) -> String {
        let prefix = if self.prefix.is_empty() { "the whole file" } else { self.prefix.trim_end_matches('.') };
        let Some(width) = self.hidden_dim() else {
            return format!("{prefix}: neither proj nor q, so no layer\n");
        };
        let domains = self.domains().len();
        let mut text = format!("{prefix}: {}, width {width}", self.modules());
        if let Some(source) = self.source_dim().filter(|&source| source != width) {
            let _ = write!(text, ", source width {source}");
        }
        if domains > 0 {
            let _ = write!(text, ", weights for each of {domains} domains");
        }
        if let Some(count) = self.wave_numbers {
            let _ = write!(text, ", {}", head_counts(width, count));
        }
        text.push('\n');
        for problem in self.problems(width) {
            let _ = writeln!(text, "  {problem}");
        }
        text
    }
}

/// The numbers of heads that a layer of this width can have, for these wave numbers in three coordinates.
fn head_counts(width: usize, wave_numbers: usize) -> String {
    // head_dim / 3 rounded down to an even number holds one pair of channels for each wave number.
    let fits = |heads: &usize| width.is_multiple_of(*heads) && (width / heads) / 3 / 2 == wave_numbers;
    let heads: Vec<_> = (1..=width.min(1024)).filter(fits).map(|heads| heads.to_string()).collect();
    match heads.is_empty() {
        true => format!("{wave_numbers} wave numbers"),
        false => format!("{} heads by its wave numbers in 3D", heads.join(" or ")),
    }
}
