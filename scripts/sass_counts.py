#!/usr/bin/env python3
"""Counts the instructions of one step of each attention kernel's main loop, from its machine code.

    scripts/sass_counts.py check FOLDER TABLE     # fails where a kernel has become worse than its row of the table
    scripts/sass_counts.py write FOLDER TABLE     # the table as the kernels are now

FOLDER holds what cuobjdump --dump-sass says, KERNEL.TARGET.sass, and KERNEL.TARGET.registers, a number. A step is one
full key step without hidden keys or new maxima: of the paths through the loop that meet all matrix instructions and
all copies, the shortest. Counts are divided by the (query, key) pairs that a lane computes in a step, so that tiles of different sizes
can be compared:

    total     everything that is issued
    integer   integer arithmetic, moves, and R2UR, which takes an address to the matrix unit: what is no attention
    float     f32 additions and multiplications; the definition needs 2.0 and a little
    R2UR      of `integer`, as a number per step
    EX2       between the waits for the two products of a step: exponentials that overlap with the second (Hopper only)

Another compiler makes other code: the table says which it is for, and with another one nothing is compared.
"""

import re
import subprocess
import sys
from pathlib import Path

# How far a count may rise above the table before that is a regression: compilers reorder after the smallest change.
TOLERANCE = 0.02
HEADER = ("kernel", "target", "registers", "total", "integer", "float", "R2UR", "EX2")

FLOAT = r"(FFMA|FADD|FMUL)"
INTEGER = (
    r"(IADD|IMAD|LOP3|LEA|SHF|ISETP|SEL|PLOP3|IABS|PRMT|VIADD|I2|P2R|R2P|VIMNMX|IMNMX|SGXT|ISCADD|CS2R|BMSK|MOV|R2UR"
    r"|S2R|S2UR)"
)
MATRIX = r"(HMMA|HGMMA)"
# What a step brings from global memory. What else is read there is for biases, which few calls have, or describes later
# steps: eight threads of a block do that in every eighth step.
COPY = r"LDGSTS"


class Instruction:
    """One line of the disassembly."""

    def __init__(self, address, text):
        self.address = address
        words = text.split()
        self.predicated = words[0].startswith("@")
        self.name = words[1] if self.predicated else words[0]
        # CALL.REL.NOINC is a jump that never returns.
        is_jump = self.name.startswith(("BRA", "CALL.REL.NOINC"))
        target = re.search(r"(0x[0-9a-f]+)$", text) if is_jump else None
        self.target = int(target.group(1), 16) if target else None
        # `BRA.U UP0, …` and `BRA.DIV ~URZ, …` take their condition as an operand.
        operands = text.split(self.name, 1)[1].strip()
        ends = is_jump or self.name == "EXIT"
        self.goes_on = not ends or self.predicated or "," in operands

    def is_a(self, pattern):
        return re.match(pattern + r"\b", self.name) is not None or re.match(pattern + r"\d?\b", self.name) is not None


def parse(text):
    found = re.findall(r"^\s*/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;", text, re.MULTILINE)
    return [Instruction(int(address, 16), body) for address, body in found]


def loops(code):
    """First and last index of every loop with products and exponentials, the smallest first."""
    at = {instruction.address: index for index, instruction in enumerate(code)}
    found = []
    for end, instruction in enumerate(code):
        start = at.get(instruction.target)
        if start is not None and start < end:
            body = code[start : end + 1]
            exponentials = sum(i.name == "MUFU.EX2" for i in body)
            if exponentials >= 8 and any(i.is_a(MATRIX) for i in body):
                found.append((end - start, start, end))
    return [loop[1:] for loop in sorted(found)]


def repetitions(code, start, end, products):
    """How often each instruction of the loop runs per step: inner loops with products make up what is missing. None if
    they cannot."""
    at = {code[index].address: index for index in range(start, end + 1)}
    times = [1] * len(code)
    inner = []
    for index in range(start, end):
        target = at.get(code[index].target)
        if target is not None and start < target <= index and any(i.is_a(MATRIX) for i in code[target : index + 1]):
            inner.append((target, index))
    if not inner:
        return times
    inside = {index for first, last in inner for index in range(first, last + 1)}
    outside = sum(code[i].is_a(MATRIX) for i in range(start, end + 1) if i not in inside)
    once = sum(code[i].is_a(MATRIX) for i in inside)
    times_inside, rest = divmod(products - outside, once)
    if rest or times_inside < 1:
        return None
    for index in inside:
        times[index] = times_inside
    return times


