//! All that a prediction is made of, checked before anything is computed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, Predictor, PredictorInput};
use serde_json::{Map, Value, json};

use super::domains;
use super::pictures::FieldPictures;
use crate::args::{Arguments, Condition, DomainSlice, ModelArguments, SquareBanksName};
use crate::input::Location;
use crate::job::{Body, Job, Named, Place, Source, Truth};
use crate::picture::CutPlane;

/// The model, the body and the places.
pub struct Setup {
    checkpoint: Checkpoint,
    config: AbUptConfig,
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
    pub fn read(arguments: &Arguments) -> Result<Self> {
        let (model, chunk) = (&arguments.model, arguments.compute.chunk.get());
        let weights = model.weights.as_deref().context("--weights is missing")?;
        let checkpoint = match &model.weights_key {
            Some(key) => Checkpoint::open_key(weights, key),
            None => Checkpoint::open(weights),
        };
        let checkpoint = checkpoint.context("--weights")?;
        if let Some(key) = checkpoint.weights_key() {
            eprintln!("note: --weights: the weights under '{key}'");
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
        arguments.compute.device.open()?;

        let open_at = |named: &Named, at| Source::open(named, at, &statistics.position, chunk);
        let open = |named: &Named| open_at(named, model.at);
        // Points of a body are drawn from its faces, whatever is predicted on it.
        let geometry = open_geometry(model, &config, |named| open_at(named, Some(Location::Points)))?;
        geometry.as_ref().map(|geometry| supernodes(model, geometry)).transpose()?;
        let points = domains::points(model, &config)?;
        let truths = domains::by_domain("--truth", &model.truth, &config)?;
        let anchors = domains::by_domain("--anchor-points", &model.anchor_points, &config)?;
        let (mut places, mut planes, mut anchor_points) = (Vec::new(), Vec::new(), Vec::new());
        for domain in &config.domains {
            let name = &domain.name;
            ensure!(
                points.contains_key(name) || anchors.contains_key(name),
                "domain '{name}' has no points: --points {name}=FILE says where to predict it, --anchor-points \
                 {name}=FILE gives it anchors alone"
            );
            if let Some(named) = anchors.get(name) {
                anchor_points.push((name.clone(), open(named)?));
            }
            let truth = truths.get(name);
            let Some(named) = points.get(name) else {
                ensure!(truth.is_none(), "--truth {name}: the domain is not predicted, it has no points");
                continue;
            };
            let source = open(named)?;
            if let Some(remark) = source.input.remark() {
                eprintln!("note: {}: {remark}", named.option);
            }
            let truth = truth.map(|named| Truth::open(named, domain, source.input.len(), chunk)).transpose()?;
            for field in truth.iter().flat_map(Truth::missing) {
                eprintln!("note: --truth {name}: the file has no field '{field}', whose errors stay unknown");
            }
            planes.extend(slice_of(name, &source, &model.slice)?.map(|plane| (name.clone(), plane)));
            places.push(Place { name: name.clone(), domain: domain.clone(), source, truth });
        }
        ensure!(!places.is_empty(), "nothing to predict: no domain has points");
        check_slices(&model.slice, &places, &config)?;
        Ok(Self { checkpoint, config, statistics, conditions, geometry, places, planes, anchor_points })
    }

    /// Loads the network and draws what it reads.
    pub fn into_job(mut self, arguments: &Arguments) -> Result<Job> {
        let predictor = self.load(arguments)?;
        let body = Body::new(predictor, self.draw(arguments)?, []);
        let identity = self.identity(arguments)?;
        let pictures = FieldPictures {
            planes: self.planes,
            points_across: arguments.model.slice_points.get(),
            body: self.geometry.as_ref().and_then(|geometry| geometry.input.surface()).cloned(),
            remarks: arguments.model.config.as_deref().map(read_remarks).unwrap_or_default(),
        };
        Ok(Job { identity, body, places: self.places, pictures: Box::new(pictures) })
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
            "geometry_points": model.geometry_points,
            "supernodes": model.supernodes,
            "points": named(&mut self.places.iter().map(|place| (&place.domain.name, &place.source))),
            "anchor_points": named(&mut self.anchor_points.iter().map(|(domain, source)| (domain, source))),
            "anchors": compute.anchors,
            "seed": compute.seed,
            "device": compute.device.to_string(),
            "dtype": compute.dtype.to_string(),
        });
        Ok(identity.as_object().cloned().unwrap_or_default())
    }

    fn load(&self, arguments: &Arguments) -> Result<Predictor> {
        let (device, dtype) = (arguments.compute.device.open()?, arguments.compute.dtype.0);
        let network = self.checkpoint.load(&self.config, dtype, &device).context("--weights")?;
        Ok(Predictor::new(network, &self.statistics)?)
    }

    /// Draws the points of the geometry and the anchors.
    fn draw(&mut self, arguments: &Arguments) -> Result<PredictorInput> {
        let (model, compute) = (&arguments.model, &arguments.compute);
        let mut input = PredictorInput::new();
        for (name, values) in &self.conditions {
            input = input.condition(name, values);
        }
        if let Some(geometry) = &mut self.geometry {
            let points = geometry.input.draw(model.geometry_points.get(), compute.seed).context("--geometry")?;
            // Points are drawn in random order, so the first are as random as any.
            let supernodes: Vec<u32> = (0..supernodes(model, geometry)?).collect();
            input = input.geometry(points.as_flattened(), &supernodes);
        }
        for (at, domain) in self.config.domain_names().into_iter().enumerate() {
            let seed = compute.seed.wrapping_add(1 + at as u64);
            let anchors = self.anchor_source(&domain)?.input.draw(compute.anchors.get(), seed);
            let anchors = anchors.with_context(|| format!("anchors of domain '{domain}'"))?;
            if anchors.len() < compute.anchors.get() {
                eprintln!("note: domain '{domain}' has no more than {} points to draw anchors from", anchors.len());
            }
            input = input.anchors(domain, anchors.as_flattened());
        }
        Ok(input)
    }

    fn anchor_source(&mut self, domain: &str) -> Result<&mut Source> {
        let own = self.anchor_points.iter_mut().find(|(name, _)| name == domain).map(|(_, source)| source);
        let place = self.places.iter_mut().find(|place| place.domain.name == domain).map(|place| &mut place.source);
        own.or(place).with_context(|| format!("domain '{domain}' has no points"))
    }
}

