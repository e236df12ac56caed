#!/usr/bin/env python3
"""The network of benches/ab_upt in PyTorch, with PyTorch's fused attention.

    pip install torch safetensors
    AB_UPT_EXPORT=target/ab_upt cargo bench --bench ab_upt
    python3 benches/peers/torch_ab_upt.py target/ab_upt [--threads 1]

Reads the network, inputs and results that the benchmark wrote, checks that it gets the same fields, and prints CPU and
wall time (best of several runs) of the first pass, of the later pass by the cache, and the peak memory of the process.
"""
import argparse
import json
import pathlib
import resource
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

TOLERANCE = 2e-4


class Layers:
    """Weights below a prefix."""

    def __init__(self, table, prefix=""):
        self.table, self.prefix = table, prefix

    def __truediv__(self, part):
        return Layers(self.table, f"{self.prefix}{part}.")

    def linear(self, name, x):
        return F.linear(x, self.table[f"{self.prefix}{name}.weight"], self.table.get(f"{self.prefix}{name}.bias"))

    def norm(self, name, x, eps=1e-6):
        weight, bias = self.table[f"{self.prefix}{name}.weight"], self.table[f"{self.prefix}{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def wave_numbers(width, coordinates):
    per_axis = width // coordinates // 2 * 2
    return (10_000.0 ** (-torch.arange(0, per_axis, 2, dtype=torch.float64) / per_axis)).float()


def embed(positions, width):
    theta = positions[..., None] * wave_numbers(width, positions.shape[-1])
    waves = torch.cat((theta.sin(), theta.cos()), -1).flatten(-2)
    return F.pad(waves, (0, width - waves.shape[-1]))


def rope_table(positions, head_dim):
    """cos and sin of every pair of channels."""
    theta = (positions[..., None] * wave_numbers(head_dim, positions.shape[-1])).flatten(-2)
    theta = F.pad(theta, (0, head_dim // 2 - theta.shape[-1]))[:, None]
    return theta.cos(), theta.sin()


def rotate(x, table):
    cos, sin = table
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def part_of(table, start, size):
    return tuple(half[:, :, start : start + size] for half in table)


class Network:
    def __init__(self, config, table):
        self.config, self.layers = config, Layers(table)
        self.heads = config["num_heads"]
        self.width = config["hidden_dim"]
        self.domains = [domain["name"] for domain in config["domains"]]

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, queries, keys, values):
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def pool(self, positions, supernodes):
        """Tokens of the supernodes: the mean message of the points within the radius, the first ones by index."""
        pooling, layers = self.config["supernode_pooling"], self.layers / "encoder"
        centres = positions[supernodes]
        targets, points = [], []
        for start in range(0, len(centres), 1024):
            near = torch.cdist(centres[start : start + 1024], positions) <= pooling["radius"]
            near &= near.cumsum(1, dtype=torch.int32) <= pooling["max_degree"]
            target, point = near.nonzero(as_tuple=True)
            targets.append(target + start)
            points.append(point)
        targets, points = torch.cat(targets), torch.cat(points)
        embedded = embed(positions, self.width)
        own = embedded[supernodes]
        messages = torch.cat((embedded[points], own[targets]), -1)
        messages = layers.linear("message.2.project", F.gelu(layers.linear("message.0.project", messages)))
        count = torch.bincount(targets, minlength=len(centres)).clamp(min=1)
        mean = torch.zeros_like(own).index_add_(0, targets, messages) / count[:, None]
        return layers.linear("proj.project", torch.cat((mean, own), -1))[None]

    def feed_forward(self, layers, x):
        return layers.linear("fc2", F.gelu(layers.linear("fc1", x)))

    def self_attention_block(self, layers, x, table):
        attention, y = layers / "attention_block", layers.norm("norm1", x)
        queries, keys, values = (self.split(attention.linear(name, y)) for name in "qkv")
        y = self.attend(rotate(queries, table), rotate(keys, table), values)
        x = x + attention.linear("proj", y)
        return x + self.feed_forward(layers / "mlp", layers.norm("norm2", x))

    def perceiver_block(self, layers, x, table, source):
        """`source` is (tokens, RoPE table) in a first pass, (keys, values) later."""
        attention = layers / "attn"
        queries = rotate(self.split(attention.linear("q", layers.norm("norm1q", x))), table)
        if isinstance(source[1], tuple):
            tokens = layers.norm("norm1kv", source[0])
            keys = rotate(self.split(attention.linear("k", tokens)), source[1])
            source = (keys, self.split(attention.linear("v", tokens)))
        x = x + attention.linear("proj", self.attend(queries, *source))
        return x + self.feed_forward(layers / "mlp", layers.norm("norm2", x)), source

    def mixed_block(self, layers, x, table, kind, groups, cached):
        """`groups`: for each domain (name, anchors in x, queries in x). One attention per domain, or one for all."""
        attention, y = layers / "attention_block" / "mixed_attention", layers.norm("norm1", x)
        queries = rotate(self.split(attention.linear("q", y)), table)
        sizes = [anchors + asking for _, anchors, asking in groups]
        if cached is None:
            keys = rotate(self.split(attention.linear("k", y)), table).split(sizes, 2)
            values = self.split(attention.linear("v", y)).split(sizes, 2)
            cached = {
                name: (key[:, :, :anchors], value[:, :, :anchors])
                for (name, anchors, _), key, value in zip(groups, keys, values)
            }
        everyone = [name for name, _, _ in groups]
        seen = {
            "self": lambda own: [own],
            "cross": lambda own: [name for name in everyone if name != own],
            "joint": lambda own: everyone,
        }[kind]
        if kind == "joint":
            keys, values = (torch.cat([cached[name][i] for name in everyone], 2) for i in range(2))
            y = self.attend(queries, keys, values)
        else:
            parts = []
            for (name, _, _), asking in zip(groups, queries.split(sizes, 2)):
                keys, values = (torch.cat([cached[other][i] for other in seen(name)], 2) for i in range(2))
                parts.append(self.attend(asking, keys, values))
            y = torch.cat(parts, 1)
        x = x + attention.linear("proj", y)
        return x + self.feed_forward(layers / "mlp", layers.norm("norm2", x)), cached

    def encode_geometry(self, positions, supernodes):
        tokens = self.pool(positions, supernodes)
        table = rope_table(positions[supernodes][None], self.width // self.heads)
        for index in range(self.config["geometry_depth"]):
            tokens = self.self_attention_block(self.layers / "geometry_blocks" / index, tokens, table)
        return tokens, table

    def forward(self, anchors, queries, geometry, cache):
        """A first pass without a cache, a later one with; returns the fields and the cache."""
        groups = [(name, anchors[name].shape[1] if anchors else 0, queries[name].shape[1]) for name in self.domains]
        positions = [torch.cat((anchors[name], queries[name]), 1) if anchors else queries[name] for name in self.domains]
        table = rope_table(torch.cat(positions, 1), self.width // self.heads)
        geometry = self.encode_geometry(*geometry) if cache is None else None
        x = []
        for name, points in zip(self.domains, positions):
            layers = self.layers / "domain_biases" / name
            x.append(layers.linear("mlp.2", F.gelu(layers.linear("mlp.0", embed(points, self.width)))))
        x, kept, start = torch.cat(x, 1), [], 0
        for index, kind in enumerate(self.config["physics_blocks"]):
            layers, known = self.layers / "physics_blocks" / index, cache[0][index] if cache else None
            if kind == "perceiver":
                x, known = self.perceiver_block(layers, x, table, known or geometry)
            else:
                x, known = self.mixed_block(layers, x, table, kind, groups, known)
            kept.append(known)
        fields, decoders = {}, {}
        for domain, group in zip(self.config["domains"], groups):
            name, size = group[0], group[1] + group[2]
            y, decoders[name] = x[:, start : start + size], []
            for index in range(domain["decoder_blocks"]):
                layers, known = self.layers / "domain_decoder_blocks" / name / index, cache[1][name][index] if cache else None
                y, known = self.mixed_block(layers, y, part_of(table, start, size), "self", [group], known)
                decoders[name].append(known)
            y, start = (self.layers / "domain_decoder_projections" / name).linear("project", y), start + size
            widths = [field["dim"] for field in domain["fields"]]
            for field, values in zip(domain["fields"], y.split(widths, -1)):
                fields[f"{name}_{field['name']}"] = values[:, : group[1]]
                fields[f"query_{name}_{field['name']}"] = values[:, group[1] :]
        return fields, (kept, decoders)


def best(run, seconds):
    """Best CPU and wall time."""
    cpu, wall, start = [], [], time.perf_counter()
    while len(cpu) < 3 or time.perf_counter() - start < seconds:
        cpu.append(-time.process_time())
        wall.append(-time.perf_counter())
        run()
        cpu[-1] += time.process_time()
        wall[-1] += time.perf_counter()
    return 1e3 * min(cpu), 1e3 * min(wall)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="what AB_UPT_EXPORT named")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure each pass")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    network = Network(json.loads((arguments.folder / "config.json").read_text()), load_file(arguments.folder / "weights.safetensors"))
    case = load_file(arguments.folder / "case.safetensors")
    anchors = {name: case[f"anchors.{name}"] for name in network.domains}
    queries = {name: case[f"queries.{name}"] for name in network.domains}
    geometry = case["geometry.positions"], case["geometry.supernodes"]

    fields, cache = network.forward(anchors, queries, geometry, None)
    for name, values in network.forward(None, queries, None, cache)[0].items():
        if name.startswith("query_"):
            fields[f"later {name}"] = values
    for name, values in fields.items():
        worst = (values - case[f"fields.{name.removeprefix('later ')}"]).abs().max().item()
        assert worst <= TOLERANCE, f"{name}: off by {worst}"
    print(f"{len(fields)} fields agree; PyTorch {torch.__version__}, {arguments.threads} threads")
    runs = {
        "geometry": lambda: network.encode_geometry(*geometry),
        "first pass": lambda: network.forward(anchors, queries, geometry, None),
        "later pass": lambda: network.forward(None, queries, None, cache),
    }
    for name, run in runs.items():
        cpu, wall = best(run, arguments.seconds)
        print(f"{name:12} cpu {cpu:9.1f} ms   wall {wall:9.1f} ms")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
