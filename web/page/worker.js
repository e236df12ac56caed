// Runs the network, so that the page never waits. It gets wishes, the newest of which counts, and posts flows.

import { readTensors } from "./tensors.js";
import { Wasi } from "./wasi.js";

const POINTS_PER_STEP = 4096;

/** Compiled once; an instance that ended is replaced. */
const compiled = WebAssembly.compileStreaming(fetch(new URL("web.wasm", import.meta.url)));

/** What the network says about its inputs: notes and warnings. */
let words = [];
let network = null;
let newest = null;
let wake = () => {};

onmessage = ({ data }) => {
  newest = data;
  wake();
};

async function load() {
  const wasi = new Wasi((line) => words.push(line));
  const instance = await WebAssembly.instantiate(await compiled, { wasi_snapshot_preview1: wasi.imports });
  const calls = instance.exports;
  wasi.memory = calls.memory;
  calls._initialize();
  const ask = (question) => {
    const bytes = new TextEncoder().encode(JSON.stringify(question));
    new Uint8Array(calls.memory.buffer, calls.room_for_question(bytes.length), bytes.length).set(bytes);
    const length = calls.ask();
    const answer = readTensors(new Uint8Array(calls.memory.buffer, calls.answer(), length));
    if (answer.about.error) throw new Refusal(answer.about.error);
    return answer;
  };
  return { wasi, ask };
}

/** What was asked for cannot be; the network is as it was. */
class Refusal extends Error {}

/** Lets messages in, and says whether there is a newer wish. */
const overtaken = () => new Promise((resolve) => setTimeout(() => resolve(newest !== null)));

/** Posts the flow that is wished for at each of its levels, coarse ones first. */
async function predict({ id, body, file, alpha, beta, levels }) {
  for (const [at, level] of levels.entries()) {
    words = [];
    if (file) network.wasi.files.set(file.path, file.bytes);
    const [started, { vertices, ...points }] = [performance.now(), level];
    const shape = file ? { file: { path: file.path, scale: body.scale } } : { ellipsoid: { ...body, vertices } };
    const { about, tensors } = network.ask({ read: { body: shape, alpha, beta, ...points } });
    if (file) network.wasi.files.delete(file.path);
    const read = performance.now();
    const places = about.places.map(({ name, on_body, points, arrays }) => ({
      name,
      onBody: on_body,
      points,
      corners: tensors[`${name}.corners`],
      pointOfCorner: tensors[`${name}.point_of_corner`],
      triangles: tensors[`${name}.triangles`],
      arrays: Object.fromEntries(
        arrays.map(({ name, components }) => [name, { components, values: new Float32Array(points * components) }]),
      ),
    }));
    const all = places.reduce((sum, { points }) => sum + points, 0);
    let [done, seconds] = [0, 0];
    for (;;) {
      if (await overtaken()) return;
      const before = performance.now();
      const { about, tensors } = network.ask({ step: { points: POINTS_PER_STEP } });
      seconds += (performance.now() - before) / 1000;
      if (about.finished) {
        const { streamlines, streamline_ends: streamlineEnds } = tensors;
        const timing = { reading: (read - started) / 1000, predicting: seconds, points: all };
        const last = at === levels.length - 1;
        const flow = { places, streamlines, streamlineEnds, errors: about.errors, words, timing, last };
        postMessage({ id, flow });
        break;
      }
      for (const [name, values] of Object.entries(tensors)) {
        const { components, values: own } = places[about.place].arrays[name];
        own.set(values, about.first * components);
        if (name === Object.keys(places[about.place].arrays)[0]) done += values.length / components;
      }
      postMessage({ id, progress: (at + done / all) / levels.length });
    }
  }
}

async function work() {
  network = await load();
  const { tensors } = network.ask("colours");
  postMessage({ colours: tensors });
  for (;;) {
    while (newest === null) await new Promise((resolve) => (wake = resolve));
    const wish = newest;
    newest = null;
    try {
      await predict(wish);
    } catch (error) {
      postMessage({ id: wish.id, error: error.message, words });
      // Anything else leaves the instance in the middle of something.
      if (!(error instanceof Refusal)) network = await load();
    }
  }
}

work().catch((error) => postMessage({ error: `The network cannot be loaded: ${error.message}`, words }));
