//! Questions, answered one after another.

use std::path::PathBuf;

use anyhow::{Context, Result};
use predict::live::{Network, Points, Prediction, colours};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::question::Question;

/// Colours of a map.
const COLOURS: usize = 256;

/// The network, loaded by the first question, and the body that it has read.
pub(crate) struct Session {
    folder: PathBuf,
    network: Option<Network>,
    prediction: Option<Prediction>,
}

impl Session {
    /// Keeps the files of the network in a folder that exists.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, network: None, prediction: None }
    }

    /// An answer in any case: what went wrong is one, too.
    pub(crate) fn answer(&mut self, question: &[u8]) -> Vec<u8> {
        let answer = self.try_answer(question).and_then(|(answer, about)| answer.to_bytes(&about));
        answer.unwrap_or_else(|error| {
            let about = json!({"error": format!("{error:#}")});
            Answer::default().to_bytes(&about).unwrap_or_default()
        })
    }

    fn try_answer(&mut self, question: &[u8]) -> Result<(Answer, Value)> {
        match serde_json::from_slice(question).context("the question")? {
            Question::Colours => Ok(tell_colours()),
            Question::Read(read) => {
                self.prediction = None;
                let network = match &self.network {
                    Some(network) => network,
                    None => self.network.insert(Network::load(self.folder.clone())?),
                };
                let prediction = self.prediction.insert(network.read(&read.into())?);
                Ok(tell_places(&prediction.places()?))
            }
            Question::Step { points } => {
                let prediction =
                    self.prediction.as_mut().context("no body was read that points could be predicted of")?;
                tell_step(prediction, points)
            }
        }
    }
}

fn tell_colours() -> (Answer, Value) {
    let mut answer = Answer::default();
    for (name, colours) in colours(COLOURS) {
        answer.floats(name, &[COLOURS, 4], colours.as_flattened());
    }
    (answer, json!({}))
}

fn tell_places(places: &[Points]) -> (Answer, Value) {
    let mut answer = Answer::default();
    for place in places {
        let name = |array: &str| format!("{}.{array}", place.name);
        let (corners, triangles) = (place.corners.as_flattened(), place.triangles.as_flattened());
        answer.floats(name("corners"), &[place.corners.len(), 3], corners);
        answer.indices(name("point_of_corner"), &[place.point_of_corner.len()], &place.point_of_corner);
        answer.indices(name("triangles"), &[place.triangles.len(), 3], triangles);
    }
    let told = places.iter().map(|place| {
        let arrays = place.arrays.iter().map(|(name, components)| json!({"name": name, "components": components}));
        json!({
            "name": place.name,
            "on_body": place.on_body,
            "points": place.count,
            "arrays": arrays.collect::<Vec<_>>(),
        })
    });
    (answer, json!({"places": told.collect::<Vec<_>>()}))
}

