//! Forces on a body, from the pressure and the shear on its surface.

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::mesh::Mesh;
use crate::solid::volume;
use crate::vector::{Vec3, add, cross, dot, length, sub};

/// Share of the area that the area vectors of a surface may add up to before it is called open.
const CLOSED: f64 = 1e-3;

/// Values on the surface of a body, one per vertex or one per cell.
pub(crate) struct OnSurface<'a> {
    /// The cell of every face, where values are those of cells.
    pub cells: Option<&'a [u64]>,
    pub pressure: &'a [f32],
    /// The stress along the surface that acts on the body, three components each; empty if it is not known.
    pub shear: &'a [f32],
}

/// What makes coefficients of forces.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Reference {
    /// Without one there are no coefficients.
    pub area: Option<f64>,
    pub speed: f64,
    pub density: f64,
    /// Of moments.
    pub length: f64,
    pub drag_axis: Vec3,
    pub lift_axis: Vec3,
    pub moment_about: Vec3,
}

impl Default for Reference {
    fn default() -> Self {
        Self {
            area: None,
            speed: 1.0,
            density: 1.0,
            length: 1.0,
            drag_axis: [1.0, 0.0, 0.0],
            lift_axis: [0.0, 0.0, 1.0],
            moment_about: [0.0; 3],
        }
    }
}

/// The force on some faces, and the moment about the point of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Force {
    /// The part of the pressure.
    pub pressure: Vec3,
    /// The part of the shear.
    pub shear: Vec3,
    pub moment: Vec3,
    /// The area of the faces.
    pub area: f64,
    /// What the area vectors of the faces add up to: zero for a closed surface.
    pub area_vector: Vec3,
}

/// A force over dynamic pressure and area.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Coefficients {
    pub drag: f64,
    pub drag_of_pressure: f64,
    pub drag_of_shear: f64,
    pub lift: f64,
    /// Along the lift axis × the drag axis.
    pub side: f64,
    pub moment: Vec3,
}

impl Reference {
    /// Makes both axes unit vectors.
    ///
    /// # Errors
    /// A number that is not positive, an axis without length, axes that are not perpendicular.
    pub(crate) fn checked(mut self) -> Result<Self> {
        let numbers = [("area", self.area.unwrap_or(1.0)), ("speed", self.speed), ("length", self.length)];
        for (name, number) in numbers {
            ensure!(number > 0.0 && number.is_finite(), "--reference-{name} must be above 0, got {number}");
        }
        ensure!(self.density > 0.0 && self.density.is_finite(), "--density must be above 0, got {}", self.density);
        for (name, axis) in [("drag", &mut self.drag_axis), ("lift", &mut self.lift_axis)] {
            let length = length(*axis);
            ensure!(length > 0.0 && length.is_finite(), "--{name}-axis must have a length, got {axis:?}");
            *axis = axis.map(|x| x / length);
        }
        let cosine = dot(self.drag_axis, self.lift_axis);
        ensure!(cosine.abs() < 1e-6, "--lift-axis must be perpendicular to --drag-axis, their cosine is {cosine}");
        Ok(self)
    }

    /// The coefficients of a force, if the area is known.
    pub(crate) fn coefficients(&self, force: &Force) -> Option<Coefficients> {
        let scale = 0.5 * self.density * self.speed.powi(2) * self.area?;
        let side_axis = cross(self.lift_axis, self.drag_axis);
        let along = |axis: Vec3, force: Vec3| dot(force, axis) / scale;
        let total = add(force.pressure, force.shear);
        Some(Coefficients {
            drag: along(self.drag_axis, total),
            drag_of_pressure: along(self.drag_axis, force.pressure),
            drag_of_shear: along(self.drag_axis, force.shear),
            lift: along(self.lift_axis, total),
            side: along(side_axis, total),
            moment: force.moment.map(|x| x / (scale * self.length)),
        })
    }
}

