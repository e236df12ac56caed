//! Where fields are predicted.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use candle_mixed_attention::models::ab_upt::DomainConfig;

use super::source::Points;
use super::{FlowModel, Source, Team, Truth};
use crate::input::{Input, Location};
use crate::output::{Chunk, Codec, FieldSpec, GridShape, Kept, Part, Predict, Shape};

/// Points where the fields of one domain are predicted.
pub(crate) struct Place {
    /// The name of its files and metrics.
    pub(crate) name: String,
    pub(crate) domain: DomainConfig,
    pub(crate) source: Source,
    /// Whether it is the surface of the body, which forces act on.
    pub(crate) wall: bool,
    /// What the fields should be.
    pub(crate) truth: Option<Truth>,
    /// Which arrays of the mesh go out with it.
    pub(crate) kept: Kept,
}

impl Place {
    /// The predicted fields.
    pub(crate) fn fields(&self) -> Vec<FieldSpec> {
        self.domain.fields.iter().map(|field| FieldSpec::new(&field.name, field.dim)).collect()
    }

    /// All arrays that are written: the fields; their spread if anchors were drawn more than once; of those whose truth is
    /// known the error, and the truth itself where no file has it.
    pub(crate) fn written(&self, draws: usize) -> Vec<FieldSpec> {
        let fields = self.fields();
        let named = |field: &FieldSpec, what: &str| FieldSpec::new(format!("{}_{what}", field.name), field.components);
        let spreads = fields.iter().filter(|_| draws > 1).map(|field| named(field, "spread"));
        let mut written: Vec<_> = fields.iter().cloned().chain(spreads).collect();
        if let Some(truth) = &self.truth {
            let known = || fields.iter().filter(|field| truth.knows(&field.name));
            written.extend(known().map(|field| named(field, "error")));
            if truth.is_exact() {
                written.extend(known().map(|field| named(field, "exact")));
            }
        }
        written
    }

    /// What is written: a mesh and a `.safetensors` file.
    pub(crate) fn part(&self, draws: usize, npz: bool, codec: Option<Codec>) -> Part {
        Part::new(&self.name, self.source.input.len(), self.written(draws), self.shape(), npz, codec)
    }

    fn shape(&self) -> Shape<'_> {
        match &self.source.input {
            Input::Sites(sites) if sites.has_cells() => Shape::Grid(GridShape {
                grid: sites.grid(),
                outline: sites.outline(),
                at: sites.at(),
                kept: &self.kept,
                solid_of_cells: sites.solid_of_cells(),
                solids: sites.solids(),
            }),
            input => input.mesh().into(),
        }
    }

    /// The place of every face of the surface, where its cells are predicted.
    pub(crate) fn cells_of_faces(input: &Input) -> Option<&[u64]> {
        match input {
            Input::Sites(sites) if sites.at() == Location::Cells => {
                sites.surface().map(|surface| surface.cells.as_slice())
            }
            _ => None,
        }
    }

    /// The lengths, areas or volumes that some of the places stand for, if they have any.
    pub(crate) fn sizes(input: &mut Input, areas: Option<&[f64]>, range: Range<u64>) -> Result<Option<Vec<f64>>> {
        match (input, areas) {
            (_, Some(areas)) => Ok(Some(areas[range.start as usize..range.end as usize].to_vec())),
            (Input::Sites(sites), None) if sites.at() == Location::Cells => sites.sizes(range).map(Some),
            _ => Ok(None),
        }
    }

    /// Positions and all written arrays of some points that were read, from the predicted fields.
    fn complete(&mut self, range: Range<u64>, points: Points, mut fields: Vec<Vec<f32>>) -> Result<Chunk> {
        let Points { positions, bounded, dropped } = points;
        if let Some(truth) = &mut self.truth {
            let (mut errors, mut exact) = (Vec::new(), Vec::new());
            for (at, field) in self.domain.fields.iter().enumerate() {
                let Some(values) = truth.read(&field.name, range.clone(), &bounded)? else { continue };
                errors.push(fields[at].iter().zip(&values).map(|(predicted, truth)| predicted - truth).collect());
                exact.push(values);
            }
            fields.extend(errors);
            if truth.is_exact() {
                fields.extend(exact);
            }
        }
        for values in fields.iter_mut().filter(|_| !positions.is_empty()) {
            let components = values.len() / positions.len();
            dropped.iter().for_each(|at| values[at * components..][..components].fill(f32::NAN));
        }
        Ok(Chunk { points: positions, fields })
    }
}

/// A place and what predicts it.
pub(super) struct PlaceModel<'a> {
    place: &'a mut Place,
    by: By<'a>,
}

enum By<'a> {
    One(&'a mut dyn FlowModel),
    /// With the points whose fields are asked for, by the first of them.
    Many(&'a Team, BTreeMap<u64, (Range<u64>, Points)>),
}

impl<'a> PlaceModel<'a> {
    /// One model, which answers at once.
    pub(super) fn one(place: &'a mut Place, model: &'a mut dyn FlowModel) -> Self {
        Self { place, by: By::One(model) }
    }

    /// Models on several devices.
    pub(super) fn many(place: &'a mut Place, team: &'a Team) -> Self {
        Self { place, by: By::Many(team, BTreeMap::new()) }
    }
}

impl Predict for PlaceModel<'_> {
    fn width(&self) -> usize {
        match &self.by {
            By::One(_) => 1,
            By::Many(team, _) => team.width(),
        }
    }

    fn begin(&mut self, range: Range<u64>) -> Result<Option<Chunk>> {
        let points = self.place.source.read(range.clone())?;
        let domain = &self.place.domain.name;
        match &mut self.by {
            By::One(model) => {
                let fields = model.predict(domain, range.start, &points.bounded)?;
                self.place.complete(range, points, fields).map(Some)
            }
            By::Many(team, asked) => {
                team.ask(domain, range.start, points.bounded.clone())?;
                asked.insert(range.start, (range, points));
                Ok(None)
            }
        }
    }

    fn end(&mut self) -> Result<(Range<u64>, Result<Chunk>)> {
        let By::Many(team, asked) = &mut self.by else { bail!("nothing was begun that is not ended") };
        let (first, fields) = team.answer()?;
        let (range, points) = asked.remove(&first).with_context(|| format!("point {first} was not asked for"))?;
        let chunk = fields.and_then(|fields| self.place.complete(range.clone(), points, fields));
        Ok((range, chunk))
    }
}
