use super::*;
use crate::input::grid::Location;

#[test]
fn scratch_sums() {
    let Ok(list) = std::env::var("SCRATCH_VTK") else { return };
    for path in list.split_whitespace() {
        let mut grid = match open(Path::new(path)) {
            Ok(grid) => grid,
            Err(error) => {
                println!("REFUSED {path}: {error:#}");
                continue;
            }
        };
        let mut line = format!("{} ", path.rsplit('/').next().unwrap());
        for at in [Location::Points, Location::Cells] {
            for (name, components) in grid.arrays(at) {
                let values = grid.read_array(at, &name, 0..grid.rows(at)).unwrap();
                line += &format!("{at:?}/{name}:{}x{components}:{:e} ", values.len(), values.iter().sum::<f64>());
            }
        }
        let n = grid.points();
        let points = grid.read_points(0..n).unwrap();
        line += &format!("P:{}:{:e} ", points.len(), points.as_flattened().iter().sum::<f64>());
        let cells = grid.read_cells(0..grid.cells()).unwrap();
        line += &format!(
            "conn:{}:{:e} offs:{}:{:e} types:{:e} fc:{} ",
            cells.corners.len(),
            cells.corners.iter().map(|&x| x as f64).sum::<f64>(),
            cells.ends.len(),
            cells.ends.iter().map(|&x| x as f64).sum::<f64>(),
            cells.kinds.iter().map(|&x| x as f64).sum::<f64>(),
            cells.face_corners.iter().sum::<u64>()
        );
        let n = grid.cells();
        let centres = grid.centres(0..n).unwrap();
        line += &format!(
            "C:{:e} S:{:e}",
            centres.as_flattened().iter().map(|x| x.abs()).sum::<f64>(),
            grid.sizes(0..n).unwrap().iter().sum::<f64>()
        );
        let surface = grid.surface().unwrap();
        line += &format!(" faces:{} dim:{}", surface.cells.len(), grid.dimension().unwrap());
        println!("{line}");
    }
}
