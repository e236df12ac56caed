//! All that a prediction is made of, checked before anything is computed.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, DomainConfig, Predictor, PredictorInput};
use candle_mixed_attention::models::{Normalisation, PositionStatistics};
use serde_json::{Map, Value, json};

use super::anchors::Surroundings;
use super::description::{Anchors, Description, Sampling};
use super::domains;
use super::extents;
use super::grid::Grid;
use super::pictures::{FieldPictures, is_velocity};
use super::solids;
use crate::args::{Arguments, Condition, DomainLine, DomainSlice, ModelArguments};
use crate::forces::Reference;
use crate::input::{Input, Location};
use crate::job::{
    Body, Border, Job, Line, MOST_STREAMLINES, Named, Place, Scans, Source, Streamlines, Truth, obstacle,
};
use crate::mesh::Mesh;
use crate::output::{Codec, FieldSpec, Kept};
use crate::picture::CutPlane;
use crate::solid::Defects;
use crate::terminal::remark;

/// Anchors per domain, and points of the geometry, where neither an option nor the description says how many.
const ANCHORS: usize = 1024;
const GEOMETRY_POINTS: usize = 16_384;

/// The model, the body and the places.
pub(super) struct Setup {
    checkpoint: Checkpoint,
    config: AbUptConfig,
    description: Description,
    /// Those of the network.
    statistics: Normalisation,
    conditions: Vec<(String, Vec<f64>)>,
    geometry: Option<Source>,
    /// Where fields are predicted, in the order of the domains.
    places: Vec<Place>,
    /// The planes that places are drawn in; the others are drawn in space.
    planes: Vec<(String, CutPlane)>,
    /// Points that the anchors of a domain are drawn from instead of its place.
    anchor_points: Vec<(String, Source)>,
}

