#!/usr/bin/env python3
"""Tries the candidate tiles of the Metal kernels on a Mac, and prints the rows to put into src/kernels/metal/tiling.rs.

    scripts/metal-sweep.py                        # every candidate of the table, head_dim 64 and 128
    scripts/metal-sweep.py --workloads 'A self'   # one workload

Runs the bench once with the table as it is and once for each candidate, and compares the medians of the fused kernel per
dtype and workload. A candidate is better if it is faster in all workloads that it serves.
"""
import argparse
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
CHOICE = "MIXED_ATTENTION_METAL_TILING"
TILING = (ROOT / "src/kernels/metal/tiling.rs").read_text()
CANDIDATES = int(re.search(r"CANDIDATES: \[Tiling; (\d+)\]", TILING).group(1))
LINE = re.compile(r"metal/(\S+)/(.+?) \| fused \| median ([0-9.]+) µs")


def medians(workloads, candidate=None):
    """Microseconds by dtype and workload, and the row of the candidate."""
    environment = os.environ | ({} if candidate is None else {CHOICE: str(candidate)})
    command = ["cargo", "bench", "--features", "metal", "--bench", "attention", "--"]
    command.append(f"metal/.*/({workloads})/fused$")
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    row = re.search(r"candidate \| (.+)", output)
    found = {(dtype, name): float(time) for dtype, name, time in LINE.findall(output)}
    assert found, f"no line of the fused kernel in:\n{output}"
    return found, row and row.group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="A self|G.*", help="a pattern; A is head_dim 64, G is 128")
    workloads = parser.parse_args().workloads
    subprocess.run(["sw_vers"], check=False)
    subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], check=False)
    table, _ = medians(workloads)
    for candidate in range(CANDIDATES):
        times, row = medians(workloads, candidate)
        # What a candidate does not serve runs as the table says, within the noise of the clock.
        ratios = {key: table[key] / times[key] for key in times}
        print(f"\ncandidate {candidate}: {row}")
        for (dtype, name), ratio in sorted(ratios.items()):
            print(f"  {dtype:5} {name:20} {times[dtype, name]:12.1f} µs, {ratio:.3f} times as fast as the table")
        if max(ratios.values()) > 1.03 and min(ratios.values()) > 0.98:
            print(f"  better; put into tiling.rs: {row}")


if __name__ == "__main__":
    main()
