//! The kinds of cells that VTK numbers: their nodes, faces and centres.
//!
//! A quadratic cell has the corners of its linear one, in the same order, then a node for some of the edges, then nodes
//! inside faces and the cell. So faces are written once for each linear cell, and an edge node joins every face that has
//! its edge. Cells of higher order (Lagrange, Bézier) have as many nodes as they like and are not among these.

/// Numbers of the kinds whose cells have any number of nodes, or that are named elsewhere.
pub(super) mod kind {
    pub(crate) const VERTEX: u8 = 1;
    pub(crate) const POLY_VERTEX: u8 = 2;
    pub(crate) const LINE: u8 = 3;
    pub(crate) const POLY_LINE: u8 = 4;
    pub(crate) const TRIANGLE: u8 = 5;
    pub(crate) const TRIANGLE_STRIP: u8 = 6;
    pub(crate) const POLYGON: u8 = 7;
    pub(crate) const QUAD: u8 = 9;
    pub(crate) const QUADRATIC_POLYGON: u8 = 36;
    pub(crate) const POLYHEDRON: u8 = 42;
}

/// A kind of cells with a fixed number of nodes.
#[derive(Debug)]
pub(super) struct Shape {
    /// Nodes in all.
    pub nodes: usize,
    /// 0 for points, 1 for lines, 2 for faces, 3 for volumes.
    pub dimension: u8,
    /// Nodes that are corners; they come first.
    corners: usize,
    /// Corners around the cell, or around each of its faces.
    faces: &'static [&'static [usize]],
    /// Edges with a node of their own: those nodes follow the corners in this order.
    edges: &'static [[usize; 2]],
    /// Where the middle of its parameters lies, as (nodes, weight of each), node after node.
    pub centre: &'static [(usize, f64)],
}

const TRIANGLE: &[&[usize]] = &[&[0, 1, 2]];
const QUAD: &[&[usize]] = &[&[0, 1, 2, 3]];
const PIXEL: &[&[usize]] = &[&[0, 1, 3, 2]];
const TETRA: &[&[usize]] = &[&[0, 1, 3], &[1, 2, 3], &[2, 0, 3], &[0, 2, 1]];
const PYRAMID: &[&[usize]] = &[&[0, 3, 2, 1], &[0, 1, 4], &[1, 2, 4], &[2, 3, 4], &[3, 0, 4]];
const WEDGE: &[&[usize]] = &[&[0, 1, 2], &[3, 5, 4], &[0, 3, 4, 1], &[1, 4, 5, 2], &[2, 5, 3, 0]];
const HEXAHEDRON: &[&[usize]] =
    &[&[0, 4, 7, 3], &[1, 2, 6, 5], &[0, 1, 5, 4], &[3, 7, 6, 2], &[0, 3, 2, 1], &[4, 5, 6, 7]];
const VOXEL: &[&[usize]] = &[&[0, 4, 6, 2], &[1, 3, 7, 5], &[0, 1, 5, 4], &[2, 6, 7, 3], &[0, 2, 3, 1], &[4, 5, 7, 6]];
const PENTAGONAL_PRISM: &[&[usize]] =
    &[&[0, 4, 3, 2, 1], &[5, 6, 7, 8, 9], &[0, 1, 6, 5], &[1, 2, 7, 6], &[2, 3, 8, 7], &[3, 4, 9, 8], &[4, 0, 5, 9]];
const HEXAGONAL_PRISM: &[&[usize]] = &[
    &[0, 5, 4, 3, 2, 1],
    &[6, 7, 8, 9, 10, 11],
    &[0, 1, 7, 6],
    &[1, 2, 8, 7],
    &[2, 3, 9, 8],
    &[3, 4, 10, 9],
    &[4, 5, 11, 10],
    &[5, 0, 6, 11],
];

