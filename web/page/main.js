// The page: what its controls ask of the worker, and where what comes back is shown.

import { drawBar, scaleOf, setColours } from "./colour.js";
import { SliceView } from "./slice.js";
import { SurfaceView } from "./surface.js";
import { onTheme } from "./theme.js";

/** How fine a flow is: while a slider moves, and when it rests. */
const COARSE = { anchors: 256, vertices: [23, 48], plane_points: 51 };
const FINE = { anchors: 1024, vertices: [63, 128], plane_points: 201 };

/** Of a body from a file: anchors as in training, its own vertices. */
const OF_FILE = { plane_points: 201 };

/** Names and units of what is shown. Lengths and speeds are those of the model: the free stream has speed 1. */
const LABELS = {
  pressure: "pressure coefficient Cp",
  velocity: "speed |u| / U∞",
  pressure_exact: "exact Cp",
  velocity_exact: "exact |u| / U∞",
  pressure_error: "ΔCp, predicted − exact",
  velocity_error: "|Δu| / U∞",
};
const ERRORS = {
  surface_pressure: "pressure on the body",
  slice_pressure: "pressure in the plane",
  slice_velocity: "velocity in the plane",
};

const find = (id) => document.getElementById(id);
const form = find("controls");
const number = (value) => value.toFixed(4).replace("-", "−");
const at = (place) => `(${place.map((x) => x.toFixed(2).replace("-", "−")).join(", ")})`;

/** What is shown: the flow, and of it arrays as scalars with their scales. */
let flow = null;
let fields = { surface: null, plane: null };
/** The wish that was sent last. */
let wished = 0;
/** A mesh that was opened, or null for the ellipsoid. */
let file = null;

const surface = new SurfaceView(find("surface"), find("triad"), (hit) => {
  find("surface-probe").textContent = hit && fields.surface ? `${number(fields.surface.values[hit.point])} at ${at(hit.at)}` : "";
});
const slice = new SliceView(find("slice"), (hit) => {
  find("slice-probe").textContent = hit && fields.plane ? `${number(fields.plane.values[hit.point])} at ${at(hit.at)}` : "";
});

const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.colours) {
    setColours(data.colours);
    wish();
  } else if (data.error) {
    tellProblem(data.error, data.words);
  } else if (data.id === wished) {
    if (data.progress) find("progress").value = data.progress;
    if (data.flow) showFlow(data.flow);
  }
};
worker.onerror = (event) => tellProblem(event.message ?? "the worker cannot be started", []);

/** Asks for the flow that the controls describe. */
function wish() {
  const value = (name) => Number(form.elements[name].value);
  const stream = { alpha: value("alpha"), beta: value("beta") };
  const ellipsoid = { body: { semi_axes: ["a", "b", "c"].map(value) }, levels: [COARSE, FINE] };
  const opened = { body: { scale: Number(find("scale").value) }, file, levels: [OF_FILE] };
  wished += 1;
  find("progress").value = 0;
  document.body.dataset.state = "predicting";
  worker.postMessage({ id: wished, ...stream, ...(file ? opened : ellipsoid) });
}

function showFlow(next) {
  flow = next;
  const { reading, predicting, points } = flow.timing;
  const speed = Math.round(points / predicting).toLocaleString("en");
  const count = points.toLocaleString("en");
  find("speed").textContent =
    `${count} points, ${speed} points/s on one thread; the body was read in ${reading.toFixed(2)} s`;
  const rows = Object.entries(flow.errors).map(([field, error]) => [ERRORS[field], `${(100 * error).toFixed(2)} %`]);
  find("errors").hidden = rows.length === 0;
  find("errors").tBodies[0].replaceChildren(...rows.map(rowOf));
  const exact = rows.length > 0;
  find("kinds").disabled = !exact;
  if (!exact) form.elements.kind.value = "";
  tellWords(flow.words);
  showFields();
  if (flow.last) document.body.dataset.state = "finished";
}

