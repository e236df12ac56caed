#!/usr/bin/env python3
"""The workloads of benches/attention in PyTorch.

    pip install torch
    python3 benches/peers/torch_attention.py [--threads 1] [--dtype float32]
    python3 benches/peers/torch_attention.py --device cuda [--ours target/criterion]

On the CPU: per-pattern scaled_dot_product_attention between split and cat, alone and in a layer with its projections;
CPU time, best of several runs. On a GPU: the same with each backend that takes the workload, and as a CUDA graph;
FlexAttention with a compiled block mask; one dense SDPA with a mask. Median time until the device is idle, cold caches.
--ours puts the medians of `cargo bench --features cuda --bench attention -- cuda/` beside them.

GFLOP/s count visible pairs. Every result is compared with f64 before it is timed.
"""
import argparse
import json
import pathlib
import statistics
import time

import torch
import torch.nn.functional as F

from workloads import cpu_workloads, gpu_workloads


def attend(q, k, v, workload, cache, masks=None):
    """One SDPA per pattern: q, k, v are split by group, concatenated, and the results put back in order."""
    names, sizes = zip(*workload.fresh)
    split = lambda x: dict(zip(names, x.split(sizes, dim=2))) if x is not None else {}  # noqa: E731
    queries, keys, values = split(q), split(k), split(v)
    for name, (key, value) in cache.items():
        keys[name], values[name] = key, value
    out = {}
    for index, (asking, seen) in enumerate(workload.patterns):
        asking = [name for name in asking if name in queries]
        y = F.scaled_dot_product_attention(
            torch.cat([queries[name] for name in asking], 2),
            torch.cat([keys[name] for name in seen], 2),
            torch.cat([values[name] for name in seen], 2),
            attn_mask=masks[index] if masks else None,
        )
        out.update(zip(asking, y.split([queries[name].shape[2] for name in asking], dim=2)))
    return torch.cat([out[name] for name in names], 2)


def padding_masks(workload, device):
    """Which keys of each pattern are real, or nothing where all are."""
    if not workload.half_padded:
        return None
    real = [sum((workload.real(name) for name in seen), []) for _, seen in workload.patterns]
    return [torch.tensor(mask, device=device)[None, None, None] for mask in real]


def every_key(k, v, cache):
    """All keys and values: those of the input, or of the cache."""
    if not cache:
        return k, v
    return tuple(torch.cat(parts, 2) for parts in zip(*cache.values()))


def visibility(workload, device):
    """[patterns, keys]: which keys a pattern sees."""
    seen = torch.zeros(len(workload.patterns), workload.keys, dtype=torch.bool, device=device)
    for index, (_, names) in enumerate(workload.patterns):
        for name in names:
            seen[index, workload.places[name]] = torch.tensor(workload.real(name), device=device)
    return seen


def pattern_of_query(workload, device):
    parts = [torch.full((size,), workload.pattern_of(name), device=device) for name, size in workload.fresh]
    return torch.cat(parts)


def worst_error(y, q, k, v, workload, cache, rows=32):
    """Against f64, the first rows of each group."""
    k, v = every_key(k, v, cache)
    seen, worst, at = visibility(workload, q.device), 0.0, 0
    for name, size in workload.fresh:
        rows_of = slice(at, at + min(rows, size))
        at += size
        visible = seen[workload.pattern_of(name)]
        scores = q[:, :, rows_of].double() @ k[:, :, visible].double().transpose(-1, -2) / workload.dim**0.5
        error = (y[:, :, rows_of].double() - scores.softmax(-1) @ v[:, :, visible].double()).abs().max().item()
        worst = error if not error <= worst else worst
    return worst


def operands(workload, dtype, device):
    """Views of one projection, and the cache."""
    qkv = torch.randn(1, workload.tokens, 3, workload.heads, workload.dim, device=device).to(dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    shape = lambda size: (1, workload.heads, size, workload.dim)  # noqa: E731
    random = lambda size: torch.randn(shape(size), device=device).to(dtype)  # noqa: E731
    cache = {name: (random(size), random(size)) for name, size in workload.cached.items()}
    return (q, None, None, cache) if cache else (q, k, v, cache)


# ---- CPU -------------------------------------------------------------------------------------------------------------


def cpu_time(run, seconds=1.5):
    run()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
    return best


def measure_cpu(arguments):
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.dtype}")
    for workload in cpu_workloads():
        hidden = workload.hidden
        q, k, v, cache = operands(workload, dtype, "cpu")
        x = torch.randn(1, workload.tokens, hidden).to(dtype)
        first = torch.nn.Linear(hidden, hidden * (1 if cache else 3)).to(dtype)
        proj = torch.nn.Linear(hidden, hidden).to(dtype)

        def layer():
            parts = first(x).view(1, workload.tokens, -1, workload.heads, workload.dim).permute(2, 0, 3, 1, 4)
            y = attend(*((parts[0], None, None) if cache else parts), workload, cache)
            return proj(y.transpose(1, 2).reshape(1, workload.tokens, hidden))

        run = lambda: attend(q, k, v, workload, cache)  # noqa: E731
        worst = worst_error(run(), q, k, v, workload, cache)
        assert worst < (1e-4 if dtype == torch.float32 else 5e-2), (workload.name, worst)
        core, whole = cpu_time(run), cpu_time(layer)
        rate = workload.flops() / core / 1e9
        times = f"core {core * 1e3:9.3f} ms {rate:7.1f} GF/s   layer {whole * 1e3:9.3f} ms"
        print(f"{workload.name:10} {times}", flush=True)


