//! The command line.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use candle_mixed_attention::SquareBanks;
use candle_mixed_attention::candle_core::{DType, Device};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

use crate::device::Devices;
use crate::ellipsoid::Case;
use crate::forces::Reference;
use crate::input::Location;
use crate::job::{Division, Outside, Settings};
use crate::output::{Codec, Existing};
use crate::progress::Turn;
use crate::vector::Vec3;

/// Points at most that are drawn for anchors or for the geometry.
pub(crate) const MOST_POINTS: usize = 1 << 26;

/// Points at most that lie on a line.
const MOST_ON_LINE: usize = 1 << 20;

/// Draws of anchors at most, each of which is a body that the network reads.
const MOST_DRAWS: usize = 1000;

/// Points at most along the side of a plane, whose square is predicted.
pub(crate) const MOST_ACROSS: usize = 1 << 14;

/// Predicts the flow around a body.
///
/// Without arguments: the demo, an ellipsoid in a potential flow, compared with the exact solution. With --semi-axes,
/// --alpha and --beta the demo takes another body. With --weights it predicts with your own model and meshes.
#[derive(Debug, Clone, Parser)]
#[command(name = "predict", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to predict with a model of your own.
    #[command(flatten, next_help_heading = "Your model")]
    pub(crate) model: ModelArguments,

    /// Which ellipsoid the demo takes.
    #[command(flatten, next_help_heading = "Demo")]
    pub(crate) demo: DemoArguments,

    /// How to compute.
    #[command(flatten, next_help_heading = "Computation")]
    pub(crate) compute: ComputeArguments,

    /// Where results go.
    #[command(flatten, next_help_heading = "Results")]
    pub(crate) output: OutputArguments,

    /// Forces on the surface.
    #[command(flatten, next_help_heading = "Forces")]
    pub(crate) forces: ForceArguments,

    /// Predict many bodies by one network: a CSV file with a row for each, whose columns are name (of its folder), geometry,
    /// surface, volume and conditions; summary.csv tells all errors and forces
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) sweep: Option<PathBuf>,

    /// Print what lets a shell complete the options, and stop: bash, zsh, fish, elvish or powershell
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub(crate) completions: Option<clap_complete::Shell>,
}

/// How forces are told. They are computed where the surface is a mesh and a field of it is a pressure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ForceArguments {
    /// Area of the coefficients of forces; without one there are forces alone
    #[arg(long, value_name = "AREA", allow_negative_numbers = true)]
    pub(crate) reference_area: Option<f64>,
    /// Speed of the free stream, for coefficients [default: 1]
    #[arg(long, value_name = "SPEED", allow_negative_numbers = true)]
    pub(crate) reference_speed: Option<f64>,
    /// Length of the coefficients of moments [default: 1]
    #[arg(long, value_name = "LENGTH", allow_negative_numbers = true)]
    pub(crate) reference_length: Option<f64>,
    /// Density, for coefficients; pressures that are coefficients already take 2 with speed 1 [default: 1]
    #[arg(long, value_name = "DENSITY", allow_negative_numbers = true)]
    pub(crate) density: Option<f64>,
    /// Direction of drag [default: 1,0,0]
    #[arg(long, value_name = "X,Y,Z", allow_hyphen_values = true)]
    pub(crate) drag_axis: Option<Vector>,
    /// Direction of lift, perpendicular to it [default: 0,0,1]
    #[arg(long, value_name = "X,Y,Z", allow_hyphen_values = true)]
    pub(crate) lift_axis: Option<Vector>,
    /// Point that moments are taken about [default: 0,0,0]
    #[arg(long, value_name = "X,Y,Z", allow_hyphen_values = true)]
    pub(crate) moment_about: Option<Vector>,
}

impl ForceArguments {
    /// The reference, with what is not given taken from another.
    pub(crate) fn reference(&self, usual: Reference) -> Result<Reference> {
        let axis = |given: &Option<Vector>, usual: Vec3| given.as_ref().map_or(usual, |Vector(vector)| *vector);
        let reference = Reference {
            area: self.reference_area.or(usual.area),
            speed: self.reference_speed.unwrap_or(usual.speed),
            density: self.density.unwrap_or(usual.density),
            length: self.reference_length.unwrap_or(usual.length),
            drag_axis: axis(&self.drag_axis, usual.drag_axis),
            lift_axis: axis(&self.lift_axis, usual.lift_axis),
            moment_about: axis(&self.moment_about, usual.moment_about),
        };
        reference.checked()
    }
}