impl Setup {
    /// Opens and checks all files and options.
    pub(super) fn read(arguments: &Arguments, scans: &Scans) -> Result<Self> {
        let (model, chunk) = (&arguments.model, arguments.compute.chunk.get());
        let weights = model.weights.as_deref().context("--weights is missing")?;
        let checkpoint = match &model.weights_key {
            Some(key) => Checkpoint::open_key(weights, key),
            None => Checkpoint::open(weights),
        };
        let checkpoint = checkpoint.context("--weights")?;
        if let Some(key) = checkpoint.weights_key() {
            remark(format_args!("note: --weights: the weights under '{key}'"));
        }
        let config = read_config(&checkpoint, model)?;
        check_supported(&config)?;
        checkpoint.check(&config).context("--weights")?;
        let statistics = model.stats.as_deref().or(model.config.as_deref());
        let statistics = statistics.context("--stats is missing: a .th file holds no statistics")?;
        let statistics = super::statistics::read(statistics, &config).context("--stats")?;
        let conditions: Vec<_> =
            model.condition.iter().map(|Condition { name, values }| (name.clone(), values.clone())).collect();
        statistics.normalise_conditions(&conditions).context("--condition")?;
        arguments.compute.open()?;

        let description = model.config.as_deref().map(Description::read).transpose().context("--config")?;
        let description = description.unwrap_or_default();
        for warning in description.warnings(&conditions) {
            remark(format_args!("warning: {warning}; expect larger errors"));
        }
        let border = Border::new(&statistics.position, model.outside);
        for domain in model.scale.iter().filter_map(|scale| scale.domain.as_ref()) {
            domains::check_known("--scale", domain, &config)?;
        }
        check_velocity(model.velocity.as_deref(), &config)?;
        let open_at = |named: &Named, at| Source::open(named, at, &statistics.position, &border, chunk, scans);
        let open = |named: &Named| open_at(named, model.at);
        // Points of a body are drawn from its faces, whatever is predicted on it.
        let geometry = open_geometry(model, &config, |named| open_at(named, Some(Location::Points)))?;
        geometry.as_ref().map(|geometry| supernodes(model, &description, geometry)).transpose()?;
        let body = geometry.as_ref().and_then(|geometry| geometry.input.surface());
        if let Some(warning) = body.and_then(|body| Defects::of(body).warning()) {
            remark(format_args!("warning: --geometry: {warning}"));
        }
        let points = domains::points(model, &config)?;
        let truths = domains::by_domain("--truth", &model.truth, &config)?;
        let anchors = domains::by_domain("--anchor-points", &model.anchor_points, &config)?;
        let (mut places, mut planes, mut anchor_points) = (Vec::new(), Vec::new(), Vec::new());
        for domain in &config.domains {
            let name = &domain.name;
            // A plane around the body, where nothing else is known.
            let around = body.filter(|_| description.draws_around(name)).zip(bounds_of(&statistics.position));
            ensure!(
                points.contains_key(name) || anchors.contains_key(name) || around.is_some(),
                "domain '{name}' has no points: --points {name}=FILE says where to predict it, --anchor-points \
                 {name}=FILE gives it anchors alone"
            );
            if let Some(named) = anchors.get(name) {
                anchor_points.push((name.clone(), open(named)?));
            }
            let truth = truths.get(name);
            let mut source = match (points.get(name), around) {
                (Some(named), _) => open(named)?,
                (None, Some((body, bounds))) if !anchors.contains_key(name) => {
                    let plane = plane_around(name, body, bounds, &model.slice)?;
                    let grid = Grid::new(
                        plane,
                        bounds.map(|corner| corner.map(|x| x as f32)),
                        model.slice_points.get(),
                        Some(body),
                    );
                    let CutPlane { axis, value } = plane;
                    let axis_name = ["x", "y", "z"][axis];
                    ensure!(
                        !grid.points.is_empty(),
                        "domain '{name}' has no points, and the body fills the whole plane {axis_name} = {value}"
                    );
                    remark(format_args!(
                        "note: domain '{name}' has no points and is predicted in the plane {axis_name} = {value}; \
                         --points {name}=FILE predicts it elsewhere"
                    ));
                    Source::scan("--slice", "--slice", Input::Mesh(grid.mesh()), &statistics.position, &border, chunk)?
                }
                (None, _) => {
                    ensure!(truth.is_none(), "--truth {name}: the domain is not predicted, it has no points");
                    continue;
                }
            };
            if let (Some(named), Some(said)) = (points.get(name), source.input.remark()) {
                remark(format_args!("note: {}: {said}", named.option));
            }
            let wall = name == domains::SURFACE;
            if let (Some(array), true) = (&model.patches, wall) {
                source.patch_by(array).context("--patches")?;
            }
            if let Some(warning) = points.get(name).filter(|_| wall).and_then(|named| doubt_faces(named, &source)) {
                remark(format_args!("warning: {warning}"));
            }
            if let Some(body) = body.filter(|_| wall) {
                assign_solids(body, &mut source)?;
            }
            let kept = Kept {
                all: arguments.output.keep_arrays,
                named: truth.map(Truth::arrays).unwrap_or_default().into_iter().collect(),
            };
            let truth = {
                let own = points.get(name);
                truth.map(|named| Truth::open(named, own, domain, source.input.len(), chunk, scans)).transpose()?
            };
            for field in truth.iter().flat_map(Truth::missing) {
                remark(format_args!(
                    "note: --truth {name}: the file has no field '{field}', whose errors stay unknown"
                ));
            }
            planes.extend(slices_of(name, &source, &model.slice)?.into_iter().map(|plane| (name.clone(), plane)));
            places.push(Place { name: name.clone(), domain: domain.clone(), source, wall, truth, kept });
        }
        ensure!(!places.is_empty(), "nothing to predict: no domain has points");
        check_slices(&model.slice, &places, &config)?;
        tell_extents(geometry.as_ref(), &places, &anchor_points, &statistics.position);
        Ok(Self { checkpoint, config, description, statistics, conditions, geometry, places, planes, anchor_points })
    }

