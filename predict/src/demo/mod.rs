//! The demo: the flow past an ellipsoid, predicted and exact.

mod exact;
mod network;
mod pictures;

use anyhow::{Context, Result};
use candle_mixed_attention::models::ab_upt::Predictor;
use serde_json::json;

use crate::args::Arguments;
use crate::ellipsoid::{Case, Flow, Slice, surface_mesh};
use crate::input::Input;
use crate::job::{Body, Job, Place, Source, Truth};
use crate::mesh::Mesh;
use exact::ExactFlow;
use pictures::DemoPictures;

/// The domains of the network.
const SURFACE: &str = "surface";
const VOLUME: &str = "volume";

/// Half the height of the slice.
const SLICE_HALF_HEIGHT: f64 = 2.0;

/// How many points the demo predicts.
#[derive(Debug, Clone, Copy)]
struct Resolution {
    /// Vertices of the surface mesh: rings between the poles, and around.
    surface: [usize; 2],
    /// Points of the slice along x and z.
    slice: [usize; 2],
}

/// Fine enough for pictures.
const FINE: Resolution = Resolution { surface: [127, 256], slice: [401, 321] };

/// The prediction that the command line asks for.
pub fn job(arguments: &Arguments) -> Result<Job> {
    let case = arguments.demo.case()?;
    let anchors = arguments.compute.anchors.get();
    for warning in case.warnings().into_iter().chain(network::warning(anchors)) {
        eprintln!("warning: {warning}; expect larger errors");
    }
    job_of(case, FINE, arguments)
}

fn job_of(case: Case, resolution: Resolution, arguments: &Arguments) -> Result<Job> {
    let compute = &arguments.compute;
    let predictor = network::predictor(compute.dtype.0, &compute.device.open()?)?;
    let identity = json!({
        "model": "ellipsoid",
        "version": env!("CARGO_PKG_VERSION"),
        "anchors": compute.anchors,
        "seed": compute.seed,
        "device": compute.device.to_string(),
        "dtype": compute.dtype.to_string(),
        "semi_axes": case.semi_axes,
        "alpha": case.alpha,
        "beta": case.beta,
    });
    let ([rings, sectors], [columns, rows]) = (resolution.surface, resolution.slice);
    let slice = Slice::new(case.semi_axes, columns, rows, SLICE_HALF_HEIGHT);
    let place = |name, domain, mesh| place(name, domain, mesh, &case, &predictor);
    let places = vec![
        place("surface", SURFACE, surface_mesh(case.semi_axes, rings, sectors))?,
        place("slice", VOLUME, slice.mesh.clone())?,
    ];
    let input = network::input(&case, compute.anchors.get(), compute.seed);
    Ok(Job {
        identity: identity.as_object().cloned().unwrap_or_default(),
        body: Body::new(predictor, input, []),
        places,
        pictures: Box::new(DemoPictures { case, slice }),
    })
}

/// The points of a mesh in a domain, with the exact flow as their truth.
fn place(name: &str, domain: &'static str, mesh: Mesh, case: &Case, predictor: &Predictor) -> Result<Place> {
    let points = mesh.points().len() as u64;
    let source = Source::scan(name, Input::Mesh(mesh), &predictor.statistics().position, points)?;
    let known = predictor.model().config().domains.iter().find(|known| known.name == domain);
    let truth = Truth::exact(ExactFlow { flow: Flow::new(case), domain });
    let domain = known.cloned().context("the embedded network lacks a domain")?;
    Ok(Place { name: name.to_string(), domain, source, truth: Some(truth) })
}

#[cfg(test)]
mod tests;
