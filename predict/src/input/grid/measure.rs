//! Centres and sizes of cells.

use anyhow::Result;

use super::cells::{Cells, before};
use super::shape::{kind, shape_of};
use crate::vector::{Vec3, add, cross, dot, length, scaled, sub};

/// Cells with the points that make them.
#[derive(Default)]
pub(super) struct Located {
    pub cells: Cells,
    /// The point of every entry of `corners`.
    pub corners: Vec<Vec3>,
    /// The point of every entry of `face_corners`.
    pub face_corners: Vec<Vec3>,
}

impl Located {
    fn points_of(&self, cell: usize) -> &[Vec3] {
        &self.corners[before(&self.cells.ends, cell)..self.cells.ends[cell]]
    }

    fn faces_of(&self, cell: usize) -> impl Iterator<Item = &[Vec3]> {
        let (faces, ends) = (&self.cells.cell_faces, &self.cells.face_ends);
        (before(faces, cell)..faces[cell]).map(|face| &self.face_corners[before(ends, face)..ends[face]])
    }

    /// A point inside of a polyhedron, if it is not too odd: the mean of the corners of its faces.
    fn inside(&self, cell: usize) -> Vec3 {
        let corners: Vec<Vec3> = self.faces_of(cell).flatten().copied().collect();
        if corners.is_empty() { mean(self.points_of(cell)) } else { mean(&corners) }
    }
}

/// The centre of a cell, where finite-volume results live.
///
/// Of cells with a fixed number of nodes it is the middle of their parameters, as in VTK: the mean of the corners where
/// edges are straight. Of pyramids, polygons and polyhedra it is the centre of mass, where VTK has a point that depends
/// on the order of the corners or on the axes.
///
/// # Errors
/// A kind of cell that is not known.
pub(super) fn centre(located: &Located, cell: usize) -> Result<Vec3> {
    let (kind, points) = (located.cells.kinds[cell], located.points_of(cell));
    if let Some(shape) = shape_of(kind) {
        let weights = shape.centre.iter().flat_map(|&(nodes, weight)| std::iter::repeat_n(weight, nodes));
        return Ok(points.iter().zip(weights).fold([0.0; 3], |sum, (&point, weight)| add(sum, scaled(point, weight))));
    }
    Ok(match kind {
        kind::POLY_VERTEX | kind::POLY_LINE => mean(points),
        kind::TRIANGLE_STRIP => {
            let triangles = points.windows(3).map(|triangle| (length(area_vector(triangle)), mean(triangle)));
            weighted(triangles).unwrap_or_else(|| mean(points))
        }
        kind::POLYGON => centre_of_face(points),
        kind::QUADRATIC_POLYGON => centre_of_face(&interleaved(points)),
        kind::POLYHEDRON => {
            let middle = located.inside(cell);
            let parts = located.faces_of(cell).map(|face| {
                let tip = add(scaled(centre_of_face(face), 0.75), scaled(middle, 0.25));
                (pyramid(face, middle).abs(), tip)
            });
            weighted(parts).unwrap_or(middle)
        }
        other => return Err(unknown(other)),
    })
}

/// The length, area or volume of a cell, by its dimension; 0 for points.
///
/// # Errors
/// A kind of cell that is not known.
pub(super) fn size(located: &Located, cell: usize) -> Result<f64> {
    let (kind, points) = (located.cells.kinds[cell], located.points_of(cell));
    if let Some(shape) = shape_of(kind) {
        let mut faces = shape.faces().map(|face| face.map(|node| points[node]).collect::<Vec<_>>());
        return Ok(match shape.dimension {
            0 => 0.0,
            1 => length(sub(points[1], points[0])),
            2 => faces.next().map_or(0.0, |face| length(area_vector(&face))),
            _ => {
                let middle = mean(points);
                faces.map(|face| pyramid(&face, middle)).sum::<f64>().abs()
            }
        });
    }
    Ok(match kind {
        kind::POLY_VERTEX => 0.0,
        kind::POLY_LINE => points.windows(2).map(|ends| length(sub(ends[1], ends[0]))).sum(),
        kind::TRIANGLE_STRIP => points.windows(3).map(|triangle| length(area_vector(triangle))).sum(),
        kind::POLYGON => length(area_vector(points)),
        kind::QUADRATIC_POLYGON => length(area_vector(&interleaved(points))),
        kind::POLYHEDRON => {
            let middle = located.inside(cell);
            // Faces of a polyhedron may be turned either way, so each counts by itself.
            located.faces_of(cell).map(|face| pyramid(face, middle).abs()).sum()
        }
        other => return Err(unknown(other)),
    })
}

