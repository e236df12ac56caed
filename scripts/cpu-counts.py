#!/usr/bin/env python3
"""What a tile of attention issues with AVX-512 in f32, counted in the machine code.

    cargo build --release --example mixed_attention
    scripts/cpu-counts.py target/release/examples/mixed_attention [--head-dim 64]

Prints, for each vector of scores (16 queries and a key), the instructions of the three inner loops, and the share of the two
products in what goes to the pipes of 512-bit arithmetic: what the kernel could reach at most of the peak of multiply-adds if
everything else hid behind them.
"""
import argparse
import collections
import re
import subprocess

# Sums that the products keep in registers: keys or channels, and vectors of queries.
ROWS, VECTORS = 8, 3
# Keys of a tile.
KEYS = 128
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")


def functions(binary):
    """The instructions (address, name, operands) of each function that dispatch.rs compiles for AVX-512."""
    command = ["objdump", "-d", "--no-show-raw-insn", binary]
    code, inside = [], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as objdump:
        for line in objdump.stdout:
            if line.endswith(">:\n"):
                if code:
                    yield code
                code, inside = [], "8dispatch6avx512" in line and "bf16" not in line
            elif inside and (match := INSTRUCTION.match(line)):
                code.append((int(match[1], 16), match[2], match[3]))
    if code:
        yield code


def loops(code):
    """The loops of a function that hold no other loop."""
    ends = [(int(operands.split()[0], 16), at) for at, name, operands in code if name[0] == "j" and re.match(r"[0-9a-f]+\s", operands)]
    back = [(start, end) for start, end in ends if code[0][0] <= start < end]
    for start, end in back:
        if not any((start, end) != (a, b) and start <= a and b <= end for a, b in back):
            yield [instruction for instruction in code if start <= instruction[0] <= end]


def kind(name, operands):
    """What an instruction is to the pipes: 512-bit arithmetic, a load, a store, or something else."""
    if "zmm" not in operands:
        return "other"
    if name.startswith(("vmovup", "vmovap", "vmovdq", "vbroadcast")) and "{%k" not in operands:
        if "(" not in operands:
            return "renamed"
        return "load" if operands.endswith("zmm" + operands.rsplit("zmm", 1)[1]) and not operands.endswith(")") else "store"
    return "arithmetic"


def counted(loop):
    return collections.Counter(kind(name, operands) for _, name, operands in loop)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--head-dim", type=int, default=64)
    arguments = parser.parse_args()
    for code in functions(arguments.binary):
        names = collections.Counter(name for _, name, _ in code)
        # The exponentials shift by 23 bits; other dtypes widen their operands.
        if not any(name == "vpslld" and "$0x17" in operands for _, name, operands in code) or names["vpmovzxwd"]:
            continue
        inner = list(loops(code))
        products = [loop for loop in inner if sum(name.startswith("vfmadd") for _, name, _ in loop) == ROWS * VECTORS]
        softmax = [loop for loop in inner if sum(name == "vpslld" for _, name, _ in loop) == VECTORS]
        if len(products) != 2 or len(softmax) != 1:
            continue
        head_dim, vectors = arguments.head_dim, ROWS * VECTORS
        rows = [(title, counted(loop), head_dim / vectors) for title, loop in zip(["K Qᵀ", "Vᵀ P"], products)]
        rows.append(("softmax", counted(softmax[0]), 1 / VECTORS))
        # Not loops: a maximum and a store of each score; each sum of a tile joins the older ones.
        rows.append(("maximum", collections.Counter(arithmetic=1, store=1), 1))
        rows.append(("output", collections.Counter(arithmetic=1, load=1, store=1), head_dim / KEYS))
        print(f"{'':8}" + "".join(f"{kind:>12}" for kind in ("arithmetic", "load", "store", "other")))
        for title, count, share in rows:
            print(f"{title:8}" + "".join(f"{count[kind] * share:12.1f}" for kind in ("arithmetic", "load", "store", "other")))
        arithmetic = [count["arithmetic"] * share for _, count, share in rows]
        print(f"products: {100 * sum(arithmetic[:2]) / sum(arithmetic):.1f} % of the arithmetic")
        return
    raise SystemExit("no kernel found: not a binary of this crate for x86-64, or its loops look different")


if __name__ == "__main__":
    main()
