// The part of WASI (preview 1) that the network needs, with files in memory:
// https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md

const OK = 0, BAD_DESCRIPTOR = 8, EXISTS = 20, INVALID = 28, NO_ENTRY = 44, NOT_SUPPORTED = 58;
const DIRECTORY = 3, REGULAR = 4;
const ROOT = 3; // the first descriptor after those of the standard streams
const CREATE = 1, EXCLUSIVE = 4, TRUNCATE = 8; // flags of path_open

/** A process without threads: an object of imports, and the files that it sees. */
export class Wasi {
  /** Where the memory is, once there is one. */
  memory = null;
  /** Bytes by absolute path. */
  files = new Map();

  #open = new Map();
  #next = ROOT + 1;
  #onLine;
  #line = "";

  /** `onLine` is called with each line on standard output and standard error. */
  constructor(onLine) {
    this.#onLine = onLine;
  }

  /** The imports; what is not here says that it is not supported. */
  get imports() {
    const calls = {
      args_sizes_get: (count, size) => this.#numbers(count, 0, size, 0),
      args_get: () => OK,
      environ_sizes_get: (count, size) => this.#numbers(count, 0, size, 0),
      environ_get: () => OK,
      sched_yield: () => OK,
      random_get: (at, length) => {
        // At most so many at once.
        for (let done = 0; done < length; done += 65536) {
          crypto.getRandomValues(this.#bytes(at + done, Math.min(65536, length - done)));
        }
        return OK;
      },
      clock_time_get: (clock, _, at) => {
        const milliseconds = clock === 0 ? Date.now() : performance.now();
        this.#view.setBigUint64(at, BigInt(Math.round(milliseconds * 1e6)), true);
        return OK;
      },
      proc_exit: (code) => {
        throw new Error(`the network ended with code ${code}`);
      },
      fd_prestat_get: (descriptor, at) => (descriptor === ROOT ? this.#numbers(at, 0, at + 4, 1) : BAD_DESCRIPTOR),
      fd_prestat_dir_name: (_, at) => this.#write(at, new TextEncoder().encode("/")),
      fd_fdstat_get: (descriptor, at) => {
        const type = descriptor < ROOT ? 2 : descriptor === ROOT ? DIRECTORY : REGULAR;
        this.#bytes(at, 24).fill(0);
        this.#view.setUint8(at, type);
        this.#bytes(at + 8, 16).fill(0xff); // all rights
        return OK;
      },
      fd_filestat_get: (descriptor, at) => {
        if (descriptor === ROOT) return this.#stat(at, DIRECTORY, 0);
        const file = this.#open.get(descriptor);
        return file ? this.#stat(at, REGULAR, this.#contents(file).length) : BAD_DESCRIPTOR;
      },
      path_filestat_get: (_, __, path, length, at) => {
        const name = this.#path(path, length);
        const bytes = this.files.get(name);
        if (bytes) return this.#stat(at, REGULAR, bytes.length);
        return this.#isFolder(name) ? this.#stat(at, DIRECTORY, 0) : NO_ENTRY;
      },
      path_open: (_, __, path, length, flags, ___, ____, _____, at) => {
        const name = this.#path(path, length);
        const known = this.files.has(name);
        if (!known && !(flags & CREATE)) return NO_ENTRY;
        if (known && flags & EXCLUSIVE) return EXISTS;
        if (!known || flags & TRUNCATE) this.files.set(name, new Uint8Array());
        this.#open.set(this.#next, { name, position: 0 });
        this.#view.setUint32(at, this.#next, true);
        this.#next += 1;
        return OK;
      },
      path_unlink_file: (_, path, length) => (this.files.delete(this.#path(path, length)) ? OK : NO_ENTRY),
      fd_close: (descriptor) => (this.#open.delete(descriptor) ? OK : BAD_DESCRIPTOR),
      fd_sync: () => OK,
      fd_seek: (descriptor, offset, from, at) => {
        const file = this.#open.get(descriptor);
        if (!file) return BAD_DESCRIPTOR;
        const base = [0, file.position, this.#contents(file).length][from];
        const position = base + Number(offset);
        if (!(position >= 0)) return INVALID;
        file.position = position;
        this.#view.setBigUint64(at, BigInt(position), true);
        return OK;
      },
      fd_read: (descriptor, vectors, count, at) => {
        const file = this.#open.get(descriptor);
        if (!file) return BAD_DESCRIPTOR;
        const read = this.#scatter(file, file.position, vectors, count);
        file.position += read;
        this.#view.setUint32(at, read, true);
        return OK;
      },
      fd_pread: (descriptor, vectors, count, offset, at) => {
        const file = this.#open.get(descriptor);
        if (!file) return BAD_DESCRIPTOR;
        this.#view.setUint32(at, this.#scatter(file, Number(offset), vectors, count), true);
        return OK;
      },
      fd_write: (descriptor, vectors, count, at) => {
        const parts = this.#vectors(vectors, count);
        const length = parts.reduce((sum, part) => sum + part.length, 0);
        if (descriptor < ROOT) {
          parts.forEach((part) => this.#say(new TextDecoder().decode(part)));
        } else {
          const file = this.#open.get(descriptor);
          if (!file) return BAD_DESCRIPTOR;
          const old = this.#contents(file);
          const bytes = new Uint8Array(Math.max(old.length, file.position + length));
          bytes.set(old);
          for (const part of parts) {
            bytes.set(part, file.position);
            file.position += part.length;
          }
          this.files.set(file.name, bytes);
        }
        this.#view.setUint32(at, length, true);
        return OK;
      },
    };
    return new Proxy(calls, { get: (known, name) => known[name] ?? (() => NOT_SUPPORTED), has: () => true });
  }

  // Growing the memory replaces its buffer.
  get #view() {
    return new DataView(this.memory.buffer);
  }

  #bytes(at, length) {
    return new Uint8Array(this.memory.buffer, at, length);
  }

  #write(at, bytes) {
    this.#bytes(at, bytes.length).set(bytes);
    return OK;
  }

  #numbers(first, firstValue, second, secondValue) {
    this.#view.setUint32(first, firstValue, true);
    this.#view.setUint32(second, secondValue, true);
    return OK;
  }

  #path(at, length) {
    const path = new TextDecoder().decode(this.#bytes(at, length));
    return `/${path}`.replaceAll(/\/(\.?\/)+/g, "/");
  }

  #isFolder(name) {
    const prefix = name.endsWith("/") ? name : `${name}/`;
    return [...this.files.keys()].some((path) => path.startsWith(prefix));
  }

  #contents(file) {
    return this.files.get(file.name) ?? new Uint8Array();
  }

  #stat(at, type, size) {
    this.#bytes(at, 64).fill(0);
    this.#view.setUint8(at + 16, type);
    this.#view.setBigUint64(at + 24, 1n, true); // links
    this.#view.setBigUint64(at + 32, BigInt(size), true);
    return OK;
  }

  #vectors(at, count) {
    const vector = (i) => [this.#view.getUint32(at + 8 * i, true), this.#view.getUint32(at + 8 * i + 4, true)];
    return Array.from({ length: count }, (_, i) => this.#bytes(...vector(i)));
  }

  #scatter(file, position, vectors, count) {
    const contents = this.#contents(file);
    let read = 0;
    for (const part of this.#vectors(vectors, count)) {
      const bytes = contents.subarray(position + read, position + read + part.length);
      part.set(bytes);
      read += bytes.length;
    }
    return read;
  }

  #say(text) {
    const lines = (this.#line + text).split("\n");
    this.#line = lines.pop();
    lines.forEach((line) => this.#onLine(line));
  }
}