/// Three numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vector(pub(crate) Vec3);

impl FromStr for Vector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers =
            text.split(',').map(|number| number.trim().parse::<f64>().ok().filter(|number| number.is_finite()));
        let numbers: Option<Vec<f64>> = numbers.collect();
        let vector = numbers.and_then(|numbers| Vec3::try_from(numbers).ok());
        vector.map(Self).with_context(|| format!("expected three finite numbers as in 1,0,0, got '{text}'"))
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArguments {
    /// Weights: .safetensors, a sharded .safetensors.index.json, or a PyTorch .th file
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Which weights of a PyTorch file to take, by the name of their dictionary such as ema_state_dict [default: the only
    /// ones]
    #[arg(long, value_name = "KEY", requires = "weights")]
    pub(crate) weights_key: Option<String>,
    /// Model description as JSON, such as predict/data/ellipsoid.json; `inspect --write-config` writes one to fill in
    /// [default: the one in a .th file]
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) config: Option<PathBuf>,
    /// Normalisation statistics: JSON as the entry "normalisation" of predict/data/ellipsoid.json, or YAML or JSON with
    /// the keys <domain>_<field>_mean, <domain>_<field>_std, raw_pos_min and raw_pos_max [default: those in --config]
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) stats: Option<PathBuf>,
    /// Which way round untied square weights are stored [default: what the description says; plain for a .th file, which
    /// does not say it]
    #[arg(long, value_enum, requires = "weights")]
    pub(crate) square_banks: Option<StoredSquareBanks>,
    /// The body: a surface (.stl, .obj, .ply, .vtp, .vtu, .pvtp, .pvtu, .vtk) or points (.npy, .npz, .safetensors, .pt,
    /// .th; with #name for one of several arrays)
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) geometry: Option<String>,
    /// Where to predict the surface fields, same formats [default: the vertices of --geometry]
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) surface: Option<String>,
    /// Where to predict the volume fields, same formats [default: in the plane of --slice, if --config tells how anchors of
    /// the volume are drawn]
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub(crate) volume: Option<String>,
    /// Where to predict the fields of any domain, such as wake=points.npy; once for each
    #[arg(long, value_name = "DOMAIN=FILE", requires = "weights")]
    pub(crate) points: Vec<DomainFile>,
    /// Where in meshes to predict: at cells or points [default: cells where the file has cell data, else points]
    #[arg(long, value_enum, requires = "weights")]
    pub(crate) at: Option<Location>,
    /// Factor of the coordinates of --geometry, such as 0.001 for a body in millimetres; or of the points of a domain, as in
    /// volume=0.001; once for each
    #[arg(long, value_name = "[DOMAIN=]FACTOR", requires = "weights")]
    pub(crate) scale: Vec<DomainScale>,
    /// What becomes of points outside the box of the statistics
    #[arg(long, value_enum, requires = "weights", default_value_t = Outside::Refuse)]
    pub(crate) outside: Outside,
    /// An array of whole numbers at the cells of the surface that tells which patch each belongs to; forces are told for
    /// each of them
    #[arg(long, value_name = "ARRAY", requires = "weights")]
    pub(crate) patches: Option<String>,
    /// The field that is the velocity, for streamlines [default: the one that is called so]
    #[arg(long, value_name = "FIELD", requires = "weights")]
    pub(crate) velocity: Option<String>,
    /// Points that the anchors of a domain are drawn from [default: drawn as in training, if --config tells and --geometry
    /// is a mesh; else those where it is predicted]
    #[arg(long, value_name = "DOMAIN=FILE", requires = "weights")]
    pub(crate) anchor_points: Vec<DomainFile>,
    /// True fields at the points of a domain: a .safetensors file with a tensor for each field, or a .npy file for a
    /// domain of one field; or arrays of the mesh that it is predicted on, such as surface=pMean:pressure,tau:shear. The
    /// errors go to metrics.json and into the results
    #[arg(long, value_name = "DOMAIN=FILE", requires = "weights")]
    pub(crate) truth: Vec<DomainFile>,
    /// A condition in physical units, such as speed=30 or design=1.5,0.2; once for each
    #[arg(long, value_name = "NAME=VALUES", requires = "weights")]
    pub(crate) condition: Vec<Condition>,
    /// Points of the geometry that are encoded, drawn from --geometry: evenly over a mesh, or some of the points [default:
    /// as in training, if --config tells; else 16384]
    #[arg(long, value_name = "N", requires = "weights", value_parser = count::<MOST_POINTS>)]
    pub(crate) geometry_points: Option<NonZeroUsize>,
    /// Supernodes among them [default: as in training, if --config tells; else an eighth]
    #[arg(long, value_name = "N", requires = "weights", value_parser = count::<MOST_POINTS>)]
    pub(crate) supernodes: Option<NonZeroUsize>,
    /// A plane to draw the fields of a domain in, such as volume:y=0.5; once for each. Where --geometry is a mesh, the body
    /// is cut out
    /// [default: volume in the middle of y]
    #[arg(long, value_name = "DOMAIN:AXIS=VALUE", requires = "weights")]
    pub(crate) slice: Vec<DomainSlice>,
    /// A line to tell the fields of a domain along, in a CSV file and a picture: both ends and the number of points, such as
    /// volume:0,0,1:2,0,1:200; once for each. What is no domain is a name of the line, which goes through the volume
    #[arg(long, value_name = "DOMAIN:FROM:TO:N", requires = "weights", allow_hyphen_values = true)]
    pub(crate) line: Vec<DomainLine>,
    /// Streamlines of a domain through so many points that lie evenly between two ends, such as volume:-2,0,0:-2,0,1:20, as
    /// a .vtp file; once for each
    #[arg(long, value_name = "DOMAIN:FROM:TO:N", requires = "weights", allow_hyphen_values = true)]
    pub(crate) streamlines: Vec<DomainLine>,
    /// Grid points of a plane of --slice along its longer side
    #[arg(long, value_name = "N", requires = "weights", default_value = "401", value_parser = count::<MOST_ACROSS>)]
    pub(crate) slice_points: NonZeroUsize,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArguments {
    /// Semi-axes along x, y and z
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', num_args = 1, conflicts_with = "weights")]
    #[arg(default_values_t = [1.15, 0.62, 0.81])]
    pub(crate) semi_axes: Vec<f64>,
    /// Angle of attack in degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 12.0, allow_negative_numbers = true)]
    #[arg(conflicts_with = "weights")]
    pub(crate) alpha: f64,
    /// Sideslip in degrees
    #[arg(long, value_name = "DEGREES", default_value_t = -7.0, allow_negative_numbers = true)]
    #[arg(conflicts_with = "weights")]
    pub(crate) beta: f64,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ComputeArguments {
    /// Anchor points per domain [default: the most that the network was trained on, if --config tells; else 1024]
    #[arg(long, value_name = "N", value_parser = count::<MOST_POINTS>)]
    pub(crate) anchors: Option<NonZeroUsize>,
    /// Predict with so many draws of anchors, and write mean and standard deviation of each field: how much the result
    /// depends on them
    #[arg(long, value_name = "N", default_value = "1", requires = "weights", value_parser = count::<MOST_DRAWS>)]
    pub(crate) seeds: NonZeroUsize,
    /// Seed of everything random: geometry points, supernodes and anchors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Points predicted at once
    #[arg(long, value_name = "N", default_value = "16384")]
    pub(crate) chunk: NonZeroU64,
    /// cpu, cuda, cuda:1, metal, or several at once as in cuda:0,1,2,3; cpu:2 has two networks. With cuda, processes that were
    /// started together share the devices of their host
    #[arg(long, default_value_t = Devices::Cpu(1))]
    pub(crate) device: Devices,
    /// Let each device of --device hold the keys of some of the anchors, and all predict the same points: for more anchors than
    /// one device has memory for. The result depends on the number of devices, by rounding errors
    #[arg(long)]
    pub(crate) shard_anchors: bool,
    /// The dtype of weights and activations
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) dtype: Precision,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OutputArguments {
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "prediction")]
    pub(crate) out: PathBuf,
    /// Go on with an interrupted run
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) resume: bool,
    /// Begin again, and replace earlier results when the new ones are complete
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Work on one folder together with other processes of the same command, on this host or others: the first begins or
    /// goes on with an interrupted run, the last finishes
    #[arg(long, conflicts_with_all = ["resume", "overwrite"])]
    pub(crate) join: bool,
    /// Check all input, say what would be written, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write .npz files too
    #[arg(long)]
    pub(crate) npz: bool,
    /// Keep the arrays that meshes came with, beside the predicted ones
    #[arg(long, requires = "weights")]
    pub(crate) keep_arrays: bool,
    /// Compress the arrays of .vtp and .vtu files
    #[arg(long, value_enum)]
    pub(crate) compress: Option<Codec>,
}

