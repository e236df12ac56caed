// The body with a field on it: WebGL2, turned and zoomed by mouse, fingers and keys.

import { colours } from "./colour.js";

const VERTEX = `#version 300 es
uniform mat4 view;
in vec3 corner;
in vec3 normal;
in float value;
out vec3 place;
out vec3 outward;
out float field;
void main() {
  gl_Position = view * vec4(corner, 1.0);
  place = corner;
  outward = normal;
  field = value;
}`;

const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D colours;
uniform vec2 range;
uniform vec3 eye;
in vec3 place;
in vec3 outward;
in float field;
out vec4 colour;
void main() {
  // Where a body has an edge, the normal of the triangle itself tells the light.
  vec3 flat_ = normalize(cross(dFdx(place), dFdy(place)));
  vec3 smooth_ = normalize(outward);
  vec3 towards = normalize(eye - place);
  vec3 normal = abs(dot(flat_, smooth_)) < 0.9 ? flat_ : smooth_;
  float light = 0.45 + 0.55 * abs(dot(normal, normalize(towards + vec3(0.0, 0.0, 0.6))));
  float at = clamp((field - range.x) / (range.y - range.x), 0.0, 1.0);
  vec3 paint = field == field ? texture(colours, vec2((at * 255.0 + 0.5) / 256.0, 0.5)).rgb : vec3(0.6);
  colour = vec4(paint * light, 1.0);
}`;

const FIRST_VIEW = { yaw: -2.2, pitch: 0.35, distance: 3.2 };
const FIELD_OF_VIEW = 0.6;

export class SurfaceView {
  #canvas;
  #triad;
  #gl;
  #program;
  #mesh = null;
  #view = { ...FIRST_VIEW };
  #centre = [0, 0, 0];
  #reach = 1;
  #stream = [1, 0, 0];
  #onProbe;
  #fingers = new Map();

  /** `onProbe` gets the point of the prediction that is pointed at, and where it lies; or null. */
  constructor(canvas, triad, onProbe) {
    [this.#canvas, this.#triad, this.#onProbe] = [canvas, triad, onProbe];
    const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.#gl = gl;
    this.#program = link(gl);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    for (const size of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, size, gl.LINEAR);
    this.#listen();
  }

  /** Shows a field on a body, in a stream that comes from some direction. */
  show({ corners, pointOfCorner, triangles }, values, scale, stream) {
    const gl = this.#gl;
    const normals = normalsOf(corners, triangles);
    const field = Float32Array.from(pointOfCorner, (point) => values[point]);
    this.#delete();
    this.#mesh = { corners, pointOfCorner, triangles, scale, buffers: [] };
    [this.#stream, this.#centre, this.#reach] = [stream, ...boxOf(corners)];
    for (const [name, size, data] of [["corner", 3, corners], ["normal", 3, normals], ["value", 1, field]]) {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      const place = gl.getAttribLocation(this.#program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
      this.#mesh.buffers.push(buffer);
    }
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
    this.#mesh.buffers.push(buffer);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, colours(scale));
    this.draw();
  }

  draw() {
    const [gl, canvas] = [this.#gl, this.#canvas];
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((x) => Math.round(x * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { eye, axes, matrix } = this.#camera();
    this.#drawTriad(axes);
    if (!this.#mesh) return;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.#program);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.#program, "view"), false, matrix);
    gl.uniform3fv(gl.getUniformLocation(this.#program, "eye"), eye);
    const { min, max } = this.#mesh.scale;
    gl.uniform2f(gl.getUniformLocation(this.#program, "range"), min, max);
    gl.drawElements(gl.TRIANGLES, this.#mesh.triangles.length, gl.UNSIGNED_INT, 0);
  }

  /** Points at a place of the canvas, in units of the page from its corner. */
  probe(x, y) {
    const hit = this.#mesh && this.#hit(x, y);
    this.#onProbe(hit ? { point: this.#mesh.pointOfCorner[hit.corner], at: hit.at } : null);
  }

  #delete() {
    this.#mesh?.buffers.forEach((buffer) => this.#gl.deleteBuffer(buffer));
  }

  /** Where the eye is, its axes (right, up, back), and what takes a point to the screen. */
  #camera() {
    const { yaw, pitch, distance } = this.#view;
    const back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
    const right = [-Math.sin(yaw), Math.cos(yaw), 0];
    const up = cross(back, right);
    const far = distance * this.#reach;
    const eye = this.#centre.map((x, i) => x + far * back[i]);
    const aspect = this.#canvas.clientWidth / this.#canvas.clientHeight;
    const zoom = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const [near, most] = [far / 100, far + 4 * this.#reach];
    const row = (axis, factor) => [...axis.map((x) => factor * x), -factor * dot(axis, eye)];
    const depth = row(back, 1);
    const rows = [
      row(right, zoom / aspect),
      row(up, zoom),
      depth.map((x, i) => (x * (most + near)) / (near - most) + (i === 3 ? (2 * most * near) / (near - most) : 0)),
      depth.map((x) => -x),
    ];
    const matrix = Float32Array.from({ length: 16 }, (_, at) => rows[at % 4][at >> 2]);
    return { eye, axes: [right, up, back], matrix, zoom, aspect };
  }

  #drawTriad([right, up]) {
    const flat = (vector, length) => [length * dot(vector, right), -length * dot(vector, up)];
    const line = (name, vector, colour) => {
      const [[x, y], [tx, ty]] = [flat(vector, 28), flat(vector, 37)];
      return `<line x1="0" y1="0" x2="${x}" y2="${y}" stroke="${colour}" stroke-width="2"/>
        <text x="${tx}" y="${ty + 4}" text-anchor="middle" fill="currentColor">${name}</text>`;
    };
    const axes = [["x", "#d1495b"], ["y", "#3a9d5d"], ["z", "#3b7dd8"]];
    const lines = axes.map(([name, colour], axis) => line(name, [0, 1, 2].map((i) => Number(i === axis)), colour));
    this.#triad.innerHTML = lines.join("") + line("U", this.#stream, "currentColor");
  }

  /** The nearest corner of the first triangle that a ray through the canvas meets, and where it does. */
  #hit(x, y) {
    const { eye, axes: [right, up, back], zoom, aspect } = this.#camera();
    const [across, along] = [(2 * x) / this.#canvas.clientWidth - 1, 1 - (2 * y) / this.#canvas.clientHeight];
    const ray = [0, 1, 2].map((i) => (across * aspect * right[i]) / zoom + (along * up[i]) / zoom - back[i]);
    const { corners, triangles } = this.#mesh;
    const corner = (at) => [corners[3 * at], corners[3 * at + 1], corners[3 * at + 2]];
    let nearest = Infinity, found = null;
    for (let at = 0; at < triangles.length; at += 3) {
      const [a, b, c] = [corner(triangles[at]), corner(triangles[at + 1]), corner(triangles[at + 2])];
      const [u, v, from] = [minus(b, a), minus(c, a), minus(eye, a)];
      const across = cross(ray, v);
      const volume = dot(u, across);
      if (Math.abs(volume) < 1e-12) continue;
      const alongU = dot(from, across) / volume;
      const turned = cross(from, u);
      const alongV = dot(ray, turned) / volume;
      const distance = dot(v, turned) / volume;
      if (alongU < 0 || alongV < 0 || alongU + alongV > 1 || distance <= 0 || distance >= nearest) continue;
      nearest = distance;
      const weights = [1 - alongU - alongV, alongU, alongV];
      found = triangles[at + weights.indexOf(Math.max(...weights))];
    }
    return found === null ? null : { corner: found, at: eye.map((x, i) => x + nearest * ray[i]) };
  }

  #turn(across, along) {
    this.#view.yaw -= across;
    this.#view.pitch = Math.min(1.5, Math.max(-1.5, this.#view.pitch + along));
    this.draw();
  }

  #zoom(factor) {
    this.#view.distance = Math.min(20, Math.max(1.3, this.#view.distance * factor));
    this.draw();
  }

  #listen() {
    const [canvas, fingers] = [this.#canvas, this.#fingers];
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      this.probe(event.offsetX, event.offsetY);
    });
    canvas.addEventListener("pointermove", (event) => {
      const finger = fingers.get(event.pointerId);
      if (!finger) return this.probe(event.offsetX, event.offsetY);
      const [x, y] = [event.offsetX, event.offsetY];
      if (fingers.size === 1) {
        this.#turn((x - finger.x) / 120, (y - finger.y) / 120);
        [finger.x, finger.y] = [x, y];
      } else {
        const before = spread();
        [finger.x, finger.y] = [x, y];
        this.#zoom(before / spread());
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => this.#onProbe(null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(event.deltaY / 600));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const keys = {
        ArrowLeft: () => this.#turn(-0.1, 0),
        ArrowRight: () => this.#turn(0.1, 0),
        ArrowUp: () => this.#turn(0, 0.1),
        ArrowDown: () => this.#turn(0, -0.1),
        "+": () => this.#zoom(0.9),
        "-": () => this.#zoom(1 / 0.9),
        0: () => {
          this.#view = { ...FIRST_VIEW };
          this.draw();
        },
      };
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}

function link(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

/** The middle of the box of points, and how far they reach from it. */
function boxOf(corners) {
  const ends = [0, 1, 2].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (let at = axis; at < corners.length; at += 3) [low, high] = [Math.min(low, corners[at]), Math.max(high, corners[at])];
    return [low, high];
  });
  const reach = Math.hypot(...ends.map(([low, high]) => (high - low) / 2));
  return [ends.map(([low, high]) => (low + high) / 2), reach || 1];
}

/** Normals at corners: the mean over triangles, weighed by their area. */
function normalsOf(corners, triangles) {
  const normals = new Float32Array(corners.length);
  const corner = (at) => [corners[3 * at], corners[3 * at + 1], corners[3 * at + 2]];
  for (let at = 0; at < triangles.length; at += 3) {
    const three = triangles.subarray(at, at + 3);
    const [a, b, c] = [...three].map(corner);
    const normal = cross(minus(b, a), minus(c, a));
    for (const own of three) normal.forEach((x, i) => (normals[3 * own + i] += x));
  }
  return normals;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
