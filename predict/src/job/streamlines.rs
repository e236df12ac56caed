//! Streamlines through a domain, in space.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::DomainConfig;

use super::lines::evenly;
use super::{FlowModel, predict_all};
use crate::input::{Grid, Location};
use crate::mesh::Mesh;
use crate::output::{Chunk, Codec, FieldSpec, GridShape, Kept, Shape, vtk_layout};
use crate::solid::Solid;
use crate::vector::{Vec3, add, length, scaled, sub};

/// Steps along the diagonal of the box.
const STEPS_ACROSS: f64 = 300.0;

/// Steps of a line in either direction at most, as a vortex has no end.
const MOST_STEPS: usize = 1200;

/// Lines at most: with their steps they are ten million points.
pub(crate) const MOST_STREAMLINES: usize = 4096;

/// Streamlines through points that lie evenly between two ends.
pub(crate) struct Streamlines {
    /// The name of their file.
    pub(crate) name: String,
    pub(crate) domain: DomainConfig,
    /// The place of the velocity among the fields of the domain.
    pub(crate) velocity: usize,
    pub(crate) from: Vec3,
    pub(crate) to: Vec3,
    pub(crate) count: usize,
    /// Where they end.
    pub(crate) bounds: [Vec3; 2],
    /// What they go around.
    pub(crate) body: Option<Solid>,
}

/// One line from its seed on.
struct Path {
    /// 1 with the stream, −1 against it.
    direction: f64,
    points: Vec<Vec3>,
    /// The time that a particle takes from the seed to each point.
    times: Vec<f64>,
    ended: bool,
}

impl Streamlines {
    /// The points that they go through.
    pub(crate) fn seeds(&self) -> Vec<[f32; 3]> {
        evenly(self.from, self.to, self.count)
    }

    /// The name and the contents of their file: lines with all fields of the domain and the time from the seed.
    pub(super) fn file(
        &self,
        model: &mut dyn FlowModel,
        codec: Option<Codec>,
        chunk: u64,
    ) -> Result<(String, Vec<u8>)> {
        let lines = self.follow(model)?;
        let points: Vec<[f32; 3]> =
            lines.iter().flat_map(|(points, _)| points).map(|point| point.map(|x| x as f32)).collect();
        let mut fields = predict_all(model, &self.domain.name, self.domain.fields.len(), &points, chunk)?;
        fields.push(lines.iter().flat_map(|(_, times)| times).map(|&time| time as f32).collect());
        let mut specs: Vec<_> = self.domain.fields.iter().map(|field| FieldSpec::new(&field.name, field.dim)).collect();
        specs.push(FieldSpec::new("time", 1));

        let lengths: Vec<usize> = lines.iter().map(|(points, _)| points.len()).collect();
        let mut grid = Grid::of_lines(points.clone(), &lengths)?;
        let (outline, kept) = (grid.outline()?, Kept::default());
        let shape = Shape::Grid(GridShape {
            grid: Rc::new(RefCell::new(grid)),
            outline: &outline,
            at: Location::Points,
            kept: &kept,
            solid_of_cells: &[],
            solids: &[],
        });
        let layout = vtk_layout(&self.name, points.len() as u64, &specs, &shape, codec);
        Ok((layout.name.clone(), layout.to_bytes(&Chunk { points, fields })?))
    }

    /// Points and times of each line, from its upstream end to its downstream end. All lines take a step together, so that
    /// the network is asked as seldom as can be.
    fn follow(&self, model: &mut dyn FlowModel) -> Result<Vec<(Vec<Vec3>, Vec<f64>)>> {
        let step = length(sub(self.bounds[1], self.bounds[0])) / STEPS_ACROSS;
        let seeds = self.seeds().into_iter().map(|point| point.map(f64::from)).filter(|&seed| self.is_free(seed));
        let mut paths: Vec<Path> = seeds
            .flat_map(|seed| {
                [-1.0, 1.0].map(|direction| Path { direction, points: vec![seed], times: vec![0.0], ended: false })
            })
            .collect();
        for _ in 0..MOST_STEPS {
            let running: Vec<&mut Path> = paths.iter_mut().filter(|path| !path.ended).collect();
            if running.is_empty() {
                break;
            }
            let here: Vec<Vec3> = running.iter().map(|path| path.points[path.points.len() - 1]).collect();
            let velocities = self.velocities(model, &here)?;
            // The midpoint rule: half a step with the velocity here, a whole one with the velocity there.
            let halfway: Vec<Option<Vec3>> = running
                .iter()
                .zip(here.iter().zip(&velocities))
                .map(|(path, (&point, &velocity))| {
                    let speed = length(velocity);
                    let half = add(point, scaled(velocity, path.direction * 0.5 * step / speed));
                    (speed > 0.0 && self.is_free(half)).then_some(half)
                })
                .collect();
            let asked: Vec<Vec3> = halfway.iter().flatten().copied().collect();
            let mut there = self.velocities(model, &asked)?.into_iter();
            for ((path, point), halfway) in running.into_iter().zip(here).zip(halfway) {
                path.ended = true;
                let Some(velocity) = halfway.and_then(|_| there.next()) else { continue };
                let speed = length(velocity);
                let next = add(point, scaled(velocity, path.direction * step / speed));
                if speed > 0.0 && self.is_free(next) {
                    let time = path.times[path.times.len() - 1] + path.direction * step / speed;
                    path.points.push(next);
                    path.times.push(time);
                    path.ended = false;
                }
            }
        }
        let line = |pair: &[Path]| {
            let [upstream, downstream] = pair else { return (Vec::new(), Vec::new()) };
            let points = upstream.points.iter().skip(1).rev().chain(&downstream.points).copied().collect();
            (points, upstream.times.iter().skip(1).rev().chain(&downstream.times).copied().collect())
        };
        Ok(paths.chunks(2).map(line).filter(|(points, _): &(Vec<_>, _)| points.len() > 1).collect())
    }