const TRIANGLE_EDGES: &[[usize; 2]] = &[[0, 1], [1, 2], [2, 0]];
const QUAD_EDGES: &[[usize; 2]] = &[[0, 1], [1, 2], [2, 3], [3, 0]];
const TETRA_EDGES: &[[usize; 2]] = &[[0, 1], [1, 2], [2, 0], [0, 3], [1, 3], [2, 3]];
const PYRAMID_EDGES: &[[usize; 2]] = &[[0, 1], [1, 2], [2, 3], [3, 0], [0, 4], [1, 4], [2, 4], [3, 4]];
const WEDGE_EDGES: &[[usize; 2]] = &[[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3], [0, 3], [1, 4], [2, 5]];
const HEXAHEDRON_EDGES: &[[usize; 2]] =
    &[[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]];

/// A row of the table.
const fn shape(
    nodes: usize,
    dimension: u8,
    corners: usize,
    faces: &'static [&'static [usize]],
    edges: &'static [[usize; 2]],
    centre: &'static [(usize, f64)],
) -> Shape {
    Shape { nodes, dimension, corners, faces, edges, centre }
}

/// The centre of a pyramid is that of its mass, a quarter of the way from the base to the tip.
const PYRAMID_CENTRE: &[(usize, f64)] = &[(4, 3. / 16.), (1, 1. / 4.)];

/// The kind with a number, if its cells have a fixed number of nodes.
pub(super) fn shape_of(kind: u8) -> Option<&'static Shape> {
    static SHAPES: [(u8, Shape); 28] = [
        (1, shape(1, 0, 1, &[], &[], &[(1, 1.)])),
        (3, shape(2, 1, 2, &[], &[], &[(2, 1. / 2.)])),
        (5, shape(3, 2, 3, TRIANGLE, &[], &[(3, 1. / 3.)])),
        (8, shape(4, 2, 4, PIXEL, &[], &[(4, 1. / 4.)])),
        (9, shape(4, 2, 4, QUAD, &[], &[(4, 1. / 4.)])),
        (10, shape(4, 3, 4, TETRA, &[], &[(4, 1. / 4.)])),
        (11, shape(8, 3, 8, VOXEL, &[], &[(8, 1. / 8.)])),
        (12, shape(8, 3, 8, HEXAHEDRON, &[], &[(8, 1. / 8.)])),
        (13, shape(6, 3, 6, WEDGE, &[], &[(6, 1. / 6.)])),
        (14, shape(5, 3, 5, PYRAMID, &[], PYRAMID_CENTRE)),
        (15, shape(10, 3, 10, PENTAGONAL_PRISM, &[], &[(10, 1. / 10.)])),
        (16, shape(12, 3, 12, HEXAGONAL_PRISM, &[], &[(12, 1. / 12.)])),
        (21, shape(3, 1, 2, &[], &[[0, 1]], &[(2, 0.), (1, 1.)])),
        (22, shape(6, 2, 3, TRIANGLE, TRIANGLE_EDGES, &[(3, -1. / 9.), (3, 4. / 9.)])),
        (23, shape(8, 2, 4, QUAD, QUAD_EDGES, &[(4, -1. / 4.), (4, 1. / 2.)])),
        (24, shape(10, 3, 4, TETRA, TETRA_EDGES, &[(4, -1. / 8.), (6, 1. / 4.)])),
        (25, shape(20, 3, 8, HEXAHEDRON, HEXAHEDRON_EDGES, &[(8, -1. / 4.), (12, 1. / 4.)])),
        (26, shape(15, 3, 6, WEDGE, WEDGE_EDGES, &[(6, -2. / 9.), (6, 2. / 9.), (3, 1. / 3.)])),
        (27, shape(13, 3, 5, PYRAMID, PYRAMID_EDGES, PYRAMID_CENTRE)),
        (28, shape(9, 2, 4, QUAD, QUAD_EDGES, &[(8, 0.), (1, 1.)])),
        (29, shape(27, 3, 8, HEXAHEDRON, HEXAHEDRON_EDGES, &[(26, 0.), (1, 1.)])),
        (30, shape(6, 2, 4, QUAD, &[[0, 1], [2, 3]], &[(4, 0.), (2, 1. / 2.)])),
        (31, shape(12, 3, 6, WEDGE, WEDGE_EDGES.split_at(6).0, &[(6, -1. / 18.), (6, 2. / 9.)])),
        (32, shape(18, 3, 6, WEDGE, WEDGE_EDGES, &[(12, 0.), (3, -1. / 9.), (3, 4. / 9.)])),
        (33, shape(24, 3, 8, HEXAHEDRON, HEXAHEDRON_EDGES, &[(16, 0.), (4, -1. / 4.), (4, 1. / 2.)])),
        (34, shape(7, 2, 3, TRIANGLE, TRIANGLE_EDGES, &[(6, 0.), (1, 1.)])),
        (35, shape(4, 1, 2, &[], &[], &[(2, -1. / 16.), (2, 9. / 16.)])),
        (37, shape(19, 3, 5, PYRAMID, PYRAMID_EDGES, PYRAMID_CENTRE)),
    ];
    SHAPES.iter().find(|(number, _)| *number == kind).map(|(_, shape)| shape)
}