/// The faces that a cell adds to a surface: itself, the triangles of a strip, nothing for points, lines and volumes.
///
/// # Errors
/// A kind of cell that is not known.
pub(super) fn surface_faces(cells: &Cells, cell: usize) -> Result<Vec<Vec<u64>>> {
    let (kind, corners) = (cells.kinds[cell], cells.corners_of(cell));
    if let Some(shape) = shape_of(kind) {
        let faces = shape.faces().map(|face| face.map(|node| corners[node]).collect());
        return Ok(if shape.dimension == 2 { faces.collect() } else { Vec::new() });
    }
    Ok(match kind {
        kind::POLYGON => vec![corners.to_vec()],
        kind::QUADRATIC_POLYGON => vec![interleaved(corners)],
        // Every second triangle of a strip is turned over.
        kind::TRIANGLE_STRIP => {
            let turned = |(at, triangle): (usize, &[u64])| match at % 2 {
                0 => triangle.to_vec(),
                _ => vec![triangle[1], triangle[0], triangle[2]],
            };
            corners.windows(3).enumerate().map(turned).collect()
        }
        kind::POLY_VERTEX | kind::POLY_LINE | kind::POLYHEDRON => Vec::new(),
        other => return Err(unknown(other)),
    })
}

fn unknown(kind: u8) -> anyhow::Error {
    anyhow::anyhow!("cells of type {kind} have no size or centre here: linear and quadratic cells and polyhedra do")
}

/// Corners, then the nodes of the edges behind them: as one ring.
fn interleaved<T: Copy>(nodes: &[T]) -> Vec<T> {
    let (corners, edges) = nodes.split_at(nodes.len() / 2);
    corners.iter().zip(edges).flat_map(|(&corner, &edge)| [corner, edge]).collect()
}

/// Half the sum of the cross products around a ring: as long as its area, along its normal.
pub(super) fn area_vector(ring: &[Vec3]) -> Vec3 {
    let Some((&first, rest)) = ring.split_first() else { return [0.0; 3] };
    let triangles = rest.windows(2).map(|edge| cross(sub(edge[0], first), sub(edge[1], first)));
    scaled(triangles.fold([0.0; 3], add), 0.5)
}

/// The centre of mass of a ring.
fn centre_of_face(ring: &[Vec3]) -> Vec3 {
    let middle = mean(ring);
    let normal = area_vector(ring);
    let parts = (0..ring.len()).map(|at| {
        let (from, to) = (ring[at], ring[(at + 1) % ring.len()]);
        // Of a face that is not convex some of these count negative.
        let area = dot(cross(sub(from, middle), sub(to, middle)), normal);
        (area, scaled(add(add(from, to), middle), 1.0 / 3.0))
    });
    weighted(parts).unwrap_or(middle)
}

/// The volume between a ring and a tip, negative where the ring is seen from its other side.
fn pyramid(ring: &[Vec3], tip: Vec3) -> f64 {
    let middle = mean(ring);
    let tetrahedron = |at: usize| {
        let (from, to) = (sub(ring[at], middle), sub(ring[(at + 1) % ring.len()], middle));
        dot(cross(from, to), sub(middle, tip)) / 6.0
    };
    (0..ring.len()).map(tetrahedron).sum()
}

/// A mean by weights; none where they sum to nothing.
fn weighted(parts: impl Iterator<Item = (f64, Vec3)>) -> Option<Vec3> {
    let (weight, sum) =
        parts.fold((0.0, [0.0; 3]), |(total, sum), (weight, point)| (total + weight, add(sum, scaled(point, weight))));
    let centre = scaled(sum, 1.0 / weight);
    centre.iter().all(|x| x.is_finite()).then_some(centre)
}