fn tell_step(prediction: &mut Prediction, points: u64) -> Result<(Answer, Value)> {
    let mut answer = Answer::default();
    let Some(piece) = prediction.step(points)? else {
        let lines = prediction.streamlines();
        let ends = lines.iter().scan(0, |end, line| {
            *end += line.len() as u32;
            Some(*end)
        });
        let ends: Vec<u32> = ends.collect();
        let all = lines.concat();
        answer.floats("streamlines", &[all.len(), 2], all.as_flattened());
        answer.indices("streamline_ends", &[ends.len()], &ends);
        return Ok((answer, json!({"finished": true, "errors": prediction.errors()})));
    };
    for (name, components, values) in &piece.arrays {
        answer.floats(name, &[values.len() / components, *components], values);
    }
    Ok((answer, json!({"place": piece.place, "first": piece.first, "errors": prediction.errors()})))
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn about(answer: &[u8]) -> Value {
        let (_, metadata) = SafeTensors::read_metadata(answer).unwrap();
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap()
    }

    fn floats(answer: &[u8], name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(answer).unwrap();
        bytemuck::pod_collect_to_vec(tensors.tensor(name).unwrap().data())
    }

    fn session() -> (tempfile::TempDir, Session) {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::new(folder.path().to_path_buf());
        (folder, session)
    }

    fn read(body: Value) -> Vec<u8> {
        let read = json!({"body": body, "alpha": 12.0, "beta": -7.0, "anchors": 256, "plane_points": 41});
        json!({"read": read}).to_string().into_bytes()
    }

    fn step(points: u64) -> Vec<u8> {
        json!({"step": {"points": points}}).to_string().into_bytes()
    }

    #[test]
    fn an_ellipsoid_is_predicted_step_by_step() {
        let (_folder, mut session) = session();
        let answer = session.answer(&read(json!({"ellipsoid": {"semi_axes": [1.1, 0.6, 0.8], "vertices": [11, 16]}})));
        let places = about(&answer)["places"].clone();
        let count = |at: usize| places[at]["points"].as_u64().unwrap();
        assert_eq!((places[0]["name"].as_str(), count(0)), (Some("surface"), 11 * 16 + 2));
        assert_eq!(floats(&answer, "surface.corners").len() as u64, 3 * count(0));

        let mut got = [0, 0];
        let last = loop {
            let answer = session.answer(&step(100));
            let said = about(&answer);
            let Some(place) = said["place"].as_u64() else { break said };
            assert_eq!(said["first"].as_u64(), Some(got[place as usize]));
            got[place as usize] += floats(&answer, "pressure").len() as u64;
        };
        assert_eq!(got, [count(0), count(1)]);
        assert_eq!(last["finished"], true);
        for (field, most) in [("surface_pressure", 0.05), ("slice_pressure", 0.05), ("slice_velocity", 0.02)] {
            let error = last["errors"][field].as_f64().unwrap();
            assert!(error > 0.0 && error < most, "{field}: {error}");
        }
        let lines = session.answer(&step(100));
        assert!(floats(&lines, "streamlines").len() > 200);
    }

    #[test]
    fn a_file_is_predicted_on_its_own_triangles() {
        let (folder, mut session) = session();
        // A cube with two triangles on each side.
        let mut stl = String::from("solid cube\n");
        for axis in 0..3 {
            for side in [-0.5f32, 0.5] {
                let corner = |u: f32, v: f32| {
                    let mut corner = [side; 3];
                    (corner[(axis + 1) % 3], corner[(axis + 2) % 3]) = (u, v);
                    let [x, y, z] = corner;
                    format!("vertex {x} {y} {z}\n")
                };
                let [a, b, c, d] = [corner(-0.5, -0.5), corner(0.5, -0.5), corner(0.5, 0.5), corner(-0.5, 0.5)];
                for [a, b, c] in [[&a, &b, &c], [&a, &c, &d]] {
                    let [b, c] = if side > 0.0 { [b, c] } else { [c, b] };
                    stl += &format!("facet normal 0 0 0\nouter loop\n{a}{b}{c}endloop\nendfacet\n");
                }
            }
        }
        stl += "endsolid cube\n";
        let path = folder.path().join("cube.stl");
        std::fs::write(&path, stl).unwrap();
        let answer = session.answer(&read(json!({"file": {"path": path, "scale": 1.0}})));
        let places = about(&answer)["places"].clone();
        assert_eq!(places[0]["points"], 8, "{}", about(&answer));
        assert_eq!(places[0]["arrays"], json!([{"name": "pressure", "components": 1}]));
        assert_eq!(floats(&session.answer(&step(1000)), "pressure").len(), 8);

        // What does not fit is refused in the words of the program, and the session goes on.
        let answer = session.answer(&read(json!({"file": {"path": path, "scale": 100.0}})));
        let error = about(&answer)["error"].as_str().unwrap().to_string();
        assert!(error.contains("cube.stl") && error.contains("50"), "{error}");
        assert!(about(&session.answer(&step(10)))["error"].as_str().unwrap().contains("no body was read"));
    }

    #[test]
    fn bad_questions_are_told() {
        let (_folder, mut session) = session();
        let ellipsoid = json!({"ellipsoid": {"semi_axes": [1.0, 1.0, 1.0], "vertices": [1 << 20, 1 << 20]}});
        let error = about(&session.answer(&read(ellipsoid)))["error"].to_string();
        assert!(error.contains("at most") && error.contains("1048576 rings of 1048576"), "{error}");
        for question in ["", "{}", r#"{"step": {"points": -1}}"#, r#"{"read": {"alpha": 1}}"#] {
            let answer = session.answer(question.as_bytes());
            assert!(about(&answer)["error"].as_str().unwrap().contains("the question"), "{question}");
        }
    }
}