/// 0 for points, 1 for lines, 2 for faces, 3 for volumes; none for cells of higher order.
pub(super) fn dimension_of(kind: u8) -> Option<u8> {
    let dimension = |shape: &Shape| shape.dimension;
    shape_of(kind).map(dimension).or(match kind {
        kind::POLY_VERTEX => Some(0),
        kind::POLY_LINE => Some(1),
        kind::TRIANGLE_STRIP | kind::POLYGON | kind::QUADRATIC_POLYGON => Some(2),
        kind::POLYHEDRON => Some(3),
        _ => None,
    })
}

impl Shape {
    /// Nodes around each face, those of edges between their corners. A cell of dimension 2 is its only face.
    pub(super) fn faces(&self) -> impl Iterator<Item = impl Iterator<Item = usize>> {
        self.faces.iter().map(|corners| {
            let next = corners.iter().cycle().skip(1);
            corners.iter().zip(next).flat_map(|(&from, &to)| {
                let edge = self.edges.iter().position(|edge| *edge == [from, to] || *edge == [to, from]);
                std::iter::once(from).chain(edge.map(|edge| self.corners + edge))
            })
        })
    }
}

#[cfg(test)]
impl Shape {
    /// Edges with a node of their own.
    pub(super) fn edges(&self) -> &'static [[usize; 2]] {
        self.edges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_place_in_the_table() {
        for kind in 0..=u8::MAX {
            let Some(shape) = shape_of(kind) else { continue };
            let centre: usize = shape.centre.iter().map(|(nodes, _)| nodes).sum();
            let of_corners = shape.centre.len() == PYRAMID_CENTRE.len() && centre == shape.corners;
            assert!(centre == shape.nodes || of_corners, "kind {kind}: {centre} of {} nodes", shape.nodes);
            let weight: f64 = shape.centre.iter().map(|&(nodes, weight)| nodes as f64 * weight).sum();
            assert!((weight - 1.0).abs() < 1e-12, "kind {kind}: weights sum to {weight}");
            assert!(shape.corners + shape.edges.len() <= shape.nodes, "kind {kind}");
            let mut seen = vec![0; shape.nodes];
            shape.faces().flatten().for_each(|node| seen[node] += 1);
            let rings = shape.corners + shape.edges.len();
            // A corner of a cell belongs to at least three faces, an edge to two; around a flat cell everything once.
            let (corner, edge) = if shape.dimension == 3 { (3, 2) } else { (1, 1) };
            if shape.dimension >= 2 {
                assert!(seen[..shape.corners].iter().all(|&count| count >= corner), "kind {kind}: {seen:?}");
                assert!(seen[shape.corners..rings].iter().all(|&count| count == edge), "kind {kind}: {seen:?}");
            }
        }
    }

    #[test]
    fn every_edge_of_a_volume_is_walked_both_ways() {
        for kind in 0..=u8::MAX {
            let Some(shape) = shape_of(kind).filter(|shape| shape.dimension == 3) else { continue };
            let mut edges = Vec::new();
            for face in shape.faces() {
                let ring: Vec<_> = face.collect();
                edges.extend((0..ring.len()).map(|at| [ring[at], ring[(at + 1) % ring.len()]]));
            }
            for &[from, to] in &edges {
                let back = edges.iter().filter(|&&edge| edge == [to, from]).count();
                assert_eq!(back, 1, "kind {kind}: edge {from} {to}");
            }
        }
    }
}