    /// Loads the network, unless it is given, and draws what it reads, if this process `reads` the body.
    pub(super) fn into_job(
        mut self,
        arguments: &Arguments,
        networks: Option<Vec<Predictor>>,
        reads: bool,
    ) -> Result<Job> {
        let predictors = networks.map_or_else(|| self.load(arguments), Ok)?;
        let (division, draws) = (arguments.compute.division(), arguments.compute.seeds.get());
        let body = match reads {
            true => {
                let geometry = self.draw_geometry(arguments)?;
                let mut draw = |draw| self.draw_anchors(arguments, geometry.clone(), draw);
                let (first, others) = (draw(0)?, (1..draws as u64).map(draw).collect::<Result<Vec<_>>>()?);
                Body::new(predictors, division, first, others)
            }
            false => Body::of_another_process(predictors, division, draws),
        };
        let identity = self.identity(arguments)?;
        let lines = lines(&arguments.model.line, &self.config, &self.statistics.position)?;
        let streamlines = self.streamlines(&arguments.model)?;
        let pictures = FieldPictures {
            planes: self.planes,
            points_across: arguments.model.slice_points.get(),
            body: self.geometry.as_ref().and_then(|geometry| geometry.input.surface()).cloned(),
            remarks: self.description.remarks,
            velocity: arguments.model.velocity.clone(),
        };
        let reference = arguments.forces.reference(Reference::default())?;
        Ok(Job {
            identity,
            origin: arguments.origin(),
            body,
            places: self.places,
            lines,
            streamlines,
            reference,
            pictures: Box::new(pictures),
        })
    }