fn mean(points: &[Vec3]) -> Vec3 {
    scaled(points.iter().copied().fold([0.0; 3], add), 1.0 / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Corners of a kind in a unit cell, and its size there.
    fn reference(kind: u8) -> (Vec<Vec3>, f64) {
        let quad = [[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.]];
        let lifted = |points: &[Vec3]| points.iter().map(|&[x, y, _]| [x, y, 1.0]).collect::<Vec<_>>();
        let triangle = [[0., 0., 0.], [1., 0., 0.], [0., 1., 0.]];
        let prism = |base: &[Vec3]| [base.to_vec(), lifted(base)].concat();
        let swapped = |points: Vec<Vec3>| points.chunks(4).flat_map(|p| [p[0], p[1], p[3], p[2]]).collect::<Vec<_>>();
        let ring = |corners: usize| {
            let angle = |at: usize| std::f64::consts::TAU * at as f64 / corners as f64;
            let points = (0..corners).map(|at| [angle(at).cos(), angle(at).sin(), 0.0]).collect::<Vec<Vec3>>();
            let area = corners as f64 / 2.0 * angle(1).sin();
            (points, area)
        };
        let pyramid = [quad.to_vec(), vec![[0.5, 0.5, 1.0]]].concat();
        match kind {
            1 => (vec![[0.0; 3]], 0.0),
            3 | 21 | 35 => (vec![[0.0; 3], [1., 0., 0.]], 1.0),
            5 | 22 | 34 => (triangle.to_vec(), 0.5),
            8 => (swapped(quad.to_vec()), 1.0),
            9 | 23 | 28 | 30 => (quad.to_vec(), 1.0),
            10 | 24 => ([triangle.to_vec(), vec![[0., 0., 1.]]].concat(), 1. / 6.),
            11 => (swapped(prism(&quad)), 1.0),
            12 | 25 | 29 | 33 => (prism(&quad), 1.0),
            13 | 26 | 31 | 32 => (prism(&triangle), 0.5),
            14 | 27 | 37 => (pyramid, 1. / 3.),
            15 => (prism(&ring(5).0), ring(5).1),
            16 => (prism(&ring(6).0), ring(6).1),
            other => panic!("kind {other} has no reference"),
        }
    }

    /// One cell with its points.
    fn located(kind: u8, corners: Vec<Vec3>) -> Located {
        let count = corners.len();
        let cells = Cells {
            kinds: vec![kind],
            corners: (0..count as u64).collect(),
            ends: vec![count],
            cell_faces: vec![0],
            ..Cells::default()
        };
        Located { cells, corners, face_corners: Vec::new() }
    }

    /// Shears, turns and stretches by 1.5 in volume; keeps areas in the plane z = 0 times 3.
    fn mapped([x, y, z]: Vec3) -> Vec3 {
        [3.0 * y + 7.0, -x + 0.25 * y - 2.0, 0.5 * z + 1.0]
    }

    fn assert_near(got: Vec3, expected: Vec3, what: &str) {
        assert!(got.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12), "{what}: {got:?}, expected {expected:?}");
    }

    #[test]
    fn every_kind_has_the_size_and_the_centre_of_its_corners() {
        for kind in 0..=u8::MAX {
            let Some(shape) = shape_of(kind) else { continue };
            let (corners, unit) = reference(kind);
            let mut points: Vec<Vec3> = corners.iter().copied().map(mapped).collect();
            let straight = points.clone();
            let middle = |a: usize, b: usize| scaled(add(straight[a], straight[b]), 0.5);
            points.extend(shape.edges().iter().map(|&[a, b]| middle(a, b)));
            let expected = if matches!(kind, 14 | 27 | 37) {
                add(scaled(mean(&straight[..4]), 0.75), scaled(straight[4], 0.25))
            } else {
                mean(&straight)
            };
            // Nodes inside of faces and the cell, or of a cubic line, whose mean is the centre.
            points.resize(shape.nodes, expected);
            let cell = located(kind, points);
            assert_near(centre(&cell, 0).unwrap(), expected, &format!("kind {kind}"));
            let factor = [0.0, 1.0, 3.0, 1.5][usize::from(shape.dimension)];
            let got = size(&cell, 0).unwrap();
            assert!((got - factor * unit).abs() < 1e-12, "kind {kind}: size {got}, expected {}", factor * unit);
        }
    }

    #[test]
    fn a_curved_edge_adds_its_area() {
        // The edge of a unit square from (1, 0) to (1, 1) bulges out to x = 1.2.
        let nodes = vec![
            [0., 0., 0.],
            [1., 0., 0.],
            [1., 1., 0.],
            [0., 1., 0.],
            [0.5, 0., 0.],
            [1.2, 0.5, 0.],
            [0.5, 1., 0.],
            [0., 0.5, 0.],
        ];
        let cell = located(23, nodes);
        assert!((size(&cell, 0).unwrap() - 1.1).abs() < 1e-12);
        assert_near(centre(&cell, 0).unwrap(), [0.6, 0.5, 0.0], "centre");
    }

    #[test]
    fn polygons_have_their_centre_of_mass_even_if_they_are_not_convex() {
        // An L of three unit squares.
        let corners = vec![[0., 0., 0.], [2., 0., 0.], [2., 1., 0.], [1., 1., 0.], [1., 2., 0.], [0., 2., 0.]];
        let cell = located(kind::POLYGON, corners.clone());
        assert!((size(&cell, 0).unwrap() - 3.0).abs() < 1e-12);
        assert_near(centre(&cell, 0).unwrap(), [5. / 6., 5. / 6., 0.0], "polygon");
        let edges = (0..6).map(|at| scaled(add(corners[at], corners[(at + 1) % 6]), 0.5));
        let quadratic = located(kind::QUADRATIC_POLYGON, corners.iter().copied().chain(edges).collect());
        assert!((size(&quadratic, 0).unwrap() - 3.0).abs() < 1e-12);
        assert_near(centre(&quadratic, 0).unwrap(), [5. / 6., 5. / 6., 0.0], "quadratic polygon");
    }

    #[test]
    fn polyhedra_have_their_centre_of_mass_whichever_way_their_faces_are_turned() {
        let base = [[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.]];
        let tip = [0.5, 0.5, 2.0];
        let faces: Vec<Vec<Vec3>> = vec![
            base.to_vec(),
            vec![base[0], base[1], tip],
            vec![base[2], base[1], tip],
            vec![base[2], base[3], tip],
            vec![base[0], base[3], tip],
        ];
        let mut cell = located(kind::POLYHEDRON, [base.to_vec(), vec![tip]].concat());
        let mut end = 0;
        cell.cells.face_ends = faces
            .iter()
            .map(|face| {
                end += face.len();
                end
            })
            .collect();
        cell.cells.cell_faces = vec![faces.len()];
        cell.face_corners = faces.concat();
        assert!((size(&cell, 0).unwrap() - 2. / 3.).abs() < 1e-12);
        assert_near(centre(&cell, 0).unwrap(), [0.5, 0.5, 0.5], "pyramid");
    }

    #[test]
    fn strips_and_lines_are_measured_by_their_parts() {
        let strip =
            located(kind::TRIANGLE_STRIP, vec![[0., 0., 0.], [0., 1., 0.], [1., 0., 0.], [1., 1., 0.], [3., 0., 0.]]);
        assert!((size(&strip, 0).unwrap() - 2.0).abs() < 1e-12);
        let expected = (0.5 * (1. / 3.) + 0.5 * (2. / 3.) + 1.0 * (5. / 3.)) / 2.0;
        assert!((centre(&strip, 0).unwrap()[0] - expected).abs() < 1e-12);
        let line = located(kind::POLY_LINE, vec![[0., 0., 0.], [3., 4., 0.], [3., 4., 2.]]);
        assert_eq!(size(&line, 0).unwrap(), 7.0);
        assert_eq!(surface_faces(&line.cells, 0).unwrap(), Vec::<Vec<u64>>::new());
        assert!(centre(&located(70, vec![[0.0; 3]; 4]), 0).unwrap_err().to_string().contains("cells of type 70"));
    }
}
