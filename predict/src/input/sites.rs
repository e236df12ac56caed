//! The cells or the points of a mesh in a file, as places where fields are predicted.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::DIMENSIONS;
use super::grid::{Grid, Location, Surface};
use super::table::{Rows, Table};

/// A mesh in a file, of which cells or points are predicted.
pub(crate) struct Sites {
    /// Centres or points.
    positions: Table<Positions>,
    at: Location,
    cells: u64,
    points: u64,
    surface: Option<Surface>,
    /// The largest one of its cells.
    dimension: u8,
    /// Whether somebody said where to predict.
    asked: bool,
    has_cell_data: bool,
}

impl Sites {
    /// Takes a mesh: its cells where it has arrays at cells, else its points, unless somebody says which.
    ///
    /// # Errors
    /// A mesh without such places; a file that is damaged or cannot be read.
    pub(crate) fn new(name: &str, mut grid: Grid, at: Option<Location>) -> Result<Self> {
        let has_cell_data = grid.cells() > 0 && !grid.arrays(Location::Cells).is_empty();
        let chosen = at.unwrap_or(if has_cell_data { Location::Cells } else { Location::Points });
        let (cells, points) = (grid.cells(), grid.points());
        ensure!(points > 0, "{name}: holds no points");
        ensure!(chosen == Location::Points || cells > 0, "{name}: holds {points} points, but no cells");
        let dimension = grid.dimension().with_context(|| name.to_string())?;
        let surface = match dimension {
            2 => Some(grid.surface().with_context(|| name.to_string())?),
            _ => None,
        };
        let positions = Table::new(name, Positions { grid, at: chosen });
        Ok(Self { positions, at: chosen, cells, points, surface, dimension, asked: at.is_some(), has_cell_data })
    }

    /// Where fields are predicted.
    pub(crate) fn at(&self) -> Location {
        self.at
    }

    /// Centres or points.
    pub(crate) fn positions(&mut self) -> &mut Table<Positions> {
        &mut self.positions
    }

    /// The lengths, areas or volumes of some cells, each by its dimension.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub(crate) fn sizes(&mut self, cells: Range<u64>) -> Result<Vec<f64>> {
        self.positions.source().grid.sizes(cells)
    }

    /// Whether the mesh has cells with a volume.
    pub(crate) fn is_volume(&self) -> bool {
        self.dimension == 3
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        match self.at {
            Location::Cells => self.cells,
            Location::Points => self.points,
        }
    }

    /// The faces, unless the mesh has volumes or nothing but points and lines.
    pub(crate) fn surface(&self) -> Option<&Surface> {
        self.surface.as_ref()
    }

    /// A line that says what is predicted and why, where nobody asked for it.
    pub(crate) fn remark(&self) -> Option<String> {
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
pub(crate) struct Positions {
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
pub(super) struct GridArray {
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
    pub(super) fn new(grid: Grid, name: &str) -> Result<Self> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::input::{Input, Location, Table};

    /// Two unit squares side by side, or two cubes, written out.
    fn write(path: &Path, volume: bool, data: &str) {
        let corners = |z: f64| (0..6).map(move |at| format!("{} {} {z}", at % 3, at / 3)).collect::<Vec<_>>().join(" ");
        let (points, cells, ends, kind) = match volume {
            false => (corners(0.0), "0 1 4 3 1 2 5 4", "4 8", "9 9"),
            true => (corners(0.0) + " " + &corners(1.0), "0 1 4 3 6 7 10 9 1 2 5 4 7 8 11 10", "8 16", "12 12"),
        };
        let count = if volume { 12 } else { 6 };
        let array = |kind: &str, name: &str, numbers: &str| {
            format!(r#"<DataArray type="{kind}" Name="{name}" format="ascii">{numbers}</DataArray>"#)
        };
        let text = format!(
            r#"<VTKFile type="UnstructuredGrid"><UnstructuredGrid><Piece NumberOfPoints="{count}" NumberOfCells="2">
            {data}<Points>{}</Points><Cells>{}{}{}</Cells></Piece></UnstructuredGrid></VTKFile>"#,
            array("Float32", "Points", &points).replace("Name", "NumberOfComponents=\"3\" Name"),
            array("Int64", "connectivity", cells),
            array("Int64", "offsets", ends),
            array("UInt8", "types", kind),
        );
        std::fs::write(path, text).unwrap();
    }

    const PRESSURE: &str =
        r#"<CellData><DataArray type="Float32" Name="p" format="ascii">1.5 -2</DataArray></CellData>"#;

    #[test]
    fn cells_are_predicted_where_there_is_cell_data_unless_somebody_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("surface.vtu");
        let open = |at| Input::open(path.to_str().unwrap(), at).unwrap();
        write(&path, false, PRESSURE);
        let mut cells = open(None);
        assert_eq!(cells.read(0..2).unwrap(), [[0.5, 0.5, 0.0], [1.5, 0.5, 0.0]]);
        assert_eq!(
            cells.remark().unwrap(),
            "predicted at its 2 cells, as it has cell data; --at points takes its 6 points"
        );
        assert!(cells.mesh().is_none());
        assert_eq!(cells.surface().unwrap().faces().count(), 2);
        let points = open(Some(Location::Points));
        assert_eq!((points.len(), points.remark()), (6, None));
        assert_eq!(points.mesh().unwrap().points().len(), 6);
        write(&path, false, "");
        assert_eq!(open(None).len(), 6);
        assert_eq!(
            open(None).remark().unwrap(),
            "predicted at its 6 points, as it has no cell data; --at cells takes its 2 cells"
        );
        assert_eq!(open(Some(Location::Cells)).len(), 2);
    }

    #[test]
    fn volumes_have_no_surface_and_are_drawn_from_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume.vtu");
        write(&path, true, PRESSURE);
        let mut input = Input::open(path.to_str().unwrap(), None).unwrap();
        assert!(input.is_volume() && input.surface().is_none());
        let mut drawn = input.draw(5, 1).unwrap();
        drawn.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(drawn, [[0.5, 0.5, 0.5], [1.5, 0.5, 0.5]]);
        let Input::Sites(sites) = &mut input else { panic!("a mesh of cells") };
        let sizes = sites.sizes(0..2).unwrap();
        assert!(sizes.iter().all(|size| (size - 1.0).abs() < 1e-12), "{sizes:?}");
    }

    #[test]
    fn an_array_of_a_mesh_is_picked_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("surface.vtu");
        let points =
            "<PointData><DataArray type=\"Int8\" Name=\"p\" format=\"ascii\">0 0 0 0 0 0</DataArray></PointData>";
        let file = path.to_str().unwrap();
        write(&path, false, PRESSURE);
        assert_eq!(Table::open(file, Some("p")).unwrap().read(0..2).unwrap(), [1.5, -2.0]);
        let refusal = |name: Option<&str>| format!("{:#}", Table::open(file, name).err().unwrap());
        assert!(refusal(Some("q")).contains("there is no array 'q'; it has [\"p\"] at cells and [] at points"));
        assert!(refusal(None).contains("which of its arrays?"));
        write(&path, false, &format!("{PRESSURE}{points}"));
        assert!(refusal(Some("p")).contains("there is an array 'p' at cells and one at points"));
    }
}