    /// All that the result depends on.
    fn identity(&self, arguments: &Arguments) -> Result<Map<String, Value>> {
        let (model, compute) = (&arguments.model, &arguments.compute);
        let named = |sources: &mut dyn Iterator<Item = (&String, &Source)>| -> Map<String, Value> {
            sources.map(|(domain, source)| (domain.clone(), source.identity())).collect()
        };
        let identity = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "weights": checksum(&self.checkpoint)?,
            "weights_key": self.checkpoint.weights_key(),
            "config": self.config,
            "statistics": self.statistics,
            "conditions": self.conditions,
            "geometry": self.geometry.as_ref().map(Source::identity),
            "geometry_points": self.geometry_points(model),
            "supernodes": model.supernodes,
            "training": self.description.training(),
            "points": named(&mut self.places.iter().map(|place| (&place.domain.name, &place.source))),
            "anchor_points": named(&mut self.anchor_points.iter().map(|(domain, source)| (domain, source))),
            "anchors": compute.anchors,
            "seed": compute.seed,
            "seeds": compute.seeds,
            "device": compute.device.kind(),
            "dtype": DType::from(compute.dtype).as_str(),
            "outside": format!("{:?}", model.outside).to_lowercase(),
            "compress": arguments.output.compress.map(Codec::name),
        });
        Ok(compute.with_division(identity))
    }

    /// The network on each device.
    fn load(&self, arguments: &Arguments) -> Result<Vec<Predictor>> {
        let (devices, dtype) = (arguments.compute.open()?, DType::from(arguments.compute.dtype));
        let load = |device: &Device| {
            let network = self.checkpoint.load(&self.config, dtype, device).context("--weights")?;
            Ok(Predictor::new(network, &self.statistics)?)
        };
        devices.iter().map(load).collect()
    }

    fn geometry_points(&self, model: &ModelArguments) -> usize {
        geometry_points(model, &self.description)
    }

    /// Draws the points of the geometry, and adds the conditions.
    fn draw_geometry(&mut self, arguments: &Arguments) -> Result<PredictorInput> {
        let (model, compute) = (&arguments.model, &arguments.compute);
        let mut input = PredictorInput::new();
        for (name, values) in &self.conditions {
            input = input.condition(name, values);
        }
        let count = self.geometry_points(model);
        if let Some(geometry) = &mut self.geometry {
            let points = geometry.draw(count, compute.seed).context("--geometry")?;
            // Points are drawn in random order, so the first are as random as any.
            let supernodes: Vec<u32> = (0..supernodes(model, &self.description, geometry)?).collect();
            input = input.geometry(points.as_flattened(), &supernodes);
        }
        Ok(input)
    }

    /// Adds anchors as in training, or from files: draw after draw by other seeds.
    fn draw_anchors(&mut self, arguments: &Arguments, mut input: PredictorInput, draw: u64) -> Result<PredictorInput> {
        let compute = &arguments.compute;
        let body = self.geometry.as_ref().and_then(|geometry| geometry.input.surface()).cloned();
        let around = body.as_ref().map(|body| Surroundings::new(body, bounds_of(&self.statistics.position)));
        let around = around.transpose().context("--geometry")?;
        for (at, domain) in self.config.domain_names().into_iter().enumerate() {
            // Draws lie far apart, so that no two of them share a seed.
            let seed = compute.seed.wrapping_add(1 + at as u64).wrapping_add(draw << 32);
            let trained = self.description.anchors.get(&domain).cloned();
            let wanted = trained.as_ref().map_or(ANCHORS, |trained| trained.count[1]);
            let wanted = compute.anchors.map_or(wanted, |anchors| anchors.get());
            let given = self.anchor_points.iter().any(|(known, _)| *known == domain);
            let drawn = match (&trained, &around) {
                (Some(trained), Some(around)) if !given => around.draw(trained.sampling, wanted, seed)?,
                _ => None,
            };
            let as_trained = drawn.is_some();
            let anchors = match drawn {
                Some(drawn) => drawn,
                None => {
                    let drawn = self.anchor_source(&domain)?.draw(wanted, seed);
                    drawn.with_context(|| format!("anchors of domain '{domain}'"))?
                }
            };
            if draw == 0 {
                let count = anchors.len();
                if count < wanted {
                    remark(format_args!(
                        "note: domain '{domain}' has no more than {count} points to draw anchors from"
                    ));
                }
                for warning in
                    unlike_training(&domain, &anchors, trained.as_ref(), around.as_ref(), as_trained, given, seed)?
                {
                    remark(format_args!("warning: {warning}"));
                }
            }
            input = input.anchors(domain, anchors.as_flattened());
        }
        Ok(input)
    }

    /// The streamlines that were asked for, checked.
    fn streamlines(&self, model: &ModelArguments) -> Result<Vec<Streamlines>> {
        let body = || self.geometry.as_ref().and_then(|geometry| geometry.input.surface());
        let streamlines = |(at, given): (usize, &DomainLine)| {
            let domain = domain_of_line("--streamlines", given, &self.config)?;
            ensure!(
                given.points <= MOST_STREAMLINES,
                "--streamlines {}: at most {MOST_STREAMLINES} lines, got {}",
                given.domain,
                given.points
            );
            let fields: Vec<_> = domain.fields.iter().map(|field| FieldSpec::new(&field.name, field.dim)).collect();
            let velocity = fields.iter().position(|field| is_velocity(field, model.velocity.as_deref()));
            let velocity = velocity.with_context(|| {
                format!("--streamlines: which field of '{}' is the velocity? --velocity says it", domain.name)
            })?;
            let place = self.places.iter().find(|place| place.domain.name == domain.name);
            let of_place = place.map(|place| place.source.bounds.map(|corner| corner.map(f64::from)));
            let bounds = bounds_of(&self.statistics.position).or(of_place);
            let bounds = bounds.context("--streamlines: there is no box that they could end at")?;
            let name = format!("streamlines_{}_{}", at + 1, given.domain);
            let DomainLine { from, to, points: count, .. } = *given;
            let lines = Streamlines { name, domain, velocity, from, to, count, bounds, body: obstacle(body()) };
            let option = format!("--streamlines {}", given.domain);
            self.statistics.position.normalise(&option, lines.seeds().as_flattened())?;
            Ok(lines)
        };
        model.streamlines.iter().enumerate().map(streamlines).collect()
    }

    fn anchor_source(&mut self, domain: &str) -> Result<&mut Source> {
        let own = self.anchor_points.iter_mut().find(|(name, _)| name == domain).map(|(_, source)| source);
        let place = self.places.iter_mut().find(|place| place.domain.name == domain).map(|place| &mut place.source);
        own.or(place).with_context(|| format!("domain '{domain}' has no points"))
    }
}

