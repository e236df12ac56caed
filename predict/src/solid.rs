//! The inside of a body, and whether its surface has one.

use std::collections::{HashMap, HashSet};

use crate::mesh::Mesh;
use crate::vector::{cross, dot};

/// The triangles of a surface, sorted so that a ray along x meets few of them.
pub(crate) struct Solid {
    triangles: Vec<[[f64; 3]; 3]>,
    /// A grid over y and z: its corner, the size of a cell, cells along each axis.
    low: [f64; 2],
    cell: [f64; 2],
    size: [usize; 2],
    /// Triangles over every cell, one cell after the other, and the end of every cell.
    covering: Vec<u32>,
    ends: Vec<usize>,
}

impl Solid {
    /// The inside of a mesh. Points outside of a mesh that is not closed may be found inside where it is open.
    pub(crate) fn new(mesh: &Mesh) -> Self {
        let corners = |corners: [u32; 3]| corners.map(|corner| mesh.points()[corner as usize].map(f64::from));
        let triangles: Vec<_> = mesh.triangles().map(corners).collect();
        let bounds = |pick: fn(f64, f64) -> f64, start: f64| {
            let corners = triangles.iter().flatten();
            corners.fold([start; 2], |bound, corner| [pick(bound[0], corner[1]), pick(bound[1], corner[2])])
        };
        let (low, high) = (bounds(f64::min, f64::INFINITY), bounds(f64::max, f64::NEG_INFINITY));
        let across = (triangles.len() as f64).sqrt().ceil().clamp(1.0, 2048.0) as usize;
        let cell = std::array::from_fn(|axis| ((high[axis] - low[axis]) / across as f64).max(f64::MIN_POSITIVE));
        let mut solid =
            Self { triangles, low, cell, size: [across; 2], covering: Vec::new(), ends: vec![0; across * across] };
        // Counted first, so that the list is made once: `ends` holds counts, then starts, then ends.
        for triangle in 0..solid.triangles.len() {
            solid.cells_of(triangle).into_iter().for_each(|cell| solid.ends[cell] += 1);
        }
        let mut start = 0;
        for end in &mut solid.ends {
            start += std::mem::replace(end, start);
        }
        solid.covering = vec![0; start];
        for triangle in 0..solid.triangles.len() {
            for cell in solid.cells_of(triangle) {
                solid.covering[solid.ends[cell]] = triangle as u32;
                solid.ends[cell] += 1;
            }
        }
        solid
    }

    /// How often the surface goes around a point: 0 outside, 1 inside of a body whose faces look outwards, 2 where two
    /// such bodies overlap.
    pub(crate) fn winding(&self, point: [f32; 3]) -> i32 {
        let [x, y, z] = point.map(f64::from);
        let (Some(column), Some(row)) = (self.cell_at(0, y), self.cell_at(1, z)) else { return 0 };
        let cell = row * self.size[0] + column;
        let start = cell.checked_sub(1).map_or(0, |before| self.ends[before]);
        let met = self.covering[start..self.ends[cell]].iter().map(|&triangle| &self.triangles[triangle as usize]);
        met.map(|triangle| crossing([x, y, z], triangle)).sum()
    }

    /// Whether a point lies inside.
    pub(crate) fn contains(&self, point: [f32; 3]) -> bool {
        self.winding(point) != 0
    }

    fn cell_at(&self, axis: usize, x: f64) -> Option<usize> {
        let at = (x - self.low[axis]) / self.cell[axis];
        // The far end of the grid belongs to its last cell.
        (at >= 0.0 && at <= self.size[axis] as f64).then(|| (at as usize).min(self.size[axis] - 1))
    }