impl ComputeArguments {
    /// The devices, at least one.
    ///
    /// # Errors
    /// One is not available, or is alone where several are needed.
    pub(crate) fn open(&self) -> Result<Vec<Device>> {
        let devices = self.device.open()?;
        ensure!(
            !self.shard_anchors || devices.len() > 1,
            "--shard-anchors: --device {} is a single device; it takes several, as in cuda:0,1",
            self.device
        );
        Ok(devices)
    }

    /// What the devices divide among themselves.
    pub(crate) fn division(&self) -> Division {
        if self.shard_anchors { Division::Anchors } else { Division::Points }
    }

    /// What a result depends on, with the division of anchors, whose sums are rounded otherwise.
    pub(crate) fn with_division(&self, identity: Value) -> Map<String, Value> {
        let mut identity = identity.as_object().cloned().unwrap_or_default();
        if self.shard_anchors {
            identity.insert("anchor_shards".to_string(), self.device.count().into());
        }
        identity
    }
}

impl Arguments {
    /// What to do with the results.
    pub(crate) fn settings(&self) -> Settings<'_> {
        Settings {
            folder: &self.output.out,
            existing: self.output.existing(),
            chunk: self.compute.chunk.get(),
            npz: self.output.npz,
            codec: self.output.compress,
            dry_run: self.output.dry_run,
            turn: Turn::default(),
        }
    }
}