    fn velocities(&self, model: &mut dyn FlowModel, points: &[Vec3]) -> Result<Vec<Vec3>> {
        if points.is_empty() {
            return Ok(Vec::new());
        }
        let narrow: Vec<[f32; 3]> = points.iter().map(|point| point.map(|x| x as f32)).collect();
        let fields = model.predict(&self.domain.name, 0, &narrow)?;
        Ok(fields[self.velocity].as_chunks::<3>().0.iter().map(|velocity| velocity.map(f64::from)).collect())
    }

    /// Whether a point lies in the box and outside of the body.
    fn is_free(&self, point: Vec3) -> bool {
        let [low, high] = self.bounds;
        let in_box = (0..3).all(|i| (low[i]..=high[i]).contains(&point[i]));
        in_box && !self.body.as_ref().is_some_and(|body| body.contains(point.map(|x| x as f32)))
    }
}

/// The outside of a body that streamlines go around.
pub(crate) fn obstacle(body: Option<&Mesh>) -> Option<Solid> {
    body.filter(|body| body.faces().next().is_some()).map(Solid::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ellipsoid::surface_mesh;
    use crate::input::Input;

    /// A flow that turns around the z axis, with a pressure beside its velocity.
    struct Vortex;

    impl FlowModel for Vortex {
        fn predict(&mut self, _: &str, _: u64, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
            let pressure = points.iter().map(|&[x, y, _]| x + y).collect();
            Ok(vec![pressure, points.iter().flat_map(|&[x, y, _]| [-2.0 * y, 2.0 * x, 0.0]).collect()])
        }
    }

    fn streamlines(from: Vec3, to: Vec3, count: usize, body: Option<Solid>) -> Streamlines {
        let domain = serde_json::json!({
            "name": "volume", "decoder_blocks": 0,
            "fields": [{"name": "p", "dim": 1}, {"name": "u", "dim": 3}],
        });
        Streamlines {
            name: "streamlines".to_string(),
            domain: serde_json::from_value(domain).unwrap(),
            velocity: 1,
            from,
            to,
            count,
            bounds: [[-3.0; 3], [3.0; 3]],
            body,
        }
    }

    #[test]
    fn lines_around_an_axis_are_circles_and_time_passes_along_them() {
        let lines = streamlines([1.0, 0.0, 0.0], [2.0, 0.0, 0.0], 3, None).follow(&mut Vortex).unwrap();
        assert_eq!(lines.len(), 3);
        for ((points, times), radius) in lines.iter().zip([1.0, 1.5, 2.0]) {
            assert_eq!(points.len(), 2 * MOST_STEPS + 1);
            for point in points {
                assert!((point[0].hypot(point[1]) / radius - 1.0).abs() < 2e-3, "{point:?} for {radius}");
            }
            // The angle grows by 2 in a unit of time.
            let (point, time) = (points[MOST_STEPS + 40], times[MOST_STEPS + 40]);
            assert!((point[1].atan2(point[0]) - 2.0 * time).abs() < 1e-3, "{point:?} at {time}");
            assert_eq!(times[MOST_STEPS], 0.0);
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn lines_end_at_the_box_and_at_the_body() {
        let mut away = streamlines([2.9, 0.0, 0.0], [2.9, 0.0, 0.0], 1, None);
        away.bounds = [[-3.0, -0.5, -3.0], [3.0, 0.5, 3.0]];
        let lines = away.follow(&mut Vortex).unwrap();
        assert!(lines[0].0.iter().all(|point| point[1].abs() <= 0.5) && lines[0].0.len() < 200);
        let body = surface_mesh([0.5; 3], 20, 30);
        let around = streamlines([0.0, 1.0, 0.0], [0.0, 1.4, 0.0], 2, obstacle(Some(&body)));
        assert_eq!(around.follow(&mut Vortex).unwrap().len(), 2);
        let inside = streamlines([0.0; 3], [0.1, 0.0, 0.0], 2, obstacle(Some(&body)));
        assert!(inside.follow(&mut Vortex).unwrap().is_empty(), "there is no flow in a body");
    }

    #[test]
    fn the_file_holds_lines_with_all_fields() {
        let (name, bytes) =
            streamlines([1.0, 0.0, 0.0], [2.0, 0.0, 0.0], 4, None).file(&mut Vortex, None, 1000).unwrap();
        assert_eq!(name, "streamlines.vtp");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let Input::Sites(sites) = Input::open(path.to_str().unwrap(), None).unwrap() else { panic!("a mesh") };
        let grid = sites.grid();
        let mut grid = grid.borrow_mut();
        assert_eq!((grid.cells(), grid.points()), (4, 4 * (2 * MOST_STEPS as u64 + 1)));
        let arrays: Vec<_> = grid.arrays(Location::Points);
        assert_eq!(arrays, [("p".to_string(), 1), ("u".to_string(), 3), ("time".to_string(), 1)]);
        let (points, velocity) =
            (grid.read_points(5..9).unwrap(), grid.read_array(Location::Points, "u", 5..9).unwrap());
        for (point, velocity) in points.iter().zip(velocity.as_chunks::<3>().0) {
            assert!((velocity[0] + 2.0 * point[1]).abs() < 1e-5 && (velocity[1] - 2.0 * point[0]).abs() < 1e-5);
        }
    }
}
