//! Pixels, and the few shapes that figures are made of.

use anyhow::Result;

/// Red, green and blue from 0 to 1, in sRGB.
pub(super) type Colour = [f32; 3];

/// An axis-aligned rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// A picture.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// A picture of one colour.
    pub(crate) fn new(width: usize, height: usize, background: Colour) -> Self {
        Self { width, height, pixels: vec![background; width * height] }
    }

    /// Mixes a colour into a pixel; outside the picture nothing happens.
    pub(crate) fn blend(&mut self, x: i64, y: i64, colour: Colour, opacity: f32) {
        if (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y) {
            let pixel = &mut self.pixels[y as usize * self.width + x as usize];
            *pixel = mix(*pixel, colour, opacity);
        }
    }

    /// Fills a rectangle; edges between pixels are smooth.
    pub(crate) fn fill(&mut self, rect: Rect, colour: impl Fn(f32, f32) -> Colour) {
        let overlap = |low: f32, high: f32, pixel: i64| {
            ((pixel as f32 + 1.0).min(high) - (pixel as f32).max(low)).clamp(0.0, 1.0)
        };
        for y in rect.y.floor() as i64..=(rect.y + rect.height).floor() as i64 {
            for x in rect.x.floor() as i64..=(rect.x + rect.width).floor() as i64 {
                let opacity = overlap(rect.x, rect.x + rect.width, x) * overlap(rect.y, rect.y + rect.height, y);
                self.blend(x, y, colour(x as f32 + 0.5, y as f32 + 0.5), opacity);
            }
        }
    }

    /// The outline of a rectangle, one pixel wide.
    pub(crate) fn outline(&mut self, rect: Rect, colour: Colour) {
        let Rect { x, y, width, height } = rect;
        for edge in [
            Rect { height: 1.0, ..rect },
            Rect { y: y + height - 1.0, height: 1.0, ..rect },
            Rect { width: 1.0, ..rect },
            Rect { x: x + width - 1.0, width: 1.0, ..rect },
        ] {
            self.fill(edge, |_, _| colour);
        }
    }

    /// A smooth line through points; where its pieces overlap it is not drawn twice.
    pub(crate) fn polyline(&mut self, points: &[[f32; 2]], width: f32, colour: Colour, opacity: f32) {
        let mut covered = std::collections::HashMap::new();
        for piece in points.windows(2) {
            let ([x0, y0], [x1, y1]) = (piece[0], piece[1]);
            let reach = width / 2.0 + 1.0;
            for y in (y0.min(y1) - reach).floor() as i64..=(y0.max(y1) + reach).ceil() as i64 {
                for x in (x0.min(x1) - reach).floor() as i64..=(x0.max(x1) + reach).ceil() as i64 {
                    let distance = distance_to_segment([x as f32 + 0.5, y as f32 + 0.5], piece[0], piece[1]);
                    let coverage = (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                    if coverage > 0.0 {
                        let most = covered.entry((x, y)).or_insert(0f32);
                        *most = most.max(coverage);
                    }
                }
            }
        }
        for ((x, y), coverage) in covered {
            self.blend(x, y, colour, coverage * opacity);
        }
    }

    /// The picture as a PNG file.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>> {
        let bytes: Vec<u8> =
            self.pixels.as_flattened().iter().map(|&channel| (channel * 255.0).round() as u8).collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, u32::try_from(self.width)?, u32::try_from(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(file)
    }
}

/// `from` at 0, `to` at 1.
pub(super) fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    std::array::from_fn(|i| from[i] + (to[i] - from[i]) * share.clamp(0.0, 1.0))
}

fn distance_to_segment(point: [f32; 2], from: [f32; 2], to: [f32; 2]) -> f32 {
    let (along, across) = ([to[0] - from[0], to[1] - from[1]], [point[0] - from[0], point[1] - from[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let share = if length > 0.0 { (along[0] * across[0] + along[1] * across[1]) / length } else { 0.0 };
    let share = share.clamp(0.0, 1.0);
    (across[0] - share * along[0]).hypot(across[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_holds_the_pixels() {
        let mut canvas = Canvas::new(3, 2, [1.0; 3]);
        canvas.blend(1, 0, [1.0, 0.0, 0.0], 1.0);
        canvas.blend(9, 9, [0.0; 3], 1.0);
        let file = canvas.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, [255, 255, 255, 255, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn edges_between_pixels_are_smooth() {
        let mut canvas = Canvas::new(3, 1, [0.0; 3]);
        canvas.fill(Rect { x: 0.5, y: 0.0, width: 1.75, height: 1.0 }, |_, _| [1.0; 3]);
        assert_eq!(canvas.pixels.iter().map(|pixel| pixel[0]).collect::<Vec<_>>(), [0.5, 1.0, 0.25]);
    }
}
