"""Attention by PyTorch's scaled_dot_product_attention, for tests/accuracy/beside_pytorch.rs.

    python benches/peers/torch_accuracy.py data.safetensors

Reads `queries`, `keys` and `values`, and writes `result` into the same file.
"""
import sys

import torch
from safetensors.torch import load_file, save_file


def main():
    file = sys.argv[1]
    data = load_file(file)
    result = torch.nn.functional.scaled_dot_product_attention(data["queries"], data["keys"], data["values"])
    save_file({"result": result.contiguous()}, file)


if __name__ == "__main__":
    main()
