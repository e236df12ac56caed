#!/usr/bin/env python3
"""The workloads of benches/attention in MLX, on the GPU of a Mac, beside ours.

    pip install mlx
    python3 benches/peers/mlx_attention.py                  # our bench, then MLX: f16, bf16, f32
    python3 benches/peers/mlx_attention.py --ours LOG       # MLX; ours from a file with what our bench printed

One mx.fast.scaled_dot_product_attention per pattern between split and concatenate, as it is and compiled. Median time
until the device is idle, with cold caches. Our bench is

    cargo bench --features metal --bench attention -- metal/

and its lines stay in target/metal-bench.log. GFLOP/s count visible pairs. Every result is compared with f64 before it is
timed.
"""
import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import time

# f32 as f32, also where the GPU has matrix units for less.
os.environ["MLX_ENABLE_TF32"] = "0"

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

import ours  # noqa: E402
from workloads import gpu_workloads  # noqa: E402

# More than any last cache.
FLUSH_BYTES = 512 << 20
SAMPLED_ROWS = 32


def attend(q, k, v, workload, cache, masks):
    """One attention per pattern: q, k, v are split by group, concatenated, and the results put back in order."""
    names, sizes = zip(*workload.fresh)
    cuts = np.cumsum(sizes)[:-1].tolist()
    split = lambda x: dict(zip(names, mx.split(x, cuts, axis=2))) if x is not None else {}  # noqa: E731
    queries, keys, values = split(q), split(k), split(v)
    for name, (key, value) in cache.items():
        keys[name], values[name] = key, value
    out = {}
    for index, (asking, seen) in enumerate(workload.patterns):
        asking = [name for name in asking if name in queries]
        y = mx.fast.scaled_dot_product_attention(
            mx.concatenate([queries[name] for name in asking], axis=2),
            mx.concatenate([keys[name] for name in seen], axis=2),
            mx.concatenate([values[name] for name in seen], axis=2),
            scale=workload.dim**-0.5,
            mask=masks[index] if masks else None,
        )
        ends = np.cumsum([queries[name].shape[2] for name in asking])[:-1].tolist()
        out.update(zip(asking, mx.split(y, ends, axis=2)))
    return mx.concatenate([out[name] for name in names], axis=2)


def padding_masks(workload):
    """Which keys of each pattern are real, or nothing where all are."""
    if not workload.half_padded:
        return None
    real = [np.concatenate([workload.real(name) for name in seen]) for _, seen in workload.patterns]
    return [mx.array(mask[None, None, None]) for mask in real]


def operands(workload, dtype):
    """Views of one projection, and the cache."""
    qkv = mx.random.normal((1, workload.tokens, 3, workload.heads, workload.dim)).astype(dtype)
    q, k, v = (qkv[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
    random = lambda size: mx.random.normal((1, workload.heads, size, workload.dim)).astype(dtype)  # noqa: E731
    cache = {name: (random(size), random(size)) for name, size in workload.cached.items()}
    mx.eval(q, k, v, *(part for pair in cache.values() for part in pair))
    return (q, None, None, cache) if cache else (q, k, v, cache)


def worst_error(y, q, k, v, workload, cache):
    """Against f64, the first rows of each group."""
    wide = lambda x: np.array(x.astype(mx.float32), dtype=np.float64)  # noqa: E731
    if cache:
        k, v = (mx.concatenate(parts, axis=2) for parts in zip(*cache.values()))
    y, q, k, v = map(wide, (y, q, k, v))
    worst, at = 0.0, 0
    for name, size in workload.fresh:
        rows = slice(at, at + min(SAMPLED_ROWS, size))
        at += size
        seen = workload.patterns[workload.pattern_of(name)][1]
        places = [np.arange(workload.places[key].start, workload.places[key].stop)[workload.real(key)] for key in seen]
        visible = np.concatenate(places)
        scores = q[:, :, rows] @ k[:, :, visible].swapaxes(-1, -2) / workload.dim**0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        want = weights / weights.sum(-1, keepdims=True) @ v[:, :, visible]
        error = np.abs(y[:, :, rows] - want).max()
        worst = error if not error <= worst else worst
    return worst


def median_time(run, flush, seconds=2.0):
    mx.eval(run())
    times, start = [], time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < seconds:
        mx.eval(flush + 1)
        mx.synchronize()
        before = time.perf_counter()
        mx.eval(run())
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def run_our_bench():
    """Prints and keeps what our bench prints; returns the file."""
    root = pathlib.Path(__file__).resolve().parents[2]
    log = root / "target" / "metal-bench.log"
    log.parent.mkdir(exist_ok=True)
    command = ["cargo", "bench", "--features", "metal", "--bench", "attention", "--", "metal/"]
    with log.open("w", encoding="utf-8") as file:
        bench = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for line in bench.stdout:
            print(line, end="", flush=True)
            file.write(line)
    if bench.wait() != 0:
        print("our bench failed: what it measured before is compared")
    return log


def measure(name, dtype, results, flush):
    """The table of one dtype."""
    tolerance = 1e-4 if dtype == mx.float32 else 3e-2
    columns = "".join(f" {title:>33}" for title in ("per pattern", "compiled", "ours"))
    print(f"\n{name:16}{columns}  faster one / ours")
    for workload in gpu_workloads():
        q, k, v, cache = operands(workload, dtype)
        masks = padding_masks(workload)
        run = lambda: attend(q, k, v, workload, cache, masks)  # noqa: E731, B023
        worst = worst_error(run(), q, k, v, workload, cache)
        assert worst <= tolerance, (workload.name, worst)
        peers = [(median_time(peer, flush), worst) for peer in (run, mx.compile(run))]
        mine = results.get((f"metal/{name}/{workload.name}", "fused"))
        cells = [*peers, (mine.seconds, mine.error) if mine else None]
        text = " ".join(cell(entry, workload) for entry in cells)
        ratio = f"{min(seconds for seconds, _ in peers) / mine.seconds:6.2f}" if mine else ""
        print(f"{workload.name:16} {text}  {ratio}", flush=True)


def cell(entry, workload):
    """Time, rate and error."""
    if entry is None:
        return f"{'-':>33}"
    seconds, error = entry
    return f"{seconds * 1e3:9.3f} ms {workload.flops() / seconds / 1e9:6.0f} GF/s ±{error:.0e}".rjust(33)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", default="f16,bf16,f32")
    parser.add_argument("--ours", help="what our bench printed; without it, the bench is run first")
    arguments = parser.parse_args()
    results = ours.read(arguments.ours or run_our_bench())
    mx.random.seed(0)
    flush = mx.zeros((FLUSH_BYTES // 4,))
    chip = mx.device_info()
    print(f"mlx {mx.__version__}, {chip['device_name']} ({chip['architecture']}), macOS {platform.mac_ver()[0]}")
    dtypes = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}
    for name in arguments.dtypes.split(","):
        measure(name, dtypes[name], results, flush)


if __name__ == "__main__":
    main()