impl Force {
    /// The force on the faces of a body for which `counts` holds, each with the mean of its corners. Faces look outwards,
    /// or all of them inwards.
    pub(crate) fn on(body: &Mesh, values: &OnSurface, about: Vec3, counts: impl Fn(usize) -> bool) -> Self {
        let outwards = if volume(body) < 0.0 { -1.0 } else { 1.0 };
        let point = |corner: u32| body.points()[corner as usize].map(f64::from);
        let mut force = Self::default();
        for (at, face) in body.faces().enumerate().filter(|(at, face)| counts(*at) && face.len() > 2) {
            let first = point(face[0]);
            // A face that is not flat has the area vector of its rim.
            let mut vector = [0.0; 3];
            for pair in face[1..].windows(2) {
                vector = add(vector, cross(sub(point(pair[0]), first), sub(point(pair[1]), first)));
            }
            let vector = vector.map(|x| 0.5 * outwards * x);
            let area = length(vector);
            let mean = |component: &dyn Fn(usize) -> f64| {
                face.iter().map(|&corner| component(corner as usize)).sum::<f64>() / face.len() as f64
            };
            let value = |component: &dyn Fn(usize) -> f64| match values.cells {
                Some(cells) => component(cells[at] as usize),
                None => mean(component),
            };
            let pressure = value(&|place| f64::from(values.pressure[place]));
            // Where points were dropped there is no pressure.
            if pressure.is_nan() {
                continue;
            }
            let by_pressure = vector.map(|x| -pressure * x);
            let by_shear: Vec3 = match values.shear {
                [] => [0.0; 3],
                shear => std::array::from_fn(|i| area * value(&|place| f64::from(shear[3 * place + i]))),
            };
            let centre: Vec3 = std::array::from_fn(|i| mean(&|corner| f64::from(body.points()[corner][i])));
            force.pressure = add(force.pressure, by_pressure);
            force.shear = add(force.shear, by_shear);
            force.moment = add(force.moment, cross(sub(centre, about), add(by_pressure, by_shear)));
            force.area += area;
            force.area_vector = add(force.area_vector, vector);
        }
        force
    }

    /// A sentence with numbers if the faces do not close a body.
    pub(crate) fn warning(&self) -> Option<String> {
        let open = dot(self.area_vector, self.area_vector).sqrt();
        (open > CLOSED * self.area).then(|| {
            format!(
                "forces: the surface is not closed, or its faces look to different sides: its area is {:.4}, and a pressure \
                 that is 1 everywhere makes a force of {open:.4}",
                self.area
            )
        })
    }
}

