//! The cells or the points of a mesh in a file, as places where fields are predicted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};

use super::DIMENSIONS;
use super::grid::{Grid, Location, PieceOutline, SOLID, Surface};
use super::table::{Rows, Table};
use crate::mesh::Mesh;

/// Patches of a surface; more would be no patches.
const MOST_PATCHES: usize = 10_000;

/// A mesh in a file, of which cells or points are predicted.
pub(crate) struct Sites {
    /// Centres or points.
    positions: Table<Positions>,
    grid: Rc<RefCell<Grid>>,
    outline: Vec<PieceOutline>,
    at: Location,
    cells: u64,
    points: u64,
    surface: Option<Surface>,
    /// The largest one of its cells.
    dimension: u8,
    /// Names of the solids that an array of it numbers.
    solids: Vec<String>,
    /// That array, where it is none of the file: −1 at cells that are no faces.
    solid_of_cells: Vec<i32>,
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
        let outline = grid.outline().with_context(|| name.to_string())?;
        let grid = Rc::new(RefCell::new(grid));
        let positions = Table::new(name, Positions { grid: grid.clone(), at: chosen });
        let solids = Vec::new();
        Ok(Self {
            positions,
            grid,
            outline,
            solids,
            solid_of_cells: Vec::new(),
            at: chosen,
            cells,
            points,
            surface,
            dimension,
            asked: at.is_some(),
            has_cell_data,
        })
    }

    /// Where fields are predicted.
    pub(crate) fn at(&self) -> Location {
        self.at
    }

    /// Centres or points.
    pub(crate) fn positions(&mut self) -> &mut Table<Positions> {
        &mut self.positions
    }

    /// The mesh, which is read by whoever needs a part of it.
    pub(crate) fn grid(&self) -> Rc<RefCell<Grid>> {
        self.grid.clone()
    }

    /// Multiplies all coordinates from here on.
    pub(crate) fn scale(&mut self, by: f64) {
        self.grid.borrow_mut().scale(by);
        self.surface.iter_mut().for_each(|surface| surface.mesh.scale(by));
    }

    /// What a file of the mesh holds.
    pub(crate) fn outline(&self) -> &[PieceOutline] {
        &self.outline
    }

    /// The lengths, areas or volumes of some cells, each by its dimension.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub(crate) fn sizes(&mut self, cells: Range<u64>) -> Result<Vec<f64>> {
        self.grid.borrow_mut().sizes(cells)
    }

    /// Whether the mesh has cells at all.
    pub(crate) fn has_cells(&self) -> bool {
        self.cells > 0
    }

    /// The names of the solids that its array [`SOLID`](super::SOLID) numbers, if it was made with one.
    pub(crate) fn solids(&self) -> &[String] {
        &self.solids
    }

    /// The number of the solid of each cell, where it is not in the file.
    pub(crate) fn solid_of_cells(&self) -> &[i32] {
        &self.solid_of_cells
    }

    /// Tells the solid of each face of the surface.
    pub(crate) fn set_solids(&mut self, names: Vec<String>, of_faces: Vec<u32>) {
        let Some(surface) = &mut self.surface else { return };
        let known = self.outline.iter().flat_map(|piece| &piece.cell_arrays).any(|array| array.name == SOLID);
        if !known {
            self.solid_of_cells = vec![-1; self.cells as usize];
            for (&cell, &solid) in surface.cells.iter().zip(&of_faces) {
                self.solid_of_cells[cell as usize] = solid as i32;
            }
            self.solids = names.clone();
        }
        surface.mesh.set_groups(names, of_faces);
    }

    /// A surface in memory, of which the faces are predicted.
    ///
    /// # Errors
    /// It has no faces.
    pub(crate) fn of_mesh(name: &str, mesh: &Mesh) -> Result<Self> {
        let mut sites = Self::new(name, Grid::of_mesh(mesh)?, Some(Location::Cells))?;
        sites.solids = mesh.groups().to_vec();
        if let Some(surface) = &mut sites.surface {
            surface.mesh = mesh.clone();
        }
        Ok(sites)
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

    /// Puts the faces of a surface into groups by an array of whole numbers at its cells.
    ///
    /// # Errors
    /// No surface, no such array, one of several components or of fractions, or one with very many numbers.
    pub(crate) fn patch_by(&mut self, array: &str) -> Result<()> {
        let mut grid = self.grid.borrow_mut();
        let arrays = grid.arrays(Location::Cells);
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        let found = arrays.iter().find(|(name, _)| name == array);
        let (_, components) = found.with_context(|| format!("there is no array '{array}' at cells, but {names:?}"))?;
        ensure!(*components == 1, "array '{array}' has {components} components; a patch is one number");
        let numbers = grid.read_array(Location::Cells, array, 0..self.cells)?;
        let surface = self.surface.as_mut().context("a mesh with volumes has no patches")?;
        let mut patches = BTreeMap::new();
        for number in &numbers {
            ensure!(number.fract() == 0.0, "array '{array}' has {number} at a cell; patches are whole numbers");
            patches.entry(*number as i64).or_insert(0u32);
        }
        let count = patches.len();
        ensure!(
            count <= MOST_PATCHES,
            "array '{array}' has {count} different numbers; patches are at most {MOST_PATCHES}"
        );
        patches.values_mut().zip(0..).for_each(|(place, at)| *place = at);
        let of_faces = surface.cells.iter().map(|&cell| patches[&(numbers[cell as usize] as i64)]).collect();
        surface.mesh.set_groups(patches.keys().map(|patch| format!("{array} {patch}")).collect(), of_faces);
        Ok(())
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
    grid: Rc<RefCell<Grid>>,
    at: Location,
}

impl Rows for Positions {
    fn rows(&self) -> u64 {
        self.grid.borrow().rows(self.at)
    }

    fn width(&self) -> usize {
        DIMENSIONS
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        let positions = match self.at {
            Location::Cells => self.grid.borrow_mut().centres(rows)?,
            Location::Points => self.grid.borrow_mut().read_points(rows)?,
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
