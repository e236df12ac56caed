#!/usr/bin/env python3
"""The workloads of benches/attention in PyTorch.

    pip install torch safetensors
    ATTENTION_EXPORT=target/attention-layers cargo bench --bench attention
    python3 benches/peers/torch_attention.py [--threads 1] [--dtype float32]
    python3 benches/peers/torch_attention.py --device cuda [--ours LOG] [--dtypes f16] [--workloads A,B] [--seconds 0.3]

On the CPU: per-pattern scaled_dot_product_attention between split and cat, alone and in a layer with its projections,
with the weights and inputs that our bench exported; the layer's output is compared with ours. CPU time, best of several
runs.

On a GPU: the same with each backend that takes the workload; FlexAttention with a compiled block mask; each also as a
CUDA graph; one dense SDPA with a mask. Padding is given as a mask, and by gathering the real keys before each call,
since flash attention takes no mask. Median time of a call until the device is idle, with cold caches, and the device's
part of it by events. --ours puts the results of our bench beside them, from a file with what this printed:

    cargo bench --features cuda --bench attention -- cuda/ | tee LOG

GFLOP/s count visible pairs. Every result is compared with f64 before it is timed.
"""
import argparse
import gc
import pathlib
import statistics
import time

import torch
import torch.nn.functional as F

import ours
from workloads import cpu_workloads, gpu_workloads


def attend(q, k, v, workload, cache, masks=None, real=None):
    """One SDPA per pattern: q, k, v are split by group, concatenated, and the results put back in order.

    Padding: `masks` by pattern, or the indices of the `real` keys by pattern.
    """
    names, sizes = zip(*workload.fresh)
    split = lambda x: dict(zip(names, x.split(sizes, dim=2))) if x is not None else {}  # noqa: E731
    queries, keys, values = split(q), split(k), split(v)
    for name, (key, value) in cache.items():
        keys[name], values[name] = key, value
    out = {}
    for index, (asking, seen) in enumerate(workload.patterns):
        asking = [name for name in asking if name in queries]
        seen_keys, seen_values = (torch.cat([parts[name] for name in seen], 2) for parts in (keys, values))
        if real:
            seen_keys, seen_values = (rows.index_select(2, real[index]) for rows in (seen_keys, seen_values))
        y = F.scaled_dot_product_attention(
            torch.cat([queries[name] for name in asking], 2),
            seen_keys,
            seen_values,
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
    from safetensors.torch import load_file

    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.dtype}")
    for workload in cpu_workloads():
        tensors = load_file(pathlib.Path(arguments.layers) / f"{workload.name}.safetensors")
        t = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        cache = {name: (t[f"cache.{name}.keys"], t[f"cache.{name}.values"]) for name in workload.cached}

        def project():
            parts = F.linear(t["x"], t["input.weight"], t["input.bias"])
            parts = parts.view(1, workload.tokens, -1, workload.heads, workload.dim).permute(2, 0, 3, 1, 4)
            return (parts[0], None, None) if cache else parts

        def layer():
            y = attend(*project(), workload, cache)
            return F.linear(y.transpose(1, 2).reshape(t["x"].shape), t["proj.weight"], t["proj.bias"])

        q, k, v = project()
        run = lambda: attend(q, k, v, workload, cache)  # noqa: E731
        worst = worst_error(run(), q, k, v, workload, cache)
        differs = (layer().float() - tensors["output"]).abs().max().item()
        assert worst < tolerance and differs < tolerance, (workload.name, worst, differs)
        core, whole = cpu_time(run), cpu_time(layer)
        rate = workload.flops() / core / 1e9
        times = f"core {core * 1e3:9.3f} ms {rate:7.1f} GF/s   layer {whole * 1e3:9.3f} ms"
        print(f"{workload.name:10} {times}   differs from ours by {differs:.1e}", flush=True)


# ---- GPU -------------------------------------------------------------------------------------------------------------


class ColdCaches:
    def __init__(self, seconds):
        self.buffer = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
        self.seconds = seconds

    def medians(self, run):
        """Seconds from the call until the device is idle, and seconds of the device alone."""
        for _ in range(3):
            run()
        times, start = [], time.perf_counter()
        while len(times) < 10 or (time.perf_counter() - start < self.seconds and len(times) < 200):
            self.buffer.zero_()
            torch.cuda.synchronize()
            before = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        # The host goes through the call while the device still overwrites the caches.
        device_times = []
        for _ in range(20):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            self.buffer.zero_()
            begin.record()
            run()
            end.record()
            end.synchronize()
            device_times.append(begin.elapsed_time(end) * 1e-3)
        return statistics.median(times), statistics.median(device_times)