/// The area that each vertex stands for: a third of each triangle around it.
pub(crate) fn areas_of_vertices(body: &Mesh) -> Vec<f64> {
    let mut areas = vec![0.0; body.points().len()];
    for corners in body.triangles() {
        let [a, b, c] = corners.map(|corner| body.points()[corner as usize].map(f64::from));
        let vector = cross(sub(b, a), sub(c, a));
        let share = length(vector) / 6.0;
        corners.iter().for_each(|&corner| areas[corner as usize] += share);
    }
    areas
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::ellipsoid::{Case, Flow, surface_mesh};

    fn force(body: &Mesh, pressure: &[f32], shear: &[f32]) -> Force {
        Force::on(body, &OnSurface { cells: None, pressure, shear }, [0.0; 3], |_| true)
    }

    #[test]
    fn a_potential_flow_has_no_drag() {
        // d'Alembert: whichever way the stream comes.
        let case = Case::new([1.15, 0.62, 0.81], 12.0, -7.0).unwrap();
        let (flow, body) = (Flow::new(&case), surface_mesh(case.semi_axes, 127, 256));
        let pressure: Vec<f32> =
            body.points().iter().map(|point| flow.surface_pressure(point.map(f64::from)) as f32).collect();
        let force = force(&body, &pressure, &[]);
        assert!(force.pressure.iter().all(|component| component.abs() < 1e-6), "{force:?}");
        assert_eq!(force.warning(), None);
        // It has a moment all the same: the body wants to turn across the stream.
        assert!(dot(force.moment, force.moment) > 0.01);
    }

    #[test]
    fn a_sphere_in_creeping_flow_has_stokes_drag() {
        // Viscosity, speed and radius 1: a third of 6π from the pressure, two thirds from the shear.
        let body = surface_mesh([1.0; 3], 200, 400);
        let cosine = |point: &[f32; 3]| f64::from(point[0]);
        let pressure: Vec<f32> = body.points().iter().map(|point| (-1.5 * cosine(point)) as f32).collect();
        let along =
            |point: &[f32; 3], i: usize| 1.5 * (f64::from(u8::from(i == 0)) - cosine(point) * f64::from(point[i]));
        let shear: Vec<f32> =
            body.points().iter().flat_map(|point| [0, 1, 2].map(|i| along(point, i) as f32)).collect();
        let force = force(&body, &pressure, &shear);
        for (found, expected) in [(force.pressure, 2.0 * PI), (force.shear, 4.0 * PI)] {
            assert!((found[0] / expected - 1.0).abs() < 2e-4, "{found:?} for {expected}");
            assert!(found[1].abs() < 1e-5 && found[2].abs() < 1e-5);
        }
        let reference =
            Reference { area: Some(PI), density: 2.0, speed: 3.0, ..Reference::default() }.checked().unwrap();
        let coefficients = reference.coefficients(&force).unwrap();
        assert!((coefficients.drag / (6.0 / 9.0) - 1.0).abs() < 2e-4, "{coefficients:?}");
        assert!((coefficients.drag - coefficients.drag_of_pressure - coefficients.drag_of_shear).abs() < 1e-12);
        assert!(coefficients.lift.abs() < 1e-5 && coefficients.side.abs() < 1e-5);
    }

    #[test]
    fn hydrostatic_pressure_carries_the_displaced_volume_whichever_way_faces_look() {
        let body = surface_mesh([1.1, 0.6, 0.8], 120, 240);
        let mut inside_out = Mesh::new(body.points().to_vec());
        body.faces().for_each(|face| inside_out.push_face(&face.iter().rev().copied().collect::<Vec<_>>()));
        let depth: Vec<f32> = body.points().iter().map(|point| -point[2]).collect();
        let displaced = 4.0 / 3.0 * PI * 0.528;
        for body in [&body, &inside_out] {
            let force = force(body, &depth, &[]);
            assert!((force.pressure[2] / displaced - 1.0).abs() < 1e-3, "{force:?}");
            // In the middle of a box the force goes through the centre.
            assert!(force.moment.iter().all(|component| component.abs() < 1e-5));
            let moved =
                Force::on(body, &OnSurface { cells: None, pressure: &depth, shear: &[] }, [1.0, 0.0, 0.0], |_| true);
            assert!((moved.moment[1] / displaced - 1.0).abs() < 1e-3, "{moved:?}");
        }
    }

    #[test]
    fn values_of_cells_act_on_their_faces() {
        // Hydrostatic pressure at the middle of every face, cells numbered from behind.
        let body = surface_mesh([1.1, 0.6, 0.8], 120, 240);
        let count = body.faces().count();
        let height = |face: &[u32]| {
            face.iter().map(|&corner| body.points()[corner as usize][2]).sum::<f32>() / face.len() as f32
        };
        let mut pressure: Vec<f32> = body.faces().map(|face| -height(face)).collect();
        pressure.reverse();
        let cells: Vec<u64> = (0..count as u64).rev().collect();
        let values = OnSurface { cells: Some(&cells), pressure: &pressure, shear: &[] };
        let force = Force::on(&body, &values, [0.0; 3], |_| true);
        assert!((force.pressure[2] / (4.0 / 3.0 * PI * 0.528) - 1.0).abs() < 1e-3, "{force:?}");
    }

    #[test]
    fn vertices_share_the_area() {
        let body = surface_mesh([1.0; 3], 100, 200);
        let areas = areas_of_vertices(&body);
        assert!((areas.iter().sum::<f64>() / (4.0 * PI) - 1.0).abs() < 1e-3);
        assert!(areas.iter().all(|&area| area > 0.0));
    }

    #[test]
    fn parts_add_up_and_an_open_body_is_warned_of() {
        let body = surface_mesh([1.0; 3], 20, 30);
        let pressure = vec![1.0; body.points().len()];
        let values = OnSurface { cells: None, pressure: &pressure, shear: &[] };
        let part = |front: bool| Force::on(&body, &values, [0.0; 3], |face| (face < 100) == front);
        let (front, rear, all) = (part(true), part(false), force(&body, &pressure, &[]));
        assert!((front.area + rear.area - all.area).abs() < 1e-9);
        assert!((front.pressure[0] + rear.pressure[0]).abs() < 1e-6 && front.pressure[0].abs() > 0.1);
        let warning = front.warning().unwrap();
        assert!(warning.contains("is not closed") && warning.contains("makes a force of"), "{warning}");
    }

    #[test]
    fn references_that_cannot_be_are_refused() {
        let cases = [
            (Reference { area: Some(0.0), ..Reference::default() }, "--reference-area must be above 0, got 0"),
            (Reference { speed: -1.0, ..Reference::default() }, "--reference-speed"),
            (Reference { density: f64::NAN, ..Reference::default() }, "--density"),
            (Reference { drag_axis: [0.0; 3], ..Reference::default() }, "--drag-axis must have a length"),
            (Reference { lift_axis: [1.0, 0.0, 1.0], ..Reference::default() }, "--lift-axis must be perpendicular"),
        ];
        for (reference, expected) in cases {
            let error = reference.checked().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
