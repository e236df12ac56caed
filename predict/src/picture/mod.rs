//! Pictures of fields, drawn without a display and without the fonts of the system.
//!
//! A figure is a row of panels with a colour bar each: a body in three dimensions, shaded, or a plane with its
//! streamlines. Both are triangles with a value at every corner, drawn by one rasteriser.

mod canvas;
mod cloud;
mod colour;
mod curve;
mod figure;
mod plane;
mod raster;
mod section;
mod streamline;
mod surface;
mod text;
mod ticks;

pub(crate) use colour::{Colormap, Scale};
pub(crate) use curve::CurvePanel;
pub(crate) use figure::{Content, Figure, Panel};
pub(crate) use plane::{PlanePanel, STREAMLINE_SPACING};
pub(crate) use section::{CutPlane, inside, section};
pub(crate) use streamline::PlaneVelocity;
pub(crate) use surface::{OnBody, SurfacePanel};
pub(crate) use ticks::rounded;