impl Arguments {
    /// How a result was asked for, for `run.json`: the command line, the files that it names, the program.
    pub(crate) fn origin(&self) -> Map<String, Value> {
        let model = &self.model;
        let mut files = Map::new();
        let mut note = |option: &str, file: String| {
            files.insert(option.to_string(), Value::String(file));
        };
        let paths = [("weights", &model.weights), ("config", &model.config), ("stats", &model.stats)];
        for (option, path) in paths {
            path.iter().for_each(|path| note(option, path.display().to_string()));
        }
        let names = [("geometry", &model.geometry), ("surface", &model.surface), ("volume", &model.volume)];
        for (option, name) in names {
            name.iter().for_each(|name| note(option, name.clone()));
        }
        let domains = [("points", &model.points), ("anchor_points", &model.anchor_points), ("truth", &model.truth)];
        for (option, given) in domains {
            given.iter().for_each(|DomainFile { domain, file }| note(&format!("{option} {domain}"), file.clone()));
        }
        let command: Vec<String> = std::env::args().collect();
        let program = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        let origin = json!({"program": program, "command": command, "files": files});
        origin.as_object().cloned().unwrap_or_default()
    }
}

impl DemoArguments {
    /// The body and its angles.
    pub(crate) fn case(&self) -> Result<Case> {
        let axes: Vec3 = self.semi_axes.as_slice().try_into().map_err(|_| {
            let got = self.semi_axes.len();
            Error::msg(format!("--semi-axes must be three numbers as in 1.1,0.6,0.8, got {got}"))
        })?;
        Case::new(axes, self.alpha, self.beta)
    }
}

impl OutputArguments {
    /// What to do with earlier results.
    pub(crate) fn existing(&self) -> Existing {
        match (self.resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ if self.join => Existing::Join,
            _ => Existing::Refuse,
        }
    }
}

