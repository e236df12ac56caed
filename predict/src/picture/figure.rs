//! A row of panels under a common title.

use anyhow::Result;

use super::canvas::{Canvas, Colour, Rect};
use super::colour::Scale;
use super::curve::CurvePanel;
use super::plane::PlanePanel;
use super::surface::SurfacePanel;
use super::text::{self, Align, Fonts};
use super::ticks;

const PANEL_WIDTH: usize = 620;
const PANEL_HEIGHT: usize = 472;
const HEADER: usize = 92;
const EDGE: usize = 28;
/// Width of the colour bar with its labels.
const BAR_ROOM: f32 = 104.0;
const BAR_WIDTH: f32 = 16.0;

const PAPER: Colour = [1.0, 1.0, 1.0];
const INK: Colour = [0.13, 0.15, 0.19];
const FAINT: Colour = [0.40, 0.43, 0.48];

/// A figure.
pub(crate) struct Figure<'a> {
    /// What is shown.
    pub title: String,
    /// Of which case.
    pub subtitle: String,
    /// From left to right.
    pub panels: Vec<Panel<'a>>,
}

/// One picture with its colour bar.
pub(crate) struct Panel<'a> {
    /// What this panel shows.
    pub title: String,
    /// In small letters beside the title.
    pub note: String,
    /// Beside the colour bar: the quantity and its unit.
    pub label: String,
    /// The colours.
    pub scale: Scale,
    /// The picture.
    pub content: Content<'a>,
}

/// What a panel can show.
pub(crate) enum Content<'a> {
    Surface(SurfacePanel<'a>),
    Plane(PlanePanel<'a>),
    /// Curves, which have no colour bar.
    Curve(CurvePanel<'a>),
}

impl<'a> From<SurfacePanel<'a>> for Content<'a> {
    fn from(panel: SurfacePanel<'a>) -> Self {
        Self::Surface(panel)
    }
}

impl<'a> From<PlanePanel<'a>> for Content<'a> {
    fn from(panel: PlanePanel<'a>) -> Self {
        Self::Plane(panel)
    }
}

impl<'a> From<CurvePanel<'a>> for Content<'a> {
    fn from(panel: CurvePanel<'a>) -> Self {
        Self::Curve(panel)
    }
}

impl Figure<'_> {
    /// The figure as a PNG file.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>> {
        let fonts = Fonts::embedded()?;
        let width = self.panels.len() * PANEL_WIDTH + (self.panels.len() + 1) * EDGE;
        let mut canvas = Canvas::new(width, HEADER + PANEL_HEIGHT + EDGE, PAPER);
        let left = EDGE as f32;
        text::draw(&mut canvas, &fonts.medium, 31.0, [left, 44.0], Align::Left, INK, &self.title);
        text::draw(&mut canvas, &fonts.regular, 20.0, [left, 72.0], Align::Left, FAINT, &self.subtitle);
        for (at, panel) in self.panels.iter().enumerate() {
            let x = EDGE + at * (PANEL_WIDTH + EDGE);
            let (width, height) = (PANEL_WIDTH as f32, PANEL_HEIGHT as f32);
            panel.draw(&mut canvas, Rect { x: x as f32, y: HEADER as f32, width, height }, &fonts);
        }
        canvas.to_png()
    }
}

impl Panel<'_> {
    fn draw(&self, canvas: &mut Canvas, rect: Rect, fonts: &Fonts) {
        text::draw(canvas, &fonts.medium, 22.0, [rect.x, rect.y + 24.0], Align::Left, INK, &self.title);
        let after_title = rect.x + text::width(&fonts.medium, 22.0, &self.title) + 14.0;
        text::draw(canvas, &fonts.regular, 17.0, [after_title, rect.y + 24.0], Align::Left, FAINT, &self.note);
        let (top, width) = (40.0, rect.width - BAR_ROOM);
        let picture = Rect { x: rect.x, y: rect.y + top, width, height: rect.height - top };
        match &self.content {
            Content::Surface(panel) => panel.draw(canvas, picture, &self.scale, fonts, INK),
            Content::Plane(panel) => panel.draw(canvas, picture, &self.scale, fonts, INK),
            Content::Curve(panel) => {
                panel.draw(canvas, Rect { width: rect.width, ..picture }, fonts, INK);
                return;
            }
        }
        let bar = Rect {
            x: rect.x + width + 20.0,
            y: picture.y + 34.0,
            width: BAR_WIDTH,
            height: picture.height - 34.0 - 46.0,
        };
        self.draw_bar(canvas, bar, fonts);
    }

    fn draw_bar(&self, canvas: &mut Canvas, bar: Rect, fonts: &Fonts) {
        let Scale { min, max, .. } = self.scale;
        let value = |y: f32| max - (y - bar.y) / bar.height * (max - min);
        canvas.fill(bar, |_, y| self.scale.colour(value(y)));
        canvas.outline(bar, INK);
        // A long label reaches to the left, not out of the picture.
        let overhang = text::width(&fonts.regular, 18.0, &self.label) - (BAR_ROOM - 20.0);
        let at = [bar.x - overhang.max(0.0), bar.y - 12.0];
        text::draw(canvas, &fonts.regular, 18.0, at, Align::Left, INK, &self.label);
        let values = ticks::ticks(f64::from(min), f64::from(max), 8);
        for (tick, label) in values.iter().zip(ticks::labels(&values)) {
            let y = bar.y + (max - *tick as f32) / (max - min) * bar.height;
            let right = bar.x + bar.width;
            canvas.polyline(&[[right, y], [right + 5.0, y]], 1.0, INK, 1.0);
            text::draw(canvas, &fonts.regular, 17.0, [right + 9.0, y + 5.5], Align::Left, INK, &label);
        }
    }
}