def graph(run):
    """The same work as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        output = run()

    def replay():
        captured.replay()
        return output

    return replay


def as_graph(make):
    return lambda *operands: graph(make(*operands))


def per_pattern(backend, gathers=False):
    """SDPA per pattern with one backend; padding as masks, or the real keys gathered."""
    from torch.nn.attention import sdpa_kernel

    def make(q, k, v, workload, cache):
        masks = padding_masks(workload, q.device)
        padding = {"masks": masks}
        if gathers:
            padding = {"real": [mask.flatten().nonzero().flatten() for mask in masks]}

        def run():
            with sdpa_kernel(backend):
                return attend(q, k, v, workload, cache, **padding)

        return run

    return make


def with_flash(version, make):
    """The same with another implementation of flash attention, where the package that has it is installed."""

    def made(*operands):
        from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl

        run = make(*operands)

        def activated():
            activate_flash_attention_impl(version)
            try:
                return run()
            finally:
                restore_flash_attention_impl()

        # A graph keeps the kernels that were captured: nothing is switched while the clock runs.
        return graph(activated)

    return made


def flex(q, k, v, workload, cache):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern, seen = pattern_of_query(workload, q.device), visibility(workload, q.device)
    visible = lambda batch, head, query, key: seen[pattern[query], key]  # noqa: E731
    # Compiled, or all pairs would lie in memory.
    mask = create_block_mask(visible, None, None, workload.tokens, workload.keys, q.device, _compile=True)
    compiled = torch.compile(flex_attention, dynamic=False)
    # The cache is put behind the input before the clock runs: a favour.
    k, v = every_key(k, v, cache)
    return lambda: compiled(q, k, v, block_mask=mask)


def dense(q, k, v, workload, cache):
    # The mask as SDPA wants it, made before the clock runs (a favour), and one more to make it.
    needed = workload.tokens * workload.keys * (1 + q.element_size())
    available = free_memory(q.device)
    if needed > available:
        raise RuntimeError(f"the mask needs {needed >> 20} MiB, {available >> 20} MiB are free")
    mask = torch.zeros(workload.tokens, workload.keys, dtype=q.dtype, device=q.device)
    mask.masked_fill_(~visibility(workload, q.device)[pattern_of_query(workload, q.device)], float("-inf"))
    k, v = every_key(k, v, cache)
    return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, None])


def free_memory(device):
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 8 << 30


def gpu_peers(workload, dtype):
    from torch.nn.attention import SDPBackend

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "mem-efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    for name, backend in backends.items():
        yield name, per_pattern(backend)
        yield f"{name}, graph", as_graph(per_pattern(backend))
        if workload.half_padded:
            yield f"{name}, gathered", per_pattern(backend, gathers=True)
            yield f"{name}, gathered, graph", as_graph(per_pattern(backend, gathers=True))
    if dtype != torch.float32:
        newest = per_pattern(backends["flash"], gathers=workload.half_padded)
        yield "flash 3, graph", with_flash("FA3", newest)
    yield "FlexAttention", flex
    yield "FlexAttention, graph", as_graph(flex)
    yield "dense SDPA", dense


def table_line(name, seconds, device_seconds, error, workload, mine=None):
    device = f"{device_seconds * 1e6:10.1f}" if device_seconds else f"{'-':>10}"
    rate = workload.flops() / seconds / 1e12
    ratio = f"  {seconds / mine:5.2f}× ours" if mine else ""
    print(f"  {name:30} {seconds * 1e6:10.1f} µs {device} µs {rate:7.1f} TFLOP/s  error {error:.1e}{ratio}", flush=True)


def measure_gpu_workload(workload, dtype, mine, caches):
    """All peers on one workload, below our result if there is one."""
    torch._dynamo.reset()
    q, k, v, cache = operands(workload, dtype, "cuda")
    for name, make in gpu_peers(workload, dtype):
        try:
            run = make(q, k, v, workload, cache)
            worst = worst_error(run(), q, k, v, workload, cache)
            if not worst < (1e-2 if dtype == torch.float32 else 5e-2):
                raise RuntimeError(f"off by {worst:.1e}")
            seconds, device_seconds = caches.medians(run)
        except Exception as error:  # a backend that does not take the workload is a result, too
            reason = str(error).strip().splitlines()
            print(f"  {name:30} not run: {reason[0][:90] if reason else type(error).__name__}", flush=True)
        else:
            table_line(name, seconds, device_seconds, worst, workload, mine and mine.seconds)
        # Masks and graphs of one peer are no burden of the next.
        run = None
        gc.collect()
        torch.cuda.empty_cache()


def measure_gpu(arguments):
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")
    print("median of a call until the device is idle, and of the device alone")
    torch.backends.cuda.matmul.allow_tf32 = False
    caches = ColdCaches(arguments.seconds)
    results = ours.read(arguments.ours)
    dtypes = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
    for dtype in arguments.dtypes.split(","):
        for workload in gpu_workloads():
            if not workload.name.startswith(tuple(arguments.workloads.split(","))):
                continue
            title = f"cuda/{dtype}/{workload.name}"
            print(f"\n{dtype} {workload.name}: {workload.flops() / 1e9:.1f} GFLOP")
            mine = [(name, result) for (of, name), result in results.items() if of == title and "fused" in name]
            for name, result in mine:
                table_line(f"this crate: {name}", *result, workload)
            if not mine:
                print(f"  {'this crate':30} no result in {arguments.ours}")
            measure_gpu_workload(workload, dtypes[dtype], results.get((title, "fused")), caches)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", help="on the CPU")
    parser.add_argument("--layers", default="target/attention-layers", help="on the CPU: what our bench exported")
    parser.add_argument("--dtypes", default="f16,bf16,f32", help="on a GPU")
    parser.add_argument("--workloads", default="", help="on a GPU: beginnings of names, as A or 'A self,C'")
    parser.add_argument("--seconds", type=float, default=1.0, help="on a GPU: for each peer, at most 200 calls")
    parser.add_argument("--ours", default="target/gpu-check/bench.log", help="what our bench printed")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with torch.inference_mode():
        measure_gpu(arguments) if arguments.device == "cuda" else measure_cpu(arguments)


if __name__ == "__main__":
    main()
