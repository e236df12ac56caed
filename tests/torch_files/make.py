"""Writes the files of this folder with PyTorch: `pip install torch numpy safetensors && python make.py`.

weights.safetensors holds random weights of the network of config.json under the names of the published checkpoints; the
other files hold the same weights as the PyTorch package stores them.
"""

import collections
import json
import pathlib

import torch
from safetensors.torch import load_file

FOLDER = pathlib.Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text())
WIDTH = CONFIG["hidden_dim"]


def description(domains):
    """The `model_config` of the package for this network."""
    pooling = CONFIG["supernode_pooling"]
    return {
        "kind": "ab_upt",
        "name": "ab_upt",
        "hidden_dim": WIDTH,
        "physics_blocks": CONFIG["physics_blocks"],
        "geometry_depth": CONFIG["geometry_depth"],
        "transformer_block_config": {
            "hidden_dim": WIDTH,
            "num_heads": CONFIG["num_heads"],
            "mlp_hidden_dim": None,
            "mlp_expansion_factor": CONFIG["mlp_hidden_dim"] / WIDTH,
            "layerscale": None,
            "bias": True,
            "eps": 1e-6,
            "use_rope": True,
            "max_wavelength": 10000,
        },
        "supernode_pooling_config": {
            "hidden_dim": WIDTH,
            "input_dim": 3,
            "radius": pooling["radius"],
            "k": None,
            "max_degree": pooling["max_degree"],
            "aggregation": "mean",
            "message_mode": "mlp",
            "input_features_dim": None,
        },
        "init_weights": "truncnormal002",
        **domains,
    }


def new(weights):
    """As release 2026.4.0 stores them, in views of every kind."""
    state = collections.OrderedDict((f"backbone.{name}", tensor) for name, tensor in weights.items())
    # A transposed view, a view into a larger storage, and a parameter.
    name = "backbone.physics_blocks.0.mlp.fc1.weight"
    state[name] = state[name].t().contiguous().t()
    name = "backbone.physics_blocks.0.mlp.fc2.weight"
    state[name] = torch.cat([torch.full((3, state[name].shape[1]), torch.nan), state[name]])[3:]
    name = "backbone.physics_blocks.1.norm1.weight"
    state[name] = torch.nn.Parameter(state[name])
    outputs = {
        domain["name"]: {"output_dims": {field["name"]: field["dim"] for field in domain["fields"]}, "feature_dim": None}
        for domain in CONFIG["domains"]
    }
    depths = {domain["name"]: domain["decoder_blocks"] for domain in CONFIG["domains"]}
    data = {"position_dim": 3, "conditioning_dims": None, "domains": outputs, "use_physics_features": False}
    return {
        "state_dict": state,
        "checkpoint_tag": "latest",
        "training_iteration": {"epoch": 10, "update": 200, "sample": 800},
        "run_id": "a1b2c3",
        "model_config": description({"num_domain_decoder_blocks": depths, "data_specs": data}),
        "config_kind": "AnchorBranchedUPTConfig",
    }


RENAMED = {
    "domain_biases.surface.": "surface_bias.",
    "domain_biases.volume.": "volume_bias.",
    "domain_decoder_blocks.surface.": "surface_decoder_blocks.",
    "domain_decoder_blocks.volume.": "volume_decoder_blocks.",
    "domain_decoder_projections.surface.": "surface_decoder.",
    "domain_decoder_projections.volume.": "volume_decoder.",
}


def old(weights):
    """As the package stored them in March 2026: other names, fused projections."""
    state, fused = collections.OrderedDict(), collections.defaultdict(dict)
    for name, tensor in weights.items():
        for now, then in RENAMED.items():
            name = name.replace(now, then) if name.startswith(now) else name
        layer, _, rest = name.rpartition(".")
        prefix, _, part = layer.rpartition(".")
        perceiver = prefix.endswith(".attn")
        if part in ("k", "v") or (part == "q" and not perceiver):
            fused[f"{prefix}.{'kv' if perceiver else 'qkv'}.{rest}"][part] = tensor
        else:
            state[name] = tensor
    for name, parts in fused.items():
        state[name] = torch.cat([parts[part] for part in ("q", "k", "v") if part in parts])
    outputs = {
        f"{domain['name']}_output_dims": {field["name"]: field["dim"] for field in domain["fields"]}
        for domain in CONFIG["domains"]
    }
    depths = {f"num_{domain['name']}_blocks": domain["decoder_blocks"] for domain in CONFIG["domains"]}
    blocks = ["shared" if block == "self" else block for block in CONFIG["physics_blocks"]]
    config = {**description({**depths, "data_specs": {"position_dim": 3, **outputs}}), "physics_blocks": blocks}
    return {"state_dict": collections.OrderedDict((f"backbone.{k}", v) for k, v in state.items()), "model_config": config}


weights = load_file(FOLDER / "weights.safetensors")
torch.save(new(weights), FOLDER / "new.th")
torch.save(old(weights), FOLDER / "old.th")
torch.save(weights, FOLDER / "bare.pt")
torch.save({"epoch": 3, "lr": 1e-3}, FOLDER / "nothing.pt")
torch.save({"complex": torch.zeros(2, dtype=torch.complex64)}, FOLDER / "complex.pt")
other = {"kind": "transolver", "hidden_dim": 8}
torch.save({"state_dict": {"weight": torch.zeros(2)}, "model_config": other}, FOLDER / "other_model.th")
