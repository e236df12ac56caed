//! The cells or the points of a mesh in a file, as places where fields are predicted.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::DIMENSIONS;
use super::grid::{Grid, Location, Surface};
use super::table::{Rows, Table};

/// A mesh in a file, of which cells or points are predicted.
pub struct Sites {
    /// Centres or points.
    positions: Table,
    at: Location,
    cells: u64,
    points: u64,
    surface: Option<Surface>,
    /// Whether somebody said where to predict.
    asked: bool,
    has_cell_data: bool,
}

impl Sites {
    /// Takes a mesh: its cells where it has arrays at cells, else its points, unless somebody says which.
    ///
    /// # Errors
    /// A mesh without such places; a file that is damaged or cannot be read.
    pub fn new(name: &str, mut grid: Grid, at: Option<Location>) -> Result<Self> {
        let has_cell_data = grid.cells() > 0 && !grid.arrays(Location::Cells).is_empty();
        let chosen = at.unwrap_or(if has_cell_data { Location::Cells } else { Location::Points });
        let (cells, points) = (grid.cells(), grid.points());
        ensure!(points > 0, "{name}: holds no points");
        ensure!(chosen == Location::Points || cells > 0, "{name}: holds {points} points, but no cells");
        let surface = match grid.dimension().with_context(|| name.to_string())? {
            2 => Some(grid.surface().with_context(|| name.to_string())?),
            _ => None,
        };
        let positions = Table::new(name, Positions { grid, at: chosen });
        Ok(Self { positions, at: chosen, cells, points, surface, asked: at.is_some(), has_cell_data })
    }

    /// Where fields are predicted.
    pub fn at(&self) -> Location {
        self.at
    }

    /// Centres or points.
    pub fn positions(&mut self) -> &mut Table {
        &mut self.positions
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        match self.at {
            Location::Cells => self.cells,
            Location::Points => self.points,
        }
    }

    /// The faces, unless the mesh has volumes or nothing but points and lines.
    pub fn surface(&self) -> Option<&Surface> {
        self.surface.as_ref()
    }

    /// A line that says what is predicted and why, where nobody asked for it.
    pub fn remark(&self) -> Option<String> {
        let Self { cells, points, .. } = self;
        match (self.at, self.has_cell_data) {
            _ if self.asked => None,
            (Location::Cells, _) => Some(format!(
                "predicted at its {cells} cells, as it has cell data; --at points takes its {points} points"
            )),
            (Location::Points, _) if *cells == 0 => None,
            (Location::Points, _) => Some(format!(
                "predicted at its {points} points, as it has no cell data; --at cells takes its {cells} cells"
            )),
        }
    }
}

/// Centres of cells, or points.
struct Positions {
    grid: Grid,
    at: Location,
}

impl Rows for Positions {
    fn rows(&self) -> u64 {
        self.grid.rows(self.at)
    }

    fn width(&self) -> usize {
        DIMENSIONS
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        let positions = match self.at {
            Location::Cells => self.grid.centres(rows)?,
            Location::Points => self.grid.read_points(rows)?,
        };
        Ok(positions.into_flattened())
    }
}

/// An array of a mesh.
pub struct GridArray {
    grid: Grid,
    at: Location,
    name: String,
    components: usize,
}

impl GridArray {
    /// Picks an array, at cells or points, wherever it is.
    ///
    /// # Errors
    /// There is none of this name, or one at both.
    pub fn new(grid: Grid, name: &str) -> Result<Self> {
        let mut found = [Location::Cells, Location::Points].into_iter().filter_map(|at| {
            let arrays = grid.arrays(at);
            arrays.into_iter().find(|(known, _)| known == name).map(|(_, components)| (at, components))
        });
        let names = || {
            [Location::Cells, Location::Points]
                .map(|at| grid.arrays(at).into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        let (at, components) = found.next().with_context(|| {
            let [cells, points] = names();
            format!("there is no array '{name}'; it has {cells:?} at cells and {points:?} at points")
        })?;
        ensure!(found.next().is_none(), "there is an array '{name}' at cells and one at points");
        drop(found);
        Ok(Self { grid, at, name: name.to_string(), components })
    }
}

impl Rows for GridArray {
    fn rows(&self) -> u64 {
        self.grid.rows(self.at)
    }

    fn width(&self) -> usize {
        self.components
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        self.grid.read_array(self.at, &self.name, rows)
    }
}
