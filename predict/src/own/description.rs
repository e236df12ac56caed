//! What the description of a model says beside its network and its statistics.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::open_regular;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::args::MOST_POINTS;

/// How the network saw bodies in training. Everything is optional.
#[derive(Debug, Default)]
pub(super) struct Description {
    /// How anchors were drawn, by domain.
    pub anchors: BTreeMap<String, Anchors>,
    pub geometry: Option<Geometry>,
    /// Ranges of what the training data held, by name.
    pub valid_range: BTreeMap<String, [f64; 2]>,
    /// Remarks about fields, by `<domain>_<field>`.
    pub remarks: Map<String, Value>,
}

/// Anchors of one domain in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Anchors {
    /// The fewest and the most.
    pub count: [usize; 2],
    pub sampling: Sampling,
}

/// Where anchors lay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Sampling {
    /// On the surface, evenly over its area.
    Area,
    /// At points of the mesh that fields are predicted on.
    Mesh,
    /// Outside of the body, evenly in the box of the statistics.
    Box,
    /// A share off the surface, at distances with this mean (exponentially distributed) or evenly within this one; the
    /// rest as `Box`.
    NearSurface { share: f64, mean_distance: Option<f64>, within: Option<f64> },
}

/// The geometry in training: the fewest and the most points, and supernodes among them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Geometry {
    pub points: [usize; 2],
    pub supernodes: [usize; 2],
}

impl Description {
    /// Reads the file of a description.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        let read = open_regular(path).and_then(|mut file| file.read_to_string(&mut text));
        read.with_context(|| format!("cannot open {}", path.display()))?;
        // The network's own part was read before, and said what is wrong with the file.
        let mut whole: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
        let mut take = |key: &str| whole.remove(key).unwrap_or_default();
        let within = |key: &str| format!("{}: {key}", path.display());
        let (anchors, geometry, ranges) = (take("anchors"), take("geometry"), take("valid_range"));
        let anchors: Option<BTreeMap<String, Anchors>> =
            serde_json::from_value(anchors).with_context(|| within("anchors"))?;
        let geometry: Option<Geometry> = serde_json::from_value(geometry).with_context(|| within("geometry"))?;
        // Ranges and remarks are for people first, so those in another form are no error.
        let ranges: Map<String, Value> = serde_json::from_value(ranges).unwrap_or_default();
        let range = |(name, range): (String, Value)| Some((name, serde_json::from_value(range).ok()?));
        let description = Self {
            anchors: anchors.unwrap_or_default(),
            geometry,
            valid_range: ranges.into_iter().filter_map(range).collect(),
            remarks: serde_json::from_value(take("fields")).unwrap_or_default(),
        };
        description.check().with_context(|| path.display().to_string())?;
        Ok(description)
    }

    fn check(&self) -> Result<()> {
        let range = |name: &str, [low, high]: [usize; 2]| {
            ensure!(
                0 < low && low <= high && high <= MOST_POINTS,
                "{name} must be [fewest, most], both from 1 to {MOST_POINTS}, got [{low}, {high}]"
            );
            Ok(())
        };
        for (domain, Anchors { count, sampling }) in &self.anchors {
            range(&format!("anchors.{domain}.count"), *count)?;
            let Sampling::NearSurface { share, mean_distance, within } = *sampling else { continue };
            ensure!((0.0..=1.0).contains(&share), "anchors.{domain}: share must lie between 0 and 1, got {share}");
            let (Some(distance), None) = (mean_distance.or(within), mean_distance.and(within)) else {
                anyhow::bail!("anchors.{domain}: near_surface must have one of mean_distance and within");
            };
            ensure!(distance > 0.0, "anchors.{domain}: a distance must be above 0, got {distance}");
        }
        let Some(Geometry { points, supernodes }) = self.geometry else { return Ok(()) };
        range("geometry.points", points)?;
        range("geometry.supernodes", supernodes)
    }

    /// Whether anchors of a domain lay in the space around bodies.
    pub(super) fn draws_around(&self, domain: &str) -> bool {
        let sampling = self.anchors.get(domain).map(|anchors| anchors.sampling);
        matches!(sampling, Some(Sampling::Box | Sampling::NearSurface { .. }))
    }

    /// What of it a result depends on.
    pub(super) fn training(&self) -> Value {
        json!({"anchors": self.anchors, "geometry": self.geometry})
    }

    /// Sentences about conditions outside of what the training data held.
    pub(super) fn warnings(&self, conditions: &[(String, Vec<f64>)]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, values) in conditions {
            // A key may end in the unit, as in alpha_deg.
            let with_unit = |key: &&String| key.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('_'));
            let key = self.valid_range.keys().find(|key| *key == name);
            let Some(key) = key.or_else(|| self.valid_range.keys().find(with_unit)) else { continue };
            let [low, high] = self.valid_range[key];
            for value in values.iter().filter(|value| !(low..=high).contains(*value)) {
                warnings.push(format!("condition {name} = {value} is outside the trained range {low} to {high}"));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Description> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        std::fs::write(&path, text).unwrap();
        Description::read(&path)
    }

    #[test]
    fn the_demo_says_how_it_was_trained() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/ellipsoid.json");
        let description = Description::read(Path::new(path)).unwrap();
        let near = Sampling::NearSurface { share: 0.6, mean_distance: Some(0.3), within: None };
        assert_eq!(description.anchors["volume"], Anchors { count: [256, 1024], sampling: near });
        assert_eq!(description.anchors["surface"].sampling, Sampling::Area);
        assert_eq!(description.geometry, Some(Geometry { points: [512, 1024], supernodes: [64, 128] }));
        let conditions = [("alpha".to_string(), vec![25.0]), ("beta".to_string(), vec![-3.0])];
        assert_eq!(description.warnings(&conditions), ["condition alpha = 25 is outside the trained range -20 to 20"]);
    }

    #[test]
    fn a_description_that_cannot_be_right_is_refused() {
        let cases = [
            (
                r#"{"anchors": {"volume": {"count": [9, 3], "sampling": {"kind": "box"}}}}"#,
                "anchors.volume.count must be",
            ),
            (
                r#"{"anchors": {"volume": {"count": [1, 18446744073709551615], "sampling": {"kind": "box"}}}}"#,
                "from 1 to 67108864",
            ),
            (
                r#"{"anchors": {"volume": {"count": [1, 3], "sampling": {"kind": "cone"}}}}"#,
                "anchors: unknown variant `cone`",
            ),
            (
                r#"{"anchors": {"volume": {"count": [1, 3], "sampling": {"kind": "near_surface", "share": 1.5, "within": 1}}}}"#,
                "share must lie",
            ),
            (
                r#"{"anchors": {"volume": {"count": [1, 3], "sampling": {"kind": "near_surface", "share": 0.5}}}}"#,
                "one of mean_distance and within",
            ),
            (r#"{"geometry": {"points": [0, 3], "supernodes": [1, 2]}}"#, "geometry.points must be"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(read(r#"{"valid_range": "wide", "fields": 7}"#).unwrap().valid_range.is_empty());
    }
}