# ---- GPU -------------------------------------------------------------------------------------------------------------


class ColdCaches:
    def __init__(self):
        self.buffer = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")

    def median(self, run, seconds=1.0):
        """Seconds from the call until the device is idle."""
        for _ in range(3):
            run()
        times, start = [], time.perf_counter()
        while len(times) < 10 or (time.perf_counter() - start < seconds and len(times) < 200):
            self.buffer.zero_()
            torch.cuda.synchronize()
            before = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        return statistics.median(times)


def graph(run):
    """The same work as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        output = run()

    def replay():
        captured.replay()
        return output

    return replay


def per_pattern(backend, captured=False):
    from torch.nn.attention import sdpa_kernel

    def make(q, k, v, workload, cache):
        masks = padding_masks(workload, q.device)

        def run():
            with sdpa_kernel(backend):
                return attend(q, k, v, workload, cache, masks)

        return graph(run) if captured else run

    return make


def flex(q, k, v, workload, cache):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern, seen = pattern_of_query(workload, q.device), visibility(workload, q.device)
    mask = create_block_mask(
        lambda batch, head, query, key: seen[pattern[query], key], None, None, workload.tokens, workload.keys, q.device
    )
    compiled = torch.compile(flex_attention, dynamic=False)
    # The cache is put behind the input before the clock runs: a favour.
    k, v = every_key(k, v, cache)
    return lambda: compiled(q, k, v, block_mask=mask)


def dense(q, k, v, workload, cache):
    if workload.tokens * workload.keys > 1 << 30:
        raise RuntimeError("mask too large")
    mask = visibility(workload, q.device)[pattern_of_query(workload, q.device)]
    k, v = every_key(k, v, cache)
    return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def gpu_peers():
    from torch.nn.attention import SDPBackend

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "mem-efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    for name, backend in backends.items():
        yield name, per_pattern(backend)
        yield f"{name}, graph", per_pattern(backend, captured=True)
    yield "FlexAttention", flex
    yield "dense SDPA", dense


def our_median(folder, dtype, workload, function="fused"):
    """Seconds, from the report of criterion, or nothing."""
    path = pathlib.Path(folder) / f"cuda_{dtype}_{workload.name}" / function / "new" / "estimates.json"
    return json.loads(path.read_text())["median"]["point_estimate"] * 1e-9 if path.exists() else None


def measure_gpu(arguments):
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")
    torch.backends.cuda.matmul.allow_tf32 = False
    caches = ColdCaches()
    for dtype, ours in ((torch.float16, "f16"), (torch.bfloat16, "bf16"), (torch.float32, "f32")):
        for workload in gpu_workloads():
            torch._dynamo.reset()
            q, k, v, cache = operands(workload, dtype, "cuda")
            median = our_median(arguments.ours, ours, workload)
            print(f"\n{ours} {workload.name}: {workload.flops() / 1e9:.1f} GFLOP")
            if median:
                rate = workload.flops() / median / 1e12
                print(f"  {'this crate':24} {median * 1e6:10.1f} µs {rate:7.1f} TFLOP/s")
            else:
                print(f"  {'this crate':24} no report in {arguments.ours}")
            for name, make in gpu_peers():
                try:
                    run = make(q, k, v, workload, cache)
                    worst = worst_error(run(), q, k, v, workload, cache)
                    if not worst < (1e-2 if dtype == torch.float32 else 5e-2):
                        raise RuntimeError(f"off by {worst:.1e}")
                    seconds = caches.median(run)
                except Exception as error:  # a backend that does not take the workload is a result, too
                    reason = str(error).strip().splitlines()
                    print(f"  {name:24} not run: {reason[0][:80] if reason else type(error).__name__}", flush=True)
                    continue
                ratio = f"{seconds / median:5.2f}× ours" if median else ""
                rate = f"{seconds * 1e6:10.1f} µs {workload.flops() / seconds / 1e12:7.1f} TFLOP/s"
                print(f"  {name:24} {rate}  error {worst:.1e}  {ratio}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", help="on the CPU")
    parser.add_argument("--ours", default="target/criterion", help="where criterion left our medians")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with torch.inference_mode():
        measure_gpu(arguments) if arguments.device == "cuda" else measure_cpu(arguments)


if __name__ == "__main__":
    main()
