//! Streamlines of the velocity in a plane.

/// Velocities on a regular grid that covers a rectangle; `None` inside the body.
pub(crate) struct PlaneVelocity<'a> {
    /// Points along both axes.
    pub size: [usize; 2],
    /// Half the extent along both axes; the rectangle is centred at the origin.
    pub half_extent: [f64; 2],
    /// Row after row.
    pub values: &'a [Option<[f32; 2]>],
}

/// Distance of a step, in cells of the grid.
const STEP: f32 = 0.5;

impl PlaneVelocity<'_> {
    /// Streamlines that enter the rectangle `spacing` apart.
    pub(crate) fn streamlines(&self, spacing: f32) -> Vec<Vec<[f32; 2]>> {
        let lines = self.seeds(spacing).into_iter().map(|seed| self.follow(seed));
        lines.filter(|line| line.len() > 2).collect()
    }

    /// Points on the edges, spaced evenly across the stream that enters there.
    fn seeds(&self, spacing: f32) -> Vec<[f32; 2]> {
        let [half_x, half_z] = self.half_extent.map(|half| half as f32 * 0.9999);
        let corners = [[-half_x, half_z], [-half_x, -half_z], [half_x, -half_z], [half_x, half_z], [-half_x, half_z]];
        let mut seeds = Vec::new();
        // Flux since the last seed; the first comes after half a spacing.
        let mut flux = spacing / 2.0;
        for edge in corners.windows(2) {
            let along = [edge[1][0] - edge[0][0], edge[1][1] - edge[0][1]];
            let length = along[0].hypot(along[1]);
            let steps = 2000;
            for step in 0..steps {
                let share = (step as f32 + 0.5) / steps as f32;
                let point = [edge[0][0] + share * along[0], edge[0][1] + share * along[1]];
                let Some(velocity) = self.at(point) else { continue };
                // The corners run counter-clockwise, so the inward normal is to the left.
                let inward = (velocity[1] * along[0] - velocity[0] * along[1]) / length;
                flux += inward.max(0.0) / velocity[0].hypot(velocity[1]).max(f32::MIN_POSITIVE) * length / steps as f32;
                if flux >= spacing {
                    flux -= spacing;
                    seeds.push(point);
                }
            }
        }
        seeds
    }

    /// Midpoint rule in the direction of the velocity until the line leaves the fluid.
    fn follow(&self, seed: [f32; 2]) -> Vec<[f32; 2]> {
        let cell = 2.0 * self.half_extent[0] as f32 / (self.size[0] - 1) as f32;
        let direction = |point: [f32; 2]| {
            let velocity = self.at(point)?;
            let speed = velocity[0].hypot(velocity[1]);
            (speed > 1e-6).then(|| velocity.map(|component| component / speed * cell * STEP))
        };
        let longest = 8 * (self.size[0] + self.size[1]);
        let mut line = vec![seed];
        let mut point = seed;
        while line.len() < longest {
            let Some(half) = direction(point) else { break };
            let Some(step) = direction([point[0] + half[0] / 2.0, point[1] + half[1] / 2.0]) else { break };
            point = [point[0] + step[0], point[1] + step[1]];
            line.push(point);
        }
        line
    }

    /// Bilinear interpolation, where all four neighbours are in the fluid.
    fn at(&self, point: [f32; 2]) -> Option<[f32; 2]> {
        let [columns, rows] = self.size;
        let place = |axis: usize, count: usize| {
            let half = self.half_extent[axis] as f32;
            let place = (point[axis] + half) / (2.0 * half) * (count - 1) as f32;
            let below = place.floor();
            (below >= 0.0 && (below as usize) < count - 1).then_some((below as usize, place - below))
        };
        let ((column, right), (row, up)) = (place(0, columns)?, place(1, rows)?);
        let value = |column: usize, row: usize| self.values[row * columns + column];
        let (a, b) = (value(column, row)?, value(column + 1, row)?);
        let (c, d) = (value(column, row + 1)?, value(column + 1, row + 1)?);
        let blend =
            |i: usize| (a[i] * (1.0 - right) + b[i] * right) * (1.0 - up) + (c[i] * (1.0 - right) + d[i] * right) * up;
        Some([blend(0), blend(1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(velocity: [f32; 2]) -> Vec<Option<[f32; 2]>> {
        vec![Some(velocity); 20 * 10]
    }

    #[test]
    fn a_uniform_stream_has_straight_parallel_lines_through_the_whole_plane() {
        let values = uniform([2.0, 0.0]);
        let plane = PlaneVelocity { size: [20, 10], half_extent: [2.0, 1.0], values: &values };
        let lines = plane.streamlines(0.25);
        assert_eq!(lines.len(), 8);
        for line in lines {
            assert!(line.iter().all(|point| (point[1] - line[0][1]).abs() < 1e-5));
            assert!(line[0][0] < -1.9 && line[line.len() - 1][0] > 1.9);
        }
    }

    #[test]
    fn lines_end_at_the_body_and_where_nothing_flows() {
        let mut values = uniform([1.0, 0.0]);
        for row in 0..10 {
            values[row * 20 + 10] = None;
        }
        let plane = PlaneVelocity { size: [20, 10], half_extent: [2.0, 1.0], values: &values };
        assert!(plane.streamlines(0.25).iter().flatten().all(|point| point[0] < 0.2));
        let still = uniform([0.0, 0.0]);
        assert!(PlaneVelocity { values: &still, ..plane }.streamlines(0.25).is_empty());
    }
}
