#!/usr/bin/env python3
"""Writes a .vtu file of many hexahedra for the figures of BENCHMARKS.md, slab after slab: any size in little memory.

    scripts/large-mesh.py SIDE FILE     # SIDE ** 3 cells with a pressure at each; needs numpy

Corners of a cube of -2 to 2 are moved by waves, so that no two cells are alike. Appended raw data, UInt64 headers, whole
numbers of 32 bits.
"""

import sys

import numpy as np


def main():
    side, path = int(sys.argv[1]), sys.argv[2]
    across = side + 1
    points, cells = across**3, side**3
    if points > 2**31 or 8 * cells > 2**31:
        sys.exit("more than 32 bits count")
    arrays = [
        ("CellData", "p", "Float32", 1, 4 * cells),
        ("Points", "Points", "Float32", 3, 12 * points),
        ("Cells", "connectivity", "Int32", 1, 32 * cells),
        ("Cells", "offsets", "Int32", 1, 4 * cells),
        ("Cells", "types", "UInt8", 1, cells),
    ]
    offset, sections = 0, {}
    for section, name, kind, components, length in arrays:
        sections.setdefault(section, "")
        sections[section] += (
            f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="appended" offset="{offset}"/>'
        )
        offset += 8 + length
    body = "".join(f"<{section}>{text}</{section}>" for section, text in sections.items())
    header = (
        '<VTKFile type="UnstructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64"><UnstructuredGrid>'
        f'<Piece NumberOfPoints="{points}" NumberOfCells="{cells}">{body}</Piece></UnstructuredGrid>'
        '<AppendedData encoding="raw">_'
    )
    y, x = np.meshgrid(np.arange(across), np.arange(across), indexing="ij")
    flat = (np.arange(side)[:, None] * across + np.arange(side)[None, :]).ravel()
    corners = np.array([0, 1, across + 1, across])
    corners = np.concatenate([corners, corners + across * across])

    def point_slab(z):
        at = np.stack([x, y, np.full_like(x, z)], axis=-1) * (4.0 / side) - 2.0
        return (at + 0.2 / side * np.sin(7.0 * at[..., [1, 2, 0]])).astype("<f4")

    slabs = [
        lambda z: np.sin(0.01 * (flat + z)).astype("<f4"),
        point_slab,
        lambda z: (flat[:, None] + z * across * across + corners).astype("<i4"),
        lambda z: (8 * (np.arange(1, side * side + 1) + z * side * side)).astype("<i4"),
        lambda z: np.full(side * side, 12, "u1"),
    ]
    with open(path, "wb") as file:
        file.write(header.encode())
        for (_, name, _, _, length), slab in zip(arrays, slabs):
            file.write(np.uint64(length).tobytes())
            for z in range(across if name == "Points" else side):
                slab(z).tofile(file)
        file.write(b"</AppendedData></VTKFile>")


main()