fn read_config(checkpoint: &Checkpoint, model: &ModelArguments) -> Result<AbUptConfig> {
    let mut config = match &model.config {
        Some(path) => AbUptConfig::read(path).context("--config"),
        None => checkpoint
            .config()
            .context("--weights")?
            .context("--config is missing: the file of the weights does not describe its network"),
    }?;
    if let Some(SquareBanksName(banks)) = model.square_banks {
        ensure!(config.untied_square_banks.is_some(), "--square-banks: the network has no untied blocks");
        config.untied_square_banks = Some(banks);
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
    let named = |file: &String| Named { option: "--geometry".to_string(), file: file.clone() };
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

/// The number of supernodes: as many as were asked for, or an eighth of the points of the geometry.
fn supernodes(model: &ModelArguments, geometry: &Source) -> Result<u32> {
    let wanted = model.geometry_points.get() as u64;
    let points = if geometry.input.surface().is_some() { wanted } else { wanted.min(geometry.input.len()) };
    let supernodes = model.supernodes.map_or((points / 8).max(1), |count| count.get() as u64);
    ensure!(
        supernodes <= points,
        "--supernodes must be at most {points}, the points of the geometry, got {supernodes}"
    );
    u32::try_from(supernodes).context("--supernodes")
}

/// The plane in which a domain is drawn: the one that was asked for, and the middle of y for the volume.
fn slice_of(domain: &str, source: &Source, given: &[DomainSlice]) -> Result<Option<CutPlane>> {
    let mut own = given.iter().filter(|slice| slice.domain == domain);
    let plane = match (own.next(), own.next()) {
        (Some(_), Some(_)) => anyhow::bail!("--slice: domain '{domain}' is given twice"),
        (Some(slice), None) => CutPlane { axis: slice.axis, value: slice.value },
        (None, _) if domain == domains::VOLUME => {
            CutPlane { axis: 1, value: (source.bounds[0][1] + source.bounds[1][1]) / 2.0 }
        }
        (None, _) => return Ok(None),
    };
    let CutPlane { axis, value } = plane;
    let (low, high, name) = (source.bounds[0][axis], source.bounds[1][axis], ["x", "y", "z"][axis]);
    ensure!(
        (low..=high).contains(&value),
        "--slice {domain}:{name}={value}: the points of the domain lie between {name} = {low} and {high}"
    );
    let flat = plane.axes().into_iter().any(|axis| source.bounds[0][axis] == source.bounds[1][axis]);
    // Points on a line have no plane to be drawn in.
    Ok((!flat).then_some(plane))
}

fn check_slices(given: &[DomainSlice], places: &[Place], config: &AbUptConfig) -> Result<()> {
    for slice in given {
        domains::check_known("--slice", &slice.domain, config)?;
        let predicted = places.iter().any(|place| place.domain.name == slice.domain);
        ensure!(predicted, "--slice: domain '{}' is not predicted, it has no points", slice.domain);
    }
    Ok(())
}

/// Remarks about fields are optional, so a description without them, or with others, is no error.
fn read_remarks(path: &Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let description: Value = serde_json::from_str(&text).unwrap_or_default();
    description["fields"].as_object().cloned().unwrap_or_default()
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