def step_of(code, start, end, times):
    """The instructions of one step, in order: most products and copies first, then the fewest instructions. None if the end
    is reached from elsewhere alone."""
    at = {code[index].address: index for index in range(start, end + 1)}
    best = {start: ((0, 0), None)}
    for index in range(start, end):
        if index not in best:
            continue
        work, issued = best[index][0]
        here = code[index]
        is_work = here.is_a(MATRIX) or here.is_a(COPY)
        cost = (work - is_work * times[index], issued + times[index])
        following = [index + 1] if here.goes_on else []
        target = at.get(here.target)
        if target is not None and target > index:
            following.append(target)
        for after in following:
            if after not in best or cost < best[after][0]:
                best[after] = (cost, index)
    if end not in best:
        return None
    path, index = [], end
    while index is not None:
        path.append(index)
        index = best[index][1]
    return path[::-1]


def tile_of(kernel, root):
    """Pairs of a lane, and matrix instructions, of a step: from the table of tiles."""
    text = (root / "src/kernels/cuda/tiling.rs").read_text()
    _, family, element, head_dim = re.match(r"(mixed_attention)_(sm\d+)_([a-z0-9]+)_(\d+)", kernel).groups()
    if family == "sm90":
        pairs = 64 * 128 // 128
        return pairs, int(head_dim) // 16 + 128 // 16
    size = 4 if element in ("f32", "tf32") else 2
    row = re.search(rf"sm80\({size}, {head_dim}, \((\d+), \d+\), (\d+),", text)
    if row is None:
        raise ValueError(f"{kernel} is in no row of tiling.rs")
    row_tiles, keys = map(int, row.groups())
    depth, terms = (16, 1) if size == 2 else (8, 3 if element == "f32" else 1)
    return row_tiles * 16 * keys // 32, 2 * terms * row_tiles * keys * int(head_dim) // (8 * depth)


def measure(kernel, target, folder, root):
    code = parse((folder / f"{kernel}.{target}.sass").read_text())
    registers = int((folder / f"{kernel}.{target}.registers").read_text())
    pairs, products = tile_of(kernel, root)
    # The smallest loop with the products of a full step: smaller ones are for few keys.
    for loop in loops(code):
        times = repetitions(code, *loop, products)
        step = times and step_of(code, *loop, times)
        if step and sum(times[i] for i in step if code[i].is_a(MATRIX)) == products:
            break
    else:
        raise ValueError(f"{kernel} ({target}): no loop with {products} products")

    def per_step(pattern):
        return sum(times[i] for i in step if pattern is None or code[i].is_a(pattern))

    waits = [place for place, i in enumerate(step) if code[i].name.startswith("WARPGROUP.DEPBAR")]
    between = sum(code[i].name == "MUFU.EX2" for i in step[waits[0] : waits[1]]) if len(waits) > 1 else 0
    counts = [f"{per_step(pattern) / pairs:.2f}" for pattern in (None, INTEGER, FLOAT)]
    return [kernel, target, str(registers), *counts, str(per_step("R2UR")), str(between)]


def compiler():
    text = subprocess.run(["ptxas", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V([0-9.]+)", text).group(1)


def regressions(row, expected):
    """What is worse than the table, in words."""
    worse = []
    for name, now, before in zip(HEADER[2:], row[2:], expected[2:]):
        now, before = float(now), float(before)
        if name == "EX2":
            if now < before:
                worse.append(f"{name} {now:g} instead of {before:g}")
        elif now > before * (1 + (0 if name == "registers" else TOLERANCE)) + 0.005:
            worse.append(f"{name} {now:g} instead of {before:g}")
    return worse


def main():
    command, folder, table = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    root = Path(__file__).resolve().parent.parent
    names = sorted(path.name[: -len(".sass")].rsplit(".", 1) for path in folder.glob("*.sass"))
    rows = [measure(kernel, target, folder, root) for kernel, target in names]
    lines = ["\t".join(row) for row in rows]
    if command == "write":
        table.write_text("\n".join([f"# ptxas {compiler()}", "\t".join(HEADER), *lines]) + "\n")
        return 0
    print("\t".join(HEADER), *lines, sep="\n")
    first, _, *expected = table.read_text().splitlines()
    if first != f"# ptxas {compiler()}":
        print(f"counts are not compared: the table is for {first[2:]}, this is {compiler()}")
        return 0
    expected = {tuple(line.split("\t")[:2]): line.split("\t") for line in expected}
    failed = False
    for row in rows:
        if row[1] not in {target for _, target in expected}:
            continue
        before = expected.get(tuple(row[:2]))
        worse = ["not in the table"] if before is None else regressions(row, before)
        for reason in worse:
            print(f"FAIL {row[0]} ({row[1]}): {reason}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
