#!/usr/bin/env python3
"""What a tile of attention issues with AVX-512, counted in the machine code.

    cargo build --release --example mixed_attention
    scripts/cpu-counts.py target/release/examples/mixed_attention [--level avx512bf16] [--head-dim 64] [--clocks znver4]

Prints, for each vector of scores (16 queries and a key), the instructions of the three inner loops, and the share of the two
products in what goes to the pipes of 512-bit arithmetic: what the kernel could reach at most of the peak of multiply-adds, or
of dot products, if everything else hid behind them. With --clocks also what LLVM's model of a CPU says that a loop takes.
"""
import argparse
import collections
import re
import subprocess

# Sums that the products keep in registers: keys or channels, and vectors of queries.
ROWS, VECTORS = 8, 3
# Keys of a tile.
KEYS = 128
# For each level the function that dispatch.rs compiles for it, its product, and numbers in a word.
LEVELS = {"avx512": ("8dispatch6avx512", "vfmadd", 1), "avx512bf16": ("8dispatch11avx512_bf16", "vdpbf16ps", 2)}
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
KINDS = ("arithmetic", "load", "store", "other")
# Iterations that the model runs.
ITERATIONS = 1000


def functions(binary, symbol):
    """The instructions (address, name, operands) of each function of a level."""
    command = ["objdump", "-d", "--no-show-raw-insn", binary]
    code, inside = [], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as objdump:
        for line in objdump.stdout:
            if line.endswith(">:\n"):
                if code:
                    yield code
                code, inside = [], symbol in line
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


def clocks(loop, cpu):
    """What the model of a CPU says that one round of a loop takes.

    The model of Zen 4 is corrected where a machine has been faster than it allows: a broadcast from memory is a load, and a dot
    product takes as long as a multiply-add.
    """
    lines = [f"{name} {re.sub(r'[<#].*', '', operands)}" for _, name, operands in loop[:-1]]
    text = "\n".join(lines + ["dec %rcx"])
    if cpu == "znver4":
        text = re.sub(r"vbroadcastss (?=.*\()", "vmovups ", text).replace("vdpbf16ps", "vfmadd231ps")
    command = ["llvm-mca", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    report = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / ITERATIONS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--level", choices=LEVELS, default="avx512")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--clocks", metavar="CPU", help="a name that llvm-mca knows")
    arguments = parser.parse_args()
    symbol, product, numbers = LEVELS[arguments.level]
    for code in functions(arguments.binary, symbol):
        # The exponentials shift by 23 bits; f16 and bf16 that are widened come by vpmovzxwd.
        widened = any(name == "vpmovzxwd" for _, name, _ in code)
        if numbers == 1 and widened or not any(name == "vpslld" and "$0x17" in operands for _, name, operands in code):
            continue
        inner = list(loops(code))
        count = lambda loop, start: sum(name.startswith(start) for _, name, _ in loop)
        products = [loop for loop in inner if count(loop, product) == ROWS * VECTORS]
        softmax = [loop for loop in inner if count(loop, "vpslld") == VECTORS * numbers and count(loop, "vsubps")]
        if len(products) != 2 or len(softmax) != 1:
            continue
        # What a loop is, and how many of its rounds a vector of scores takes.
        share = arguments.head_dim / (ROWS * VECTORS * numbers)
        rows = [("K Qᵀ", products[0], share), ("Vᵀ P", products[1], share), ("softmax", softmax[0], 1 / (VECTORS * numbers))]
        table = [(title, counted(loop), share) for title, loop, share in rows]
        # Not loops: a maximum and a store of each score; each sum of a tile joins the older ones.
        table.append(("maximum", collections.Counter(arithmetic=1, store=1), 1))
        table.append(("output", collections.Counter(arithmetic=1, load=1, store=1), arguments.head_dim / KEYS))
        print(f"{'':8}" + "".join(f"{kind:>12}" for kind in KINDS))
        for title, count, share in table:
            print(f"{title:8}" + "".join(f"{count[kind] * share:12.1f}" for kind in KINDS))
        arithmetic = [count["arithmetic"] * share for _, count, share in table]
        print(f"products: {100 * sum(arithmetic[:2]) / sum(arithmetic):.1f} % of the arithmetic")
        if arguments.clocks:
            taken = [clocks(loop, arguments.clocks) * share for _, loop, share in rows] + arithmetic[3:]
            for (title, *_), clock in zip(table, taken):
                print(f"{title:8}{clock:12.1f} clocks")
            print(f"products: {100 * sum(taken[:2]) / sum(taken):.1f} % of the clocks")
        return
    raise SystemExit("no kernel found: not a binary of this crate for x86-64, or its loops look different")


if __name__ == "__main__":
    main()
