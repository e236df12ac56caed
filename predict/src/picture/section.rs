//! Where a body cuts a plane.

use crate::mesh::Mesh;

/// A plane across one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CutPlane {
    /// The axis that it is perpendicular to: 0 for x, 1 for y, 2 for z.
    pub axis: usize,
    /// Its place along this axis.
    pub value: f32,
}

impl CutPlane {
    /// The axes that lie in the plane: across the picture and up.
    pub(crate) fn axes(self) -> [usize; 2] {
        match self.axis {
            0 => [1, 2],
            1 => [0, 2],
            _ => [0, 1],
        }
    }

    /// The coordinates of a point within the plane.
    pub(crate) fn flat(self, point: [f32; 3]) -> [f32; 2] {
        self.axes().map(|axis| point[axis])
    }

    /// The point of space at a point of the plane.
    pub(crate) fn lift(self, flat: [f32; 2]) -> [f32; 3] {
        let mut point = [self.value; 3];
        for (axis, x) in self.axes().into_iter().zip(flat) {
            point[axis] = x;
        }
        point
    }
}

/// The pieces of the outline, all with the body on one side. In a closed mesh they make closed loops, in no particular
/// order.
pub(crate) fn section(body: &Mesh, plane: CutPlane) -> Vec<[[f32; 2]; 2]> {
    let corners = |corners: [u32; 3]| corners.map(|corner| body.points()[corner as usize]);
    body.triangles().filter_map(|triangle| cut(corners(triangle), plane)).collect()
}

/// A corner in the plane counts as above it, so that no crossing is found twice or lost.
fn cut(corners: [[f32; 3]; 3], plane: CutPlane) -> Option<[[f32; 2]; 2]> {
    let height = |corner: [f32; 3]| corner[plane.axis] - plane.value;
    let (mut down, mut up) = (None, None);
    for i in 0..3 {
        // From above to below, whichever way round the triangle: two triangles find the same end on their common edge,
        // to the last bit, and the outline has no gaps.
        let (above, below, end) = match (corners[i], corners[(i + 1) % 3]) {
            (a, b) if height(a) >= 0.0 && height(b) < 0.0 => (a, b, &mut down),
            (a, b) if height(b) >= 0.0 && height(a) < 0.0 => (b, a, &mut up),
            _ => continue,
        };
        let share = height(above) / (height(above) - height(below));
        let (above, below) = (plane.flat(above), plane.flat(below));
        *end = Some([above[0] + share * (below[0] - above[0]), above[1] + share * (below[1] - above[1])]);
    }
    // From where the rim of the triangle goes down to where it comes up: the way round the triangle says the side.
    Some([down?, up?])
}

/// The intervals across the picture that lie inside the outline at height `up`: where it goes around the place at least
/// once, so that doubled, nested and overlapping bodies stay solid. An outline that is not closed, or whose pieces do not
/// agree on their side, goes in and out at every second crossing.
pub(crate) fn inside(section: &[[[f32; 2]; 2]], up: f32) -> Vec<[f32; 2]> {
    let crossing = |[a, b]: &[[f32; 2]; 2]| {
        let sign = i32::from(b[1] >= up) - i32::from(a[1] >= up);
        (sign != 0).then(|| (a[0] + (up - a[1]) / (b[1] - a[1]) * (b[0] - a[0]), sign))
    };
    let mut crossings: Vec<(f32, i32)> = section.iter().filter_map(crossing).collect();
    crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
    if crossings.iter().map(|(_, sign)| sign).sum::<i32>() != 0 {
        let places: Vec<f32> = crossings.into_iter().map(|(place, _)| place).collect();
        return places.as_chunks().0.to_vec();
    }
    let (mut intervals, mut winding, mut start) = (Vec::new(), 0, 0.0);
    for (place, sign) in crossings {
        if winding == 0 {
            start = place;
        }
        winding += sign;
        if winding == 0 {
            intervals.push([start, place]);
        }
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ellipsoid::surface_mesh;

    #[test]
    fn an_ellipsoid_is_cut_in_an_ellipse() {
        let section = section(&surface_mesh([1.2, 0.5, 0.8], 60, 120), CutPlane { axis: 1, value: 0.0 });
        assert!(section.iter().flatten().all(|[x, z]| ((x / 1.2).powi(2) + (z / 0.8).powi(2) - 1.0).abs() < 0.01));
        for z in [-0.5f32, 0.0, 0.33] {
            let half = 1.2 * (1.0 - (z / 0.8).powi(2)).sqrt();
            let [[left, right]] = inside(&section, z)[..] else { panic!("not one interval at {z}") };
            assert!((left + half).abs() < 0.01 && (right - half).abs() < 0.01, "{left} to {right} at {z}");
        }
        assert!(inside(&section, 0.9).is_empty());
    }

    #[test]
    fn a_plane_may_lie_across_any_axis() {
        let (axes, value) = ([1.2f32, 0.5, 0.8], 0.25);
        let body = surface_mesh(axes.map(f64::from), 60, 120);
        for axis in 0..3 {
            let plane = CutPlane { axis, value };
            let [across, up] = plane.axes();
            let level = (value / axes[axis]).powi(2);
            let outline = section(&body, plane);
            assert!(outline.len() > 20);
            for [x, z] in outline.iter().flatten() {
                assert!((level + (x / axes[across]).powi(2) + (z / axes[up]).powi(2) - 1.0).abs() < 0.02);
                assert_eq!(plane.flat(plane.lift([*x, *z])), [*x, *z]);
                assert_eq!(plane.lift([*x, *z])[axis], value);
            }
        }
    }

    #[test]
    fn doubled_nested_and_overlapping_bodies_are_solid() {
        let (outer, inner) = (surface_mesh([1.2, 0.5, 0.8], 60, 120), surface_mesh([0.6, 0.25, 0.4], 60, 120));
        let outline = |bodies: &[(&Mesh, f32)]| -> Vec<_> {
            let moved = |(body, shift): &(&Mesh, f32)| {
                let pieces = section(body, CutPlane { axis: 1, value: 0.01 });
                pieces.into_iter().map(|piece| piece.map(|[x, z]| [x + shift, z])).collect::<Vec<_>>()
            };
            bodies.iter().flat_map(moved).collect()
        };
        let cases = [
            ([(&outer, 0.0), (&outer, 0.0)], [-1.2, 1.2]),
            ([(&outer, 0.0), (&inner, 0.0)], [-1.2, 1.2]),
            ([(&outer, 0.0), (&outer, 1.0)], [-1.2, 2.2]),
        ];
        for (bodies, [left, right]) in cases {
            let [found] = inside(&outline(&bodies), 0.001)[..] else { panic!("not one interval") };
            assert!((found[0] - left).abs() < 0.01 && (found[1] - right).abs() < 0.01, "{found:?}");
        }
    }

    #[test]
    fn the_outline_is_closed_at_every_height() {
        let body = surface_mesh([1.1, 0.6, 0.8], 59, 96);
        for (axis, value) in [(1, 0.0), (1, 0.123), (2, 0.0), (0, 0.0)] {
            let outline = section(&body, CutPlane { axis, value });
            let heights = outline.iter().flatten().map(|end| end[1]).chain([0.0, 0.1, -0.3]);
            for up in heights {
                let crossings = outline.iter().filter(|[a, b]| (a[1] >= up) != (b[1] >= up)).count();
                assert!(crossings % 2 == 0, "{crossings} crossings at {up}");
            }
            let [[left, right]] = inside(&outline, 0.0)[..] else { panic!("not one interval across axis {axis}") };
            assert!(right - left > 1.0);
        }
    }
}