/// A number of points, which take memory before anything is computed.
fn count<const MOST: usize>(text: &str) -> Result<NonZeroUsize> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST);
    count.with_context(|| format!("expected a whole number from 1 to {MOST}"))
}

/// A condition with its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, values) = text.split_once('=').with_context(|| format!("expected NAME=VALUES, got '{text}'"))?;
        ensure!(!name.is_empty(), "expected NAME=VALUES, got '{text}'");
        let number = |value: &str| {
            let parsed = value.trim().parse::<f64>().ok().filter(|value| value.is_finite());
            parsed.with_context(|| format!("'{name}': expected finite numbers, got '{value}'"))
        };
        Ok(Self { name: name.to_string(), values: values.split(',').map(number).collect::<Result<_>>()? })
    }
}

/// A file for one of the domains of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainFile {
    pub(crate) domain: String,
    pub(crate) file: String,
}

impl FromStr for DomainFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('=').filter(|(domain, file)| !domain.is_empty() && !file.is_empty());
        let (domain, file) = parts.with_context(|| format!("expected DOMAIN=FILE, got '{text}'"))?;
        Ok(Self { domain: domain.to_string(), file: file.to_string() })
    }
}

/// A factor of coordinates, of a domain or of the geometry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DomainScale {
    pub(crate) domain: Option<String>,
    pub(crate) factor: f64,
}

impl FromStr for DomainScale {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (domain, factor) = text.split_once('=').map_or((None, text), |(domain, factor)| (Some(domain), factor));
        let factor = factor.parse::<f64>().ok().filter(|factor| *factor > 0.0 && factor.is_finite());
        let factor = factor.with_context(|| format!("expected [DOMAIN=]FACTOR with a factor above 0, got '{text}'"))?;
        Ok(Self { domain: domain.map(str::to_string), factor })
    }
}

/// A plane across an axis, for one of the domains of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DomainSlice {
    pub(crate) domain: String,
    /// 0 for x, 1 for y, 2 for z.
    pub(crate) axis: usize,
    pub(crate) value: f32,
}

impl FromStr for DomainSlice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (domain, plane) = text.rsplit_once(':')?;
            let (axis, value) = plane.split_once('=')?;
            let axis = ["x", "y", "z"].iter().position(|name| *name == axis)?;
            let value = value.parse::<f32>().ok().filter(|value| value.is_finite())?;
            Some(Self { domain: domain.to_string(), axis, value })
        };
        parse().with_context(|| format!("expected DOMAIN:AXIS=VALUE as in volume:y=0.5, got '{text}'"))
    }
}

/// A line through one of the domains of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DomainLine {
    pub(crate) domain: String,
    pub(crate) from: Vec3,
    pub(crate) to: Vec3,
    /// At least one.
    pub(crate) points: usize,
}

impl FromStr for DomainLine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (rest, points) = text.rsplit_once(':')?;
            let (rest, to) = rest.rsplit_once(':')?;
            let (domain, from) = rest.rsplit_once(':')?;
            let end = |text: &str| text.parse::<Vector>().ok().map(|Vector(vector)| vector);
            let points = points.parse().ok().filter(|points| (1..=MOST_ON_LINE).contains(points))?;
            Some(Self { domain: domain.to_string(), from: end(from)?, to: end(to)?, points })
        };
        parse().with_context(|| {
            let form = "DOMAIN:FROM:TO:N as in volume:0,0,1:2,0,1:200";
            format!("expected {form}, with 1 to {MOST_ON_LINE} points, got '{text}'")
        })
    }
}

/// Which way round untied square weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredSquareBanks {
    /// x W
    Plain,
    /// x Wᵀ
    Transposed,
}

impl From<StoredSquareBanks> for SquareBanks {
    fn from(stored: StoredSquareBanks) -> Self {
        match stored {
            StoredSquareBanks::Plain => Self::Plain,
            StoredSquareBanks::Transposed => Self::Transposed,
        }
    }
}