/// Finds the solid of each face of a surface that is another mesh of a body of several solids.
fn assign_solids(body: &Mesh, source: &mut Source) -> Result<()> {
    let Some(surface) = source.input.surface().filter(|surface| surface.groups().is_empty()) else { return Ok(()) };
    if body.groups().len() < 2 || surface.faces().next().is_none() {
        return Ok(());
    }
    let solids::Nearest { solids, distance } = solids::nearest(body, surface).context("--geometry")?;
    remark(format_args!(
        "note: --surface: each face belongs to the nearest solid of --geometry, which is at most {distance:.4} away"
    ));
    source.input.set_solids(body.groups().to_vec(), solids);
    Ok(())
}

/// A sentence about the faces that forces act on, if they make no body. Those of the geometry are looked at anyway.
fn doubt_faces(named: &Named, source: &Source) -> Option<String> {
    let surface = source.input.surface().filter(|_| named.option != "--geometry")?;
    Some(format!("{}: {}", named.option, Defects::of(surface).warning()?))
}

/// Checks that a field that is called the velocity is one.
fn check_velocity(given: Option<&str>, config: &AbUptConfig) -> Result<()> {
    let Some(given) = given else { return Ok(()) };
    let fields: Vec<_> = config.domains.iter().flat_map(|domain| &domain.fields).collect();
    let vectors: Vec<_> = fields.iter().filter(|field| field.dim == 3).map(|field| field.name.as_str()).collect();
    ensure!(vectors.contains(&given), "--velocity: there is no field '{given}' of three components, but {vectors:?}");
    Ok(())
}

fn read_config(checkpoint: &Checkpoint, model: &ModelArguments) -> Result<AbUptConfig> {
    let mut config = match &model.config {
        Some(path) => AbUptConfig::read(path).context("--config"),
        None => checkpoint
            .config()
            .context("--weights")?
            .context("--config is missing: the file of the weights does not describe its network"),
    }?;
    if let Some(banks) = model.square_banks {
        ensure!(config.untied_square_banks.is_some(), "--square-banks: the network has no untied blocks");
        config.untied_square_banks = Some(banks.into());
    }
    Ok(config)
}

/// Networks that files of points cannot feed.
fn check_supported(config: &AbUptConfig) -> Result<()> {
    let coordinates = config.position_dim;
    ensure!(coordinates == 3, "--config: positions have {coordinates} coordinates; this program predicts in 3");
    let features = config.supernode_pooling.as_ref().and_then(|pooling| pooling.input_features_dim);
    ensure!(
        features.is_none() || !config.uses_geometry(),
        "--config: the network reads features of geometry points, which this program cannot give; the library can"
    );
    domains::check_file_names(config)
}

fn open_geometry(
    model: &ModelArguments,
    config: &AbUptConfig,
    open: impl Fn(&Named) -> Result<Source>,
) -> Result<Option<Source>> {
    let named = |file: &String| Named { scale: domains::scale(model, None), ..Named::new("--geometry", file) };
    match (&model.geometry, config.uses_geometry()) {
        (Some(file), true) => {
            let geometry = open(&named(file))?;
            ensure!(!geometry.input.is_volume(), "--geometry: {file} has cells with a volume; a body is a surface");
            Ok(Some(geometry))
        }
        (None, true) => anyhow::bail!("--geometry is missing: the network has perceiver blocks, which read one"),
        (None, false) => Ok(None),
        (Some(_), false) => {
            let used = domains::points(model, config)?.values().any(|named| named.option == "--geometry");
            ensure!(used, "--geometry is not needed: the network has no perceiver block that would read it");
            Ok(None)
        }
    }
}