/** Draws what is chosen of the flow. */
function showFields() {
  if (!flow) return;
  const body = flow.places.find(({ onBody }) => onBody);
  const plane = flow.places.find(({ onBody }) => !onBody);
  const kind = form.elements.kind.value;
  const { field } = Object.fromEntries(new FormData(form));
  const degrees = (name) => (Number(form.elements[name].value) * Math.PI) / 180;
  const [alpha, beta] = [degrees("alpha"), degrees("beta")];
  const stream = [Math.cos(alpha) * Math.cos(beta), Math.sin(beta), Math.sin(alpha) * Math.cos(beta)];

  const shown = (place, field) => {
    const name = kind ? `${field}_${kind}` : field;
    const values = scalars(place.arrays[name]);
    // Predicted and exact fields are compared by one scale.
    const scaled = kind === "exact" ? scalars(place.arrays[field]) : values;
    const isSpeed = field === "velocity";
    const symmetric = !isSpeed && (place.onBody || kind === "error");
    return { values, scale: scaleOf(scaled, symmetric), label: LABELS[name] };
  };
  fields = { surface: shown(body, "pressure"), plane: shown(plane, field) };
  surface.show(body, fields.surface.values, fields.surface.scale, stream);
  const lines = { points: flow.streamlines, ends: flow.streamlineEnds };
  slice.show(plane, fields.plane.values, fields.plane.scale, kind === "error" ? { points: [], ends: [] } : lines, body);
  drawBars();
  // For whoever opens the console, and for tests.
  Object.assign(globalThis, { flow, labels: { surface: fields.surface.label, plane: fields.plane.label } });
}

function drawBars() {
  if (!fields.surface) return;
  drawBar(find("surface-bar"), fields.surface.scale, fields.surface.label);
  drawBar(find("slice-bar"), fields.plane.scale, fields.plane.label);
}

function redraw() {
  surface.draw();
  slice.draw();
  drawBars();
}

/** A scalar as it is, a vector as its length. */
function scalars({ components, values }) {
  if (components === 1) return values;
  const length = (_, at) => Math.hypot(...values.subarray(components * at, components * (at + 1)));
  return Float32Array.from({ length: values.length / components }, length);
}

function rowOf(texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}

/** Notes and warnings of the program. */
function tellWords(words, problem) {
  const item = (text, className) => Object.assign(document.createElement("li"), { textContent: text, className });
  const items = words.filter((word) => word).map((word) => item(word, ""));
  if (problem) items.unshift(item(problem, "error"));
  find("warnings").replaceChildren(...items);
}

function tellProblem(problem, words) {
  tellWords(words, problem);
  find("progress").value = 0;
  document.body.dataset.state = "failed";
}

async function open(chosen) {
  const bytes = new Uint8Array(await chosen.arrayBuffer());
  file = { path: `/opened/${chosen.name}`, bytes };
  find("axes").disabled = true;
  find("back").hidden = false;
  find("surface-title").textContent = `On ${chosen.name}`;
  wish();
}

for (const input of form.querySelectorAll('input[type="range"]')) {
  const output = input.parentElement.querySelector("output");
  const tell = () => {
    const unit = ["alpha", "beta"].includes(input.name) ? "°" : "";
    output.textContent = input.value.replace("-", "−") + unit;
  };
  tell();
  input.addEventListener("input", () => {
    tell();
    wish();
  });
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", ({ target }) => {
  if (target.type === "radio") showFields();
  if (target.id === "scale" && file) wish();
  if (target.id === "file" && target.files.length) open(target.files[0]);
});
find("back").addEventListener("click", () => {
  file = null;
  find("file").value = "";
  find("axes").disabled = false;
  find("back").hidden = true;
  find("surface-title").textContent = "On the body";
  wish();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
addEventListener("resize", redraw);
onTheme(redraw);