/// The dtype of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F32,
    F16,
    Bf16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_is_the_sample_of_the_demo() {
        let arguments = parse("predict").unwrap();
        let case = arguments.demo.case().unwrap();
        assert_eq!((case.semi_axes, case.alpha, case.beta), ([1.15, 0.62, 0.81], 12.0, -7.0));
        assert_eq!(arguments.output.existing(), Existing::Refuse);
    }

    #[test]
    fn another_body_is_taken() {
        let case = parse("predict --semi-axes 1.1,0.6,0.8 --alpha 10 --beta -5").unwrap().demo.case().unwrap();
        assert_eq!((case.semi_axes, case.alpha, case.beta), ([1.1, 0.6, 0.8], 10.0, -5.0));
    }

    #[test]
    fn a_model_comes_with_all_it_needs() {
        let line = "predict --weights w.safetensors --config m.json --geometry body.stl --dry-run --volume v.npy \
                    --condition speed=30 --condition design=1.5,-0.2 --device cuda:1 --dtype bf16 --points wake=a=b.npy \
                    --slice wake:x=-0.5";
        let arguments = parse(line).unwrap();
        let [speed, design] = &arguments.model.condition[..] else { panic!("two conditions") };
        assert_eq!((speed.name.as_str(), speed.values.as_slice()), ("speed", &[30.0][..]));
        assert_eq!((design.name.as_str(), design.values.as_slice()), ("design", &[1.5, -0.2][..]));
        assert_eq!(arguments.model.points, [DomainFile { domain: "wake".into(), file: "a=b.npy".into() }]);
        assert_eq!(arguments.model.slice, [DomainSlice { domain: "wake".into(), axis: 0, value: -0.5 }]);
        assert_eq!(arguments.compute.device, Devices::Cuda(Some(vec![1])));
        assert_eq!(arguments.compute.dtype, Precision::Bf16);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let model = "predict --dry-run --weights w --config c --geometry g.stl";
        let cases = [
            ("predict --device tpu".to_string(), "expected cpu, cuda, cuda:INDEX"),
            (
                "predict --dtype f64".to_string(),
                "invalid value 'f64' for '--dtype <DTYPE>'\n  [possible values: f32, f16, bf16]",
            ),
            ("predict --alpha ten".to_string(), "--alpha"),
            ("predict --resume --overwrite".to_string(), "--overwrite"),
            ("predict --join --resume".to_string(), "--resume"),
            ("predict --geometry g.stl".to_string(), "--weights"),
            ("predict --anchors 0".to_string(), "--anchors"),
            ("predict --chunk 0".to_string(), "--chunk"),
            (
                format!("{model} --at faces"),
                "invalid value 'faces' for '--at <AT>'\n  [possible values: cells, points]",
            ),
            (format!("{model} --points wake"), "expected DOMAIN=FILE, got 'wake'"),
            (format!("{model} --truth =f.npy"), "expected DOMAIN=FILE, got '=f.npy'"),
            (format!("{model} --slice volume:w=1"), "expected DOMAIN:AXIS=VALUE as in volume:y=0.5, got 'volume:w=1'"),
            (format!("{model} --slice volume:y=nan"), "expected DOMAIN:AXIS=VALUE"),
            (format!("{model} --line volume:0,0,0:1,0,0:0"), "with 1 to 1048576 points"),
            (format!("{model} --line volume:0,0:1,0,0:9"), "expected DOMAIN:FROM:TO:N"),
            ("predict --drag-axis 1,0".to_string(), "expected three finite numbers as in 1,0,0, got '1,0'"),
            (format!("{model} --semi-axes 1,1,1"), "--semi-axes"),
            (format!("{model} --condition speed"), "expected NAME=VALUES, got 'speed'"),
            (format!("{model} --condition speed=fast"), "'speed': expected finite numbers, got 'fast'"),
            (format!("{model} --condition speed=nan"), "'speed': expected finite numbers, got 'nan'"),
        ];
        for (line, expected) in cases {
            let message = parse(&line).unwrap_err();
            assert!(message.contains(expected), "{line}: {message}");
        }
        let two = parse("predict --semi-axes 1,1").unwrap().demo.case().unwrap_err().to_string();
        assert!(two.contains("three numbers as in 1.1,0.6,0.8, got 2"), "{two}");
    }
}