/// Points of the geometry that are encoded: as many as were asked for, or as in training.
fn geometry_points(model: &ModelArguments, description: &Description) -> usize {
    let trained = description.geometry.map(|geometry| middle(geometry.points));
    model.geometry_points.map(|count| count.get()).or(trained).unwrap_or(GEOMETRY_POINTS)
}

/// The number of supernodes: as many as were asked for, or as in training, or an eighth of the points of the geometry.
fn supernodes(model: &ModelArguments, description: &Description, geometry: &Source) -> Result<u32> {
    let wanted = geometry_points(model, description) as u64;
    let points = if geometry.input.surface().is_some() { wanted } else { wanted.min(geometry.input.len()) };
    let trained = description.geometry.map(|geometry| (middle(geometry.supernodes) as u64).min(points));
    let supernodes = model.supernodes.map(|count| count.get() as u64).or(trained).unwrap_or((points / 8).max(1));
    ensure!(
        supernodes <= points,
        "--supernodes must be at most {points}, the points of the geometry, got {supernodes}"
    );
    u32::try_from(supernodes).context("--supernodes")
}

fn middle([low, high]: [usize; 2]) -> usize {
    low.midpoint(high)
}

/// Sentences about anchors that do not resemble those of training.
fn unlike_training(
    domain: &str,
    anchors: &[[f32; 3]],
    trained: Option<&Anchors>,
    around: Option<&Surroundings>,
    as_trained: bool,
    given: bool,
    seed: u64,
) -> Result<Vec<String>> {
    let Some(trained) = trained else { return Ok(Vec::new()) };
    let (count, [low, high]) = (anchors.len(), trained.count);
    let mut warnings = Vec::new();
    if !(low..=high).contains(&count) {
        let warning = format!("{count} anchors of '{domain}' are outside the trained range {low} to {high}");
        warnings.push(format!("{warning}; expect larger errors"));
    }
    match around {
        Some(around) if !as_trained => warnings.extend(around.difference(domain, anchors, trained, !seed)?),
        None if !given && !matches!(trained.sampling, Sampling::Mesh | Sampling::Area) => warnings.push(format!(
            "anchors of '{domain}' are drawn from where it is predicted, not as in training, which takes a mesh as \
             --geometry; expect larger errors unless those points lie alike"
        )),
        _ => {}
    }
    Ok(warnings)
}

/// Tells the box of everything that was read, and doubts units that do not fit.
fn tell_extents(
    geometry: Option<&Source>,
    places: &[Place],
    anchors: &[(String, Source)],
    statistics: &PositionStatistics,
) {
    let mut others = Vec::new();
    if let Some(bounds) = bounds_of(statistics) {
        others.push(("the box of the statistics".to_string(), bounds.map(|corner| corner.map(|x| x as f32))));
    }
    let tell = |name: &str, source: &Source| remark(extents::told(name, source.input.len(), source.bounds));
    geometry.iter().for_each(|geometry| tell("geometry", geometry));
    for place in places {
        tell(&place.name, &place.source);
        // A body lies in a volume; a surface may be a part of it.
        if !place.wall {
            others.push((format!("the points of '{}'", place.name), place.source.bounds));
        }
    }
    for (domain, source) in anchors {
        tell(&format!("anchors of {domain}"), source);
    }
    for warning in geometry.iter().flat_map(|geometry| extents::warnings(geometry.bounds, &others)) {
        remark(format_args!("warning: {warning}"));
    }
}

/// The box of the statistics, if they have one.
fn bounds_of(statistics: &PositionStatistics) -> Option<[[f64; 3]; 2]> {
    let bounds = statistics.bounds()?;
    Some([bounds.min.as_slice().try_into().ok()?, bounds.max.as_slice().try_into().ok()?])
}