    fn cells_of(&self, triangle: usize) -> Vec<usize> {
        let [a, b, c] = self.triangles[triangle];
        let range = |axis: usize| {
            let ends = [a[1 + axis], b[1 + axis], c[1 + axis]];
            let (low, high) = (
                ends.iter().copied().fold(f64::INFINITY, f64::min),
                ends.into_iter().fold(f64::NEG_INFINITY, f64::max),
            );
            self.cell_at(axis, low).unwrap_or(0)..=self.cell_at(axis, high).unwrap_or(self.size[axis] - 1)
        };
        let columns = range(0);
        range(1).flat_map(|row| columns.clone().map(move |column| row * self.size[0] + column)).collect()
    }
}

/// The sign of the crossing of a ray along x from a point with a triangle: 1 where it leaves through a face that looks
/// outwards, −1 where it enters, 0 where it misses.
fn crossing([x, y, z]: [f64; 3], corners: &[[f64; 3]; 3]) -> i32 {
    // How the edges, seen along x, go around the point. Each edge is walked from below to above whichever way round the
    // triangle, so that two triangles agree on their common edge to the last bit: no ray slips between them, none is
    // counted twice.
    let mut around = 0;
    for i in 0..3 {
        let (from, to) = (corners[i], corners[(i + 1) % 3]);
        let up = (from[2] <= z) && (to[2] > z);
        let down = (to[2] <= z) && (from[2] > z);
        if !up && !down {
            continue;
        }
        let (below, above) = if up { (from, to) } else { (to, from) };
        let at = below[1] + (z - below[2]) / (above[2] - below[2]) * (above[1] - below[1]);
        if at > y {
            around += if up { 1 } else { -1 };
        }
    }
    if around == 0 {
        return 0;
    }
    let [a, b, c] = corners;
    let (u, v): ([f64; 3], [f64; 3]) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
    let normal = cross(u, v);
    if normal[0] == 0.0 {
        return 0;
    }
    let hit = a[0] - ((y - a[1]) * normal[1] + (z - a[2]) * normal[2]) / normal[0];
    if hit > x { around } else { 0 }
}

/// What keeps a surface from having one inside. Vertices in one place count as one, as files often have a patch's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Defects {
    /// Edges of the faces.
    pub edges: usize,
    /// Edges that an odd number of faces has.
    pub open: usize,
    /// Edges whose faces look to different sides.
    pub flipped: usize,
    /// Parts that touch no other and are closed.
    pub parts: usize,
    /// Those of them whose faces look inwards where those of the largest look outwards, or the other way round.
    pub opposed: usize,
}

impl Defects {
    /// Counts them.
    pub(crate) fn of(mesh: &Mesh) -> Self {
        let places = places(mesh.points());
        // Faces of an edge, and how much oftener it is walked upwards than downwards.
        let mut edges: HashMap<(u32, u32), (u32, i32)> = HashMap::new();
        let mut parts = Parts::new(mesh.points().len());
        for face in mesh.faces() {
            for (i, &from) in face.iter().enumerate() {
                let (from, to) = (places[from as usize], places[face[(i + 1) % face.len()] as usize]);
                if from != to {
                    let (faces, balance) = edges.entry((from.min(to), from.max(to))).or_default();
                    *faces += 1;
                    *balance += if from < to { 1 } else { -1 };
                    parts.join(from, to);
                }
            }
        }
        let mut defects = Self { edges: edges.len(), ..Self::default() };
        let mut damaged = HashSet::new();
        for (&(from, _), &(faces, balance)) in &edges {
            let (open, flipped) = (faces % 2 == 1, faces % 2 == 0 && balance != 0);
            defects.open += usize::from(open);
            defects.flipped += usize::from(flipped);
            if open || flipped {
                damaged.insert(parts.of(from));
            }
        }
        let mut volumes: HashMap<u32, f64> = HashMap::new();
        for corners in mesh.triangles() {
            let part = parts.of(places[corners[0] as usize]);
            if !damaged.contains(&part) {
                *volumes.entry(part).or_default() += volume_of(mesh, corners);
            }
        }
        let largest =
            volumes.values().copied().fold(0.0, |largest: f64, x| if x.abs() > largest.abs() { x } else { largest });
        defects.parts = volumes.len();
        defects.opposed = volumes.values().filter(|&&volume| volume * largest < 0.0).count();
        defects
    }

