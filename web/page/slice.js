// A field in the plane across y, with streamlines and the body cut out, on a canvas.

import { colours, context, place, ticks } from "./colour.js";
import { bodyColour, ink } from "./theme.js";

const MARGIN = { left: 40, right: 8, top: 8, bottom: 38 };

/** Rounds in which the field is continued into the body, so that no gap shows between the grid and the outline. */
const CONTINUATION = 3;

export class SliceView {
  #canvas;
  #onProbe;
  #shown = null;
  #cursor = null;

  /** `onProbe` gets the point of the prediction that is pointed at, and where it lies; or null. */
  constructor(canvas, onProbe) {
    [this.#canvas, this.#onProbe] = [canvas, onProbe];
    canvas.addEventListener("pointermove", (event) => this.probe(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerdown", (event) => this.probe(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerleave", () => this.#onProbe(null));
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Shows a field at the points of a plane, streamlines if there are any, and the body where the plane cuts it. */
  show(plane, values, scale, streamlines, body) {
    this.#shown = { grid: gridOf(plane.corners), values, scale, streamlines, outline: sectionOf(body, plane.corners[1]) };
    this.draw();
  }

  draw() {
    if (!this.#shown) return;
    const { grid, values, scale, streamlines, outline } = this.#shown;
    const { drawing, width, height } = context(this.#canvas);
    const frame = this.#frame();
    drawing.imageSmoothingEnabled = true;
    drawing.save();
    drawing.beginPath();
    drawing.rect(frame.left, frame.top, frame.width, frame.height);
    drawing.clip();
    // A value is the middle of its pixel, so that the picture reaches half a pixel beyond the frame.
    const [across, up] = [frame.width / (grid.columns - 1), frame.height / (grid.rows - 1)];
    const [left, top] = [frame.left - across / 2, frame.top - up / 2];
    drawing.drawImage(picture(grid, values, scale), left, top, across * grid.columns, up * grid.rows);
    this.#drawStreamlines(drawing, frame, streamlines);
    this.#drawBody(drawing, frame, outline);
    drawing.restore();
    this.#drawAxes(drawing, frame);
    if (this.#cursor) {
      const [x, y] = frame.onCanvas([grid.x[this.#cursor.column], grid.z[this.#cursor.row]]);
      drawing.strokeRect(x - 4, y - 4, 8, 8);
    }
    return [width, height];
  }

  /** Points at a place of the canvas, in units of the page from its corner. */
  probe(x, y) {
    if (!this.#shown) return;
    const frame = this.#frame();
    const { grid } = this.#shown;
    const column = Math.round(((x - frame.left) / frame.width) * (grid.columns - 1));
    const row = Math.round((1 - (y - frame.top) / frame.height) * (grid.rows - 1));
    this.#tell(column, row);
  }

  #tell(column, row) {
    const { grid } = this.#shown;
    const inside = column >= 0 && row >= 0 && column < grid.columns && row < grid.rows;
    const point = inside ? grid.points[row * grid.columns + column] : -1;
    this.#onProbe(point >= 0 ? { point, at: [grid.x[column], grid.y, grid.z[row]] } : null);
  }

  #onKey(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = steps[event.key];
    if (!step || !this.#shown) return;
    event.preventDefault();
    const { grid } = this.#shown;
    const old = this.#cursor ?? { column: grid.columns >> 2, row: grid.rows >> 1 };
    const within = (at, count) => Math.min(count - 1, Math.max(0, at));
    this.#cursor = { column: within(old.column + step[0], grid.columns), row: within(old.row + step[1], grid.rows) };
    this.draw();
    this.#tell(this.#cursor.column, this.#cursor.row);
  }

  /** Where the plane is on the canvas, with one scale along both axes. */
  #frame() {
    const { x, z } = this.#shown.grid;
    const [low, high] = [[x[0], z[0]], [x.at(-1), z.at(-1)]];
    const extent = [high[0] - low[0], high[1] - low[1]];
    const space = [
      this.#canvas.clientWidth - MARGIN.left - MARGIN.right,
      this.#canvas.clientHeight - MARGIN.top - MARGIN.bottom,
    ];
    const zoom = Math.min(space[0] / extent[0], space[1] / extent[1]);
    const [width, height] = [extent[0] * zoom, extent[1] * zoom];
    const left = MARGIN.left + (space[0] - width) / 2;
    const top = MARGIN.top + (space[1] - height) / 2;
    const onCanvas = ([x, z]) => [left + (x - low[0]) * zoom, top + (high[1] - z) * zoom];
    return { left, top, width, height, low, high, onCanvas };
  }

  #drawStreamlines(drawing, frame, { points, ends }) {
    drawing.strokeStyle = "rgb(255 255 255 / 60%)";
    drawing.lineWidth = 1.2;
    drawing.beginPath();
    let at = 0;
    for (const end of ends) {
      for (let first = true; at < end; at += 1, first = false) {
        const place = frame.onCanvas([points[2 * at], points[2 * at + 1]]);
        if (first) drawing.moveTo(...place);
        else drawing.lineTo(...place);
      }
    }
    drawing.stroke();
  }

  /** Rows of pixels between pairs of crossings with the outline. */
  #drawBody(drawing, frame, outline) {
    const pieces = outline.map((piece) => piece.map(frame.onCanvas));
    drawing.fillStyle = bodyColour();
    const step = 1 / devicePixelRatio;
    for (let y = frame.top; y < frame.top + frame.height; y += step) {
      const crossings = [];
      for (const [[x0, y0], [x1, y1]] of pieces) {
        const middle = y + step / 2;
        if (y0 > middle !== y1 > middle) crossings.push(x0 + ((middle - y0) / (y1 - y0)) * (x1 - x0));
      }
      crossings.sort((a, b) => a - b);
      for (let at = 0; at + 1 < crossings.length; at += 2) {
        drawing.fillRect(crossings[at], y, crossings[at + 1] - crossings[at], step * 1.05);
      }
    }
    drawing.strokeStyle = ink();
    drawing.lineWidth = 1.5;
    drawing.beginPath();
    for (const [from, to] of pieces) {
      drawing.moveTo(...from);
      drawing.lineTo(...to);
    }
    drawing.stroke();
  }

  #drawAxes(drawing, frame) {
    drawing.fillStyle = drawing.strokeStyle = ink();
    drawing.lineWidth = 1;
    drawing.strokeRect(frame.left, frame.top, frame.width, frame.height);
    drawing.font = "12px system-ui, sans-serif";
    drawing.textAlign = "center";
    const bottom = frame.top + frame.height;
    for (const { value, label } of ticks(frame.low[0], frame.high[0], 5)) {
      const [x] = frame.onCanvas([value, 0]);
      drawing.fillRect(x - 0.5, bottom, 1, 4);
      drawing.fillText(label, x, bottom + 16);
    }
    drawing.fillText("x", frame.left + frame.width / 2, bottom + 31);
    drawing.textAlign = "right";
    for (const { value, label } of ticks(frame.low[1], frame.high[1], 4)) {
      const [, y] = frame.onCanvas([0, value]);
      drawing.fillRect(frame.left - 4, y - 0.5, 4, 1);
      drawing.fillText(label, frame.left - 7, y + 4);
    }
    drawing.fillText("z", frame.left - 26, frame.top + frame.height / 2 + 4);
  }
}

/** The grid that points lie on: its coordinates, and the point at each of its places, or −1 in the body. */
function gridOf(corners) {
  const along = (axis) => Float32Array.from(new Set(corners.filter((_, at) => at % 3 === axis))).sort();
  const [x, z] = [along(0), along(2)];
  const column = new Map([...x].map((value, at) => [value, at]));
  const row = new Map([...z].map((value, at) => [value, at]));
  const points = new Int32Array(x.length * z.length).fill(-1);
  for (let at = 0; 3 * at < corners.length; at += 1) {
    points[row.get(corners[3 * at + 2]) * x.length + column.get(corners[3 * at])] = at;
  }
  return { x, z, y: corners[1], columns: x.length, rows: z.length, points };
}

/** A pixel for each place of the grid, from the top down. */
function picture({ columns, rows, points }, values, scale) {
  let field = Float32Array.from(points, (point) => (point < 0 ? NaN : values[point]));
  for (let round = 0; round < CONTINUATION; round += 1) field = continued(field, columns, rows);
  const all = colours(scale);
  const image = new ImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const value = field[row * columns + column];
      if (Number.isNaN(value)) continue;
      const from = place(scale, value);
      image.data.set(all.subarray(from, from + 4), 4 * ((rows - 1 - row) * columns + column));
    }
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Gives every empty place beside full ones the mean of those. */
function continued(field, columns, rows) {
  return field.map((value, at) => {
    if (!Number.isNaN(value)) return value;
    const [row, column] = [Math.floor(at / columns), at % columns];
    let [sum, count] = [0, 0];
    for (let r = Math.max(0, row - 1); r < Math.min(rows, row + 2); r += 1) {
      for (let c = Math.max(0, column - 1); c < Math.min(columns, column + 2); c += 1) {
        const own = field[r * columns + c];
        if (!Number.isNaN(own)) [sum, count] = [sum + own, count + 1];
      }
    }
    return count ? sum / count : NaN;
  });
}

/** The pieces of the line in which a plane across y cuts a body. A corner in the plane counts as above it. */
function sectionOf({ corners, triangles }, y) {
  const pieces = [];
  for (let at = 0; at < triangles.length; at += 3) {
    const ends = [];
    for (let i = 0; i < 3; i += 1) {
      const [a, b] = [3 * triangles[at + i], 3 * triangles[at + ((i + 1) % 3)]];
      const [below, above] = [corners[a + 1] - y, corners[b + 1] - y];
      if (below < 0 === above < 0) continue;
      const share = below / (below - above);
      ends.push([0, 2].map((axis) => corners[a + axis] + share * (corners[b + axis] - corners[a + axis])));
    }
    if (ends.length === 2) pieces.push(ends);
  }
  return pieces;
}
