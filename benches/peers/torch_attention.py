#!/usr/bin/env python3
"""The workloads of benches/attention in PyTorch: per-pattern scaled_dot_product_attention between split and cat.

    pip install torch && python3 benches/peers/torch_attention.py [--threads 1] [--dtype float32]

Prints CPU time (best of several runs) and GFLOP/s over visible pairs, for the attention alone and for the layer with
its projections. Every result is compared with a dense masked attention before it is timed, where that fits.
"""
import argparse
import time

import torch
import torch.nn.functional as F


def domains(kind, sizes):
    """Groups (name, size or None if cached) and patterns of anchor attention over surface and volume."""
    groups, members = [], {}
    for branch, (anchors, queries) in zip(("surface", "volume"), sizes):
        members[branch] = [(f"{branch}_anchors", anchors)] + ([(f"{branch}_queries", queries)] if queries else [])
        groups += members[branch]
    anchors = {branch: [f"{branch}_anchors"] for branch in members}
    every = [name for names in anchors.values() for name in names]
    keys = {
        "self": lambda branch: anchors[branch],
        "cross": lambda branch: [name for other in members if other != branch for name in anchors[other]],
        "joint": lambda branch: every,
    }[kind]
    if kind == "joint":
        return groups, [([name for name, _ in groups], every)]
    return groups, [([name for name, _ in members[branch]], keys(branch)) for branch in members]


def workloads():
    even = [(2048, 2048), (2048, 2048)]
    for name, kind in (("W1 self", "self"), ("W2 cross", "cross"), ("W3 joint", "joint")):
        yield name, 192, 3, *domains(kind, even), {}
    yield "W4 ragged", 192, 3, *domains("self", [(1500, 3000), (700, 5003)]), {}
    cached = {"surface_anchors": 2048, "volume_anchors": 2048}
    yield "W5 cached", 192, 3, *domains("self", [(None, 4096), (None, 4096)]), cached
    names = [f"group_{group}" for group in range(16)]
    patterns = [([name], [name] if name == names[0] else [name, names[0]]) for name in names]
    yield "W6 groups", 192, 3, [(name, 256) for name in names], patterns, {}
    yield "DOC", 64, 4, *domains("self", [(100, 50), (80, 60)]), {}


def attend(q, k, v, groups, patterns, cache):
    """One SDPA per pattern: q, k, v are split by group, concatenated, and the results put back in order."""
    sizes = [size for _, size in groups if size is not None]
    fresh = [name for name, size in groups if size is not None]
    split = lambda x: dict(zip(fresh, x.split(sizes, dim=2)))  # noqa: E731
    queries, keys, values = split(q), dict(split(k)) if k is not None else {}, dict(split(v)) if v is not None else {}
    for name, (key, value) in cache.items():
        keys[name], values[name] = key, value
    out = {}
    for asking, seen in patterns:
        asking = [name for name in asking if name in queries]
        y = F.scaled_dot_product_attention(
            torch.cat([queries[name] for name in asking], 2),
            torch.cat([keys[name] for name in seen], 2),
            torch.cat([values[name] for name in seen], 2),
        )
        out.update(zip(asking, y.split([queries[name].shape[2] for name in asking], dim=2)))
    return torch.cat([out[name] for name in fresh], 2)


def dense(q, k, v, groups, patterns, cache):
    """The same by one dense masked attention in f64, for the check."""
    fresh = [(name, size) for name, size in groups if size is not None]
    keys = fresh + [(name, key.shape[2]) for name, (key, _) in cache.items()]
    at, place = 0, {}
    for name, size in keys:
        place[name], at = slice(at, at + size), at + size
    k = torch.cat(([k] if k is not None else []) + [key for key, _ in cache.values()], 2)
    v = torch.cat(([v] if v is not None else []) + [value for _, value in cache.values()], 2)
    mask = torch.zeros(q.shape[2], at, dtype=torch.bool)
    for asking, seen in patterns:
        for name in asking:
            if name in dict(fresh):
                for key in seen:
                    mask[place[name], place[key]] = True
    scores = (q.double() @ k.double().transpose(-1, -2)) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v.double()


def cpu_time(run, seconds=1.5):
    run()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.dtype}")
    with torch.inference_mode():
        for name, hidden, heads, groups, patterns, cached in workloads():
            dim = hidden // heads
            tokens = sum(size for _, size in groups if size is not None)
            x = torch.randn(1, tokens, hidden).to(dtype)
            qkv = torch.nn.Linear(hidden, 3 * hidden).to(dtype)
            q_only, proj = torch.nn.Linear(hidden, hidden).to(dtype), torch.nn.Linear(hidden, hidden).to(dtype)
            cache = {g: tuple(torch.randn(1, heads, n, dim).to(dtype) for _ in "kv") for g, n in cached.items()}
            split_heads = lambda y: y.view(1, tokens, -1, heads, dim).permute(2, 0, 3, 1, 4)  # noqa: E731

            def project():
                return (*split_heads(q_only(x)), None, None) if cached else tuple(split_heads(qkv(x)))

            def layer():
                return proj(attend(*project(), groups, patterns, cache).transpose(1, 2).reshape(1, tokens, hidden))

            q, k, v = project()
            if tokens <= 4096 or cached == {}:
                head = lambda y: None if y is None else y[:, :1]  # noqa: E731
                first = {g: (key[:, :1], value[:, :1]) for g, (key, value) in cache.items()}
                want = dense(head(q), head(k), head(v), groups, patterns, first)
                got = attend(head(q), head(k), head(v), groups, patterns, first)
                worst = (got.double() - want).abs().max().item()
                assert worst < (1e-4 if dtype == torch.float32 else 5e-2), (name, worst)
            size = {g: n for g, n in groups if n is not None} | cached
            fresh = {g for g, n in groups if n is not None}
            pairs = sum(size[a] * size[b] for asking, seen in patterns for a in asking if a in fresh for b in seen)
            core = cpu_time(lambda: attend(q, k, v, groups, patterns, cache))
            whole = cpu_time(layer)
            gflops = 4 * pairs * heads * dim / core / 1e9
            print(f"{name:10} core {core * 1e3:9.3f} ms {gflops:7.1f} GF/s   layer {whole * 1e3:9.3f} ms", flush=True)


if __name__ == "__main__":
    main()