    /// A sentence about a mesh that is not closed or not oriented, if it is so.
    pub(crate) fn warning(self) -> Option<String> {
        let Self { edges, open, flipped, parts, opposed } = self;
        let mut faults = Vec::new();
        if open + flipped > 0 {
            faults.push(format!(
                "the mesh is not closed: of {edges} edges {open} have a face on one side only, at {flipped} two faces look to \
                 different sides"
            ));
        }
        if opposed > 0 {
            faults.push(format!(
                "of {parts} closed parts {opposed} look to the other side than the largest: they are its hollows, or inside out"
            ));
        }
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

/// For each point the first one in its place.
fn places(points: &[[f32; 3]]) -> Vec<u32> {
    // The two zeros are one number.
    let key = |&at: &u32| points[at as usize].map(|x| (x + 0.0).to_bits());
    let mut order: Vec<u32> = (0..points.len() as u32).collect();
    order.sort_unstable_by_key(|at| (key(at), *at));
    let mut places = vec![0; points.len()];
    for equal in order.chunk_by(|a, b| key(a) == key(b)) {
        equal.iter().for_each(|&at| places[at as usize] = equal[0]);
    }
    places
}

/// Which vertices hang together.
struct Parts {
    /// A vertex of the same part, nearer to the one that stands for it; itself if it is that one.
    towards: Vec<u32>,
}

impl Parts {
    fn new(vertices: usize) -> Self {
        Self { towards: (0..vertices as u32).collect() }
    }

    /// The vertex that stands for the part of one.
    fn of(&mut self, mut vertex: u32) -> u32 {
        while self.towards[vertex as usize] != vertex {
            let next = self.towards[vertex as usize];
            self.towards[vertex as usize] = self.towards[next as usize];
            vertex = next;
        }
        vertex
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.of(a), self.of(b));
        self.towards[a.max(b) as usize] = a.min(b);
    }
}

/// Volume inside of a closed mesh; negative if its faces look inwards.
pub(crate) fn volume(mesh: &Mesh) -> f64 {
    mesh.triangles().map(|corners| volume_of(mesh, corners)).sum()
}

/// The volume between a triangle and the origin, negative where the triangle looks towards it.
fn volume_of(mesh: &Mesh, corners: [u32; 3]) -> f64 {
    let [a, b, c] = corners.map(|corner| mesh.points()[corner as usize].map(f64::from));
    dot(a, cross(b, c)) / 6.0
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::ellipsoid::surface_mesh;

    const AXES: [f64; 3] = [1.1, 0.6, 0.8];

    fn joined(first: &Mesh, second: &Mesh) -> Mesh {
        let count = first.points().len() as u32;
        let mut mesh = Mesh::new([first.points(), second.points()].concat());
        first.faces().for_each(|face| mesh.push_face(face));
        for face in second.faces() {
            mesh.push_face(&face.iter().map(|corner| corner + count).collect::<Vec<_>>());
        }
        mesh
    }

    #[test]
    fn points_of_an_ellipsoid_are_inside_and_others_are_not() {
        let (solid, mut random) = (Solid::new(&surface_mesh(AXES, 40, 64)), StdRng::seed_from_u64(3));
        let mut inside = 0;
        for _ in 0..20_000 {
            let point: [f32; 3] = std::array::from_fn(|_| random.random_range(-1.3..1.3));
            let level: f64 = (0..3).map(|i| (f64::from(point[i]) / AXES[i]).powi(2)).sum();
            if (level - 1.0).abs() > 0.02 {
                assert_eq!(solid.contains(point), level < 1.0, "{point:?}");
                inside += usize::from(level < 1.0);
            }
        }
        assert!(inside > 1000);
    }

    #[test]
    fn rays_through_corners_and_edges_count_once() {
        // The vertices of the mesh lie in planes of symmetry, so these rays meet edges and corners exactly.
        let mesh = surface_mesh(AXES, 15, 24);
        let solid = Solid::new(&mesh);
        for vertex in mesh.points() {
            for share in [0.5f32, 0.9] {
                assert_eq!(solid.winding(vertex.map(|x| x * share)), 1, "{vertex:?}");
            }
            assert_eq!(solid.winding([-3.0, vertex[1], vertex[2]]), 0, "{vertex:?}");
        }
    }

    #[test]
    fn nested_and_doubled_bodies_stay_solid() {
        let (outer, inner) = (surface_mesh(AXES, 20, 32), surface_mesh(AXES.map(|axis| axis / 2.0), 20, 32));
        let nested = Solid::new(&joined(&outer, &inner));
        assert_eq!((nested.winding([0.01, 0.02, 0.03]), nested.winding([0.8, 0.02, 0.03])), (2, 1));
        let doubled = Solid::new(&joined(&outer, &outer));
        assert!(doubled.contains([0.01, 0.02, 0.03]) && !doubled.contains([1.2, 0.0, 0.0]));
    }

    #[test]
    fn defects_are_counted() {
        let whole = surface_mesh(AXES, 9, 12);
        assert_eq!(Defects::of(&whole).warning(), None);
        assert!(
            (volume(&surface_mesh(AXES, 200, 400)) / (4.0 / 3.0 * std::f64::consts::PI * 0.528) - 1.0).abs() < 1e-3
        );
        let mut open = Mesh::new(whole.points().to_vec());
        whole.faces().skip(1).for_each(|face| open.push_face(face));
        assert_eq!((Defects::of(&open).open, Defects::of(&open).flipped), (3, 0));
        open.push_face(&whole.faces().next().unwrap().iter().rev().copied().collect::<Vec<_>>());
        let defects = Defects::of(&open);
        assert_eq!((defects.open, defects.flipped), (0, 3));
        assert!(defects.warning().unwrap().contains("0 have a face on one side only, at 3 two faces"));
    }

    #[test]
    fn vertices_of_several_patches_are_one_and_parts_that_look_elsewhere_are_told() {
        let reversed = |mesh: &Mesh| {
            let mut turned = Mesh::new(mesh.points().to_vec());
            mesh.faces().for_each(|face| turned.push_face(&face.iter().rev().copied().collect::<Vec<_>>()));
            turned
        };
        let moved = |mesh: &Mesh, by: f32| {
            let mut moved = Mesh::new(mesh.points().iter().map(|&[x, y, z]| [x + by, y, z]).collect());
            mesh.faces().for_each(|face| moved.push_face(face));
            moved
        };
        let (large, small) = (surface_mesh(AXES, 9, 12), surface_mesh([0.3; 3], 9, 12));
        // Every face with vertices of its own.
        let mut apart = Mesh::new(large.faces().flatten().map(|&corner| large.points()[corner as usize]).collect());
        let mut next = 0..;
        large.faces().for_each(|face| apart.push_face(&next.by_ref().take(face.len()).collect::<Vec<u32>>()));
        assert_eq!(Defects::of(&apart), Defects::of(&large));
        assert_eq!(Defects::of(&apart).warning(), None);

        let beside = joined(&large, &moved(&small, 3.0));
        assert_eq!((Defects::of(&beside).parts, Defects::of(&beside).warning()), (2, None));
        for second in [reversed(&moved(&small, 3.0)), reversed(&small)] {
            let defects = Defects::of(&joined(&large, &second));
            assert_eq!((defects.open, defects.flipped, defects.parts, defects.opposed), (0, 0, 2, 1));
            assert!(defects.warning().unwrap().contains("of 2 closed parts 1 look to the other side"));
        }
        // All of them together is no contradiction.
        assert_eq!(Defects::of(&joined(&reversed(&large), &reversed(&moved(&small, 3.0)))).warning(), None);
    }
}
