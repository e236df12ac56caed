//! The demo: the flow past an ellipsoid, predicted and exact.

mod exact;
mod network;
mod pictures;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::ab_upt::Predictor;
use serde_json::json;

use crate::args::{Arguments, MOST_ACROSS, MOST_POINTS};
use crate::ellipsoid::{BOX, Case, Flow, Slice, surface_mesh};
use crate::forces::Reference;
use crate::input::Input;
use crate::job::{Body, Border, Job, Outside, Place, Source, Truth};
use crate::mesh::Mesh;
use crate::output::Kept;
use crate::terminal::remark;
use exact::ExactFlow;
pub(crate) use network::{FILES as NETWORK_FILES, predictor};
use pictures::DemoPictures;

/// The domains of the network.
const SURFACE: &str = "surface";
const VOLUME: &str = "volume";

/// Half the height of the slice.
const SLICE_HALF_HEIGHT: f64 = 2.0;

/// How many points the demo predicts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolution {
    /// Vertices of the surface mesh: rings between the poles, and around.
    surface: [usize; 2],
    /// Points of the slice along x and z.
    slice: [usize; 2],
}

impl Resolution {
    /// A surface mesh with so many rings and points around, and a slice with so many points along x.
    ///
    /// # Errors
    /// So few that there are no faces, or more than the program takes for a mesh or a plane.
    pub(crate) fn new(surface: [usize; 2], slice: usize) -> Result<Self> {
        let [rings, sectors] = surface;
        ensure!(rings > 0 && sectors > 2, "a body has at least 1 ring of 3 vertices, got {rings} of {sectors}");
        let vertices = rings.checked_mul(sectors).filter(|&vertices| vertices <= MOST_POINTS);
        ensure!(vertices.is_some(), "a body has at most {MOST_POINTS} vertices, got {rings} rings of {sectors}");
        ensure!((3..=MOST_ACROSS).contains(&slice), "a slice has 3 to {MOST_ACROSS} points across, got {slice}");
        // As many points per length along z.
        let rows = (slice - 1) as f64 * SLICE_HALF_HEIGHT / BOX;
        Ok(Self { surface, slice: [slice, rows.round() as usize + 1] })
    }
}

/// Fine enough for pictures.
const FINE: Resolution = Resolution { surface: [127, 256], slice: [401, 321] };

/// The prediction that the command line asks for; `reads` says whether this process lets the network read the body.
pub(crate) fn job(arguments: &Arguments, reads: bool) -> Result<Job> {
    let case = arguments.demo.case()?;
    job_of(case, FINE, arguments, None, reads)
}

/// The prediction for a body; by a network that was loaded before on each device, if it is given.
pub(crate) fn job_of(
    case: Case,
    resolution: Resolution,
    arguments: &Arguments,
    networks: Option<Vec<Predictor>>,
    reads: bool,
) -> Result<Job> {
    let compute = &arguments.compute;
    for warning in case.warnings().into_iter().chain(network::warning(anchors(arguments))) {
        remark(format_args!("warning: {warning}; expect larger errors"));
    }
    let load = |device: &Device| network::predictor(compute.dtype.into(), device);
    let predictors = match networks {
        Some(networks) => networks,
        None => compute.open()?.iter().map(load).collect::<Result<Vec<_>>>()?,
    };
    let predictor = predictors.first().context("no device is left")?;
    let identity = json!({
        "model": "ellipsoid",
        "version": env!("CARGO_PKG_VERSION"),
        "anchors": anchors(arguments),
        "seed": compute.seed,
        "device": compute.device.kind(),
        "dtype": DType::from(compute.dtype).as_str(),
        "semi_axes": case.semi_axes,
        "alpha": case.alpha,
        "beta": case.beta,
    });
    let ([rings, sectors], [columns, rows]) = (resolution.surface, resolution.slice);
    let slice = Slice::new(case.semi_axes, columns, rows, SLICE_HALF_HEIGHT);
    let place = |name, domain, mesh| place(name, domain, mesh, &case, predictor);
    let places = vec![
        place("surface", SURFACE, surface_mesh(case.semi_axes, rings, sectors))?,
        place("slice", VOLUME, slice.mesh.clone())?,
    ];
    let input = network::input(&case, anchors(arguments), compute.seed);
    let usual = Reference {
        // Pressures are coefficients, so the dynamic pressure is 1; the area is the largest across the x axis.
        area: Some(std::f64::consts::PI * case.semi_axes[1] * case.semi_axes[2]),
        density: 2.0,
        drag_axis: case.free_stream(),
        lift_axis: case.lift_axis(),
        ..Reference::default()
    };
    Ok(Job {
        identity: compute.with_division(identity),
        origin: arguments.origin(),
        body: match reads {
            true => Body::new(predictors, compute.division(), input, []),
            false => Body::of_another_process(predictors, compute.division(), 1),
        },
        places,
        lines: Vec::new(),
        streamlines: Vec::new(),
        reference: arguments.forces.reference(usual)?,
        pictures: Box::new(DemoPictures { case, slice }),
    })
}

fn anchors(arguments: &Arguments) -> usize {
    arguments.compute.anchors.map_or(network::MOST_TRAINED_ANCHORS, |anchors| anchors.get())
}

/// The points of a mesh in a domain, with the exact flow as their truth.
fn place(name: &str, domain: &'static str, mesh: Mesh, case: &Case, predictor: &Predictor) -> Result<Place> {
    let points = mesh.points().len() as u64;
    let source = {
        let statistics = &predictor.statistics().position;
        Source::scan(name, name, Input::Mesh(mesh), statistics, &Border::new(statistics, Outside::Refuse), points)?
    };
    let known = predictor.model().config().domains.iter().find(|known| known.name == domain);
    let truth = Truth::exact(ExactFlow { flow: Flow::new(case), domain });
    let domain = known.cloned().context("the embedded network lacks a domain")?;
    let wall = domain.name == SURFACE;
    Ok(Place { name: name.to_string(), domain, source, wall, truth: Some(truth), kept: Kept::default() })
}

/// The network with a body that it has read.
#[cfg(test)]
pub(crate) fn encoded(case: &Case, anchors: usize, seed: u64) -> crate::job::Encoded {
    use crate::job::Division;

    let predictor = network::predictor(DType::F32, &Device::Cpu).expect("the embedded network");
    let body = Body::new(vec![predictor], Division::Points, network::input(case, anchors, seed), []);
    body.encode(&mut crate::output::Alone::default()).expect("a body that it can read")
}

#[cfg(test)]
mod tests;