/// The plane around a body that a domain without points is predicted in: the one that was asked for, or through the middle
/// of the body.
fn plane_around(domain: &str, body: &Mesh, bounds: [[f64; 3]; 2], given: &[DomainSlice]) -> Result<CutPlane> {
    let plane = match given.iter().find(|slice| slice.domain == domain) {
        Some(slice) => CutPlane { axis: slice.axis, value: slice.value },
        None => {
            let along = body.points().iter().map(|point| point[1]);
            let (low, high) =
                along.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
            CutPlane { axis: 1, value: low.midpoint(high) }
        }
    };
    let CutPlane { axis, value } = plane;
    let [low, high] = bounds.map(|corner| corner[axis]);
    ensure!(
        (low..=high).contains(&f64::from(value)),
        "--slice {domain}:{}={value}: the box of the statistics lies between {low} and {high}",
        ["x", "y", "z"][axis]
    );
    Ok(plane)
}

/// The planes in which a domain is drawn: those that were asked for, or for the volume the middle of y.
fn slices_of(domain: &str, source: &Source, given: &[DomainSlice]) -> Result<Vec<CutPlane>> {
    let own = given.iter().filter(|slice| slice.domain == domain);
    let mut planes: Vec<_> = own.map(|slice| CutPlane { axis: slice.axis, value: slice.value }).collect();
    if planes.is_empty() && domain == domains::VOLUME {
        planes.push(CutPlane { axis: 1, value: (source.bounds[0][1] + source.bounds[1][1]) / 2.0 });
    }
    for (at, CutPlane { axis, value }) in planes.iter().copied().enumerate() {
        let (low, high, name) = (source.bounds[0][axis], source.bounds[1][axis], ["x", "y", "z"][axis]);
        ensure!(
            (low..=high).contains(&value),
            "--slice {domain}:{name}={value}: the points of the domain lie between {name} = {low} and {high}"
        );
        ensure!(!planes[..at].contains(&planes[at]), "--slice {domain}:{name}={value} is given twice");
    }
    // Points on a line have no plane to be drawn in.
    let flat = |axis: usize| source.bounds[0][axis] == source.bounds[1][axis];
    planes.retain(|plane| !plane.axes().into_iter().any(flat));
    Ok(planes)
}

/// The domain that a line goes through: the one that it names, or the volume.
fn domain_of_line(option: &str, given: &DomainLine, config: &AbUptConfig) -> Result<DomainConfig> {
    let find = |name: &str| config.domains.iter().find(|domain| domain.name == name);
    let plain = given.domain.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter));
    match find(&given.domain).or_else(|| find(domains::VOLUME).filter(|_| plain)) {
        Some(domain) => Ok(domain.clone()),
        None => {
            anyhow::bail!("{option}: the network has no domain '{}', but {:?}", given.domain, config.domain_names())
        }
    }
}

/// The lines that were asked for, checked.
fn lines(given: &[DomainLine], config: &AbUptConfig, statistics: &PositionStatistics) -> Result<Vec<Line>> {
    let line = |(at, given): (usize, &DomainLine)| {
        let domain = domain_of_line("--line", given, config)?;
        let name = format!("line_{}_{}", at + 1, given.domain);
        let line = Line { name, domain, from: given.from, to: given.to, points: given.points };
        ensure!(given.points > 1, "--line {}: a line has at least 2 points, got 1", given.domain);
        statistics.normalise(&format!("--line {}", given.domain), line.points().as_flattened())?;
        Ok(line)
    };
    given.iter().enumerate().map(line).collect()
}

fn check_slices(given: &[DomainSlice], places: &[Place], config: &AbUptConfig) -> Result<()> {
    for slice in given {
        domains::check_known("--slice", &slice.domain, config)?;
        let predicted = places.iter().any(|place| place.domain.name == slice.domain);
        ensure!(predicted, "--slice: domain '{}' is not predicted, it has no points", slice.domain);
    }
    Ok(())
}

/// Bytes and checksum of all files that the weights were read from.
fn checksum(checkpoint: &Checkpoint) -> Result<Value> {
    let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    for path in checkpoint.files() {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        loop {
            let read = file.read(&mut buffer).with_context(|| path.display().to_string())?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
    }
    Ok(json!({"bytes": bytes, "crc32": format!("{:08x}", hasher.finalize())}))
}
