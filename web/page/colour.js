// Which value gets which colour, and the bar that says so.

import { ink } from "./theme.js";

/** Colour maps as lists of colours from 0 to 1; the network has them. */
const maps = { viridis: [], cool_warm: [] };

export function setColours(tensors) {
  for (const [name, channels] of Object.entries(tensors)) {
    maps[name] = Uint8Array.from(channels, (channel) => Math.round(255 * channel));
  }
}

/** A scale for values: about 0 if they have both signs. */
export function scaleOf(values, symmetric) {
  let [min, max] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < min) min = value;
    if (value > max) max = value;
  }
  if (!(min <= max)) [min, max] = [0, 1];
  if (symmetric) [min, max] = [-Math.max(-min, max), Math.max(-min, max)];
  if (min === max) [min, max] = [min - 0.5, max + 0.5];
  return { min, max, map: symmetric ? "cool_warm" : "viridis" };
}

/** Red, green, blue and opacity of 256 colours, one after another. */
export function colours({ map }) {
  return maps[map];
}

/** Where the colour of a value begins among those of its scale. */
export function place({ min, max }, value) {
  return 4 * Math.round(255 * Math.min(1, Math.max(0, (value - min) / (max - min))));
}

/** About so many round numbers between two others. */
export function ticks(min, max, count) {
  const rough = (max - min) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const first = Math.ceil(min / step - 1e-9);
  const all = Array.from({ length: Math.floor(max / step + 1e-9) - first + 1 }, (_, at) => (first + at) * step);
  return all.map((value) => ({ value, label: value.toFixed(digits).replace("-", "−") }));
}

/** Makes a canvas as large as it is shown, and returns what draws in units of the page. */
export function context(canvas) {
  const ratio = devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const drawing = canvas.getContext("2d");
  drawing.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { drawing, width, height };
}

/** Draws the scale with numbers and a name. */
export function drawBar(canvas, scale, label) {
  const { drawing, width } = context(canvas);
  const [left, right, top, high] = [16, width - 16, 4, 12];
  const all = colours(scale);
  for (let x = left; x < right; x += 1) {
    const at = 4 * Math.floor((256 * (x - left)) / (right - left));
    drawing.fillStyle = `rgb(${all[at]} ${all[at + 1]} ${all[at + 2]})`;
    drawing.fillRect(x, top, 1.5, high);
  }
  drawing.fillStyle = drawing.strokeStyle = ink();
  drawing.strokeRect(left, top, right - left, high);
  drawing.font = "12px system-ui, sans-serif";
  drawing.textAlign = "center";
  for (const { value, label } of ticks(scale.min, scale.max, Math.min(6, width / 70))) {
    const x = left + ((value - scale.min) / (scale.max - scale.min)) * (right - left);
    drawing.fillRect(x - 0.5, top + high, 1, 4);
    drawing.fillText(label, x, top + high + 15);
  }
  drawing.fillText(label, (left + right) / 2, top + high + 27);
}
