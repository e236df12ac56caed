"""Makes a car-like case with VTK, lets `predict` run on it, and opens the results with VTK.

    python scripts/check-with-vtk.py target/release/predict FOLDER

The car is an ellipsoid. VTK writes the boundary and, with polyhedra among its cells, the volume, in each of its encodings;
the body is an STL file of two solids. What comes back must be the same meshes with the original arrays beside the predicted
ones.
"""

import pathlib
import subprocess
import sys

import numpy
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

AXES = numpy.array([1.1, 0.6, 0.8])
DATA = pathlib.Path(__file__).parent.parent / "predict" / "data"
FACES = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
CORNERS = numpy.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])


def id_list(numbers):
    ids = vtk.vtkIdList()
    for number in numbers:
        ids.InsertNextId(int(number))
    return ids


def centres(mesh):
    search = vtk.vtkCellCenters()
    search.SetInputData(mesh)
    search.Update()
    return vtk_to_numpy(search.GetOutput().GetPoints().GetData())


def add(data, name, values):
    array = numpy_to_vtk(numpy.ascontiguousarray(values), deep=True)
    array.SetName(name)
    data.AddArray(array)


def boundary():
    source = vtk.vtkSphereSource()
    source.SetRadius(1)
    source.SetThetaResolution(40)
    source.SetPhiResolution(30)
    source.Update()
    mesh = vtk.vtkPolyData()
    mesh.DeepCopy(source.GetOutput())
    mesh.GetPointData().Initialize()
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(vtk_to_numpy(mesh.GetPoints().GetData()) * AXES, deep=True))
    mesh.SetPoints(points)
    x = centres(mesh)[:, 0]
    add(mesh.GetCellData(), "pMeanTrim", numpy.sin(x).astype("f4"))
    add(mesh.GetCellData(), "patch", (x > 0).astype("i4"))
    return mesh


def volume(side=10, half=2.25):
    grid = vtk.vtkUnstructuredGrid()
    axis = numpy.linspace(-half, half, side + 1)
    points = vtk.vtkPoints()
    points.SetDataTypeToDouble()
    z, y, x = numpy.meshgrid(axis, axis, axis, indexing="ij")
    points.SetData(numpy_to_vtk(numpy.stack([x.ravel(), y.ravel(), z.ravel()], 1), deep=True))
    grid.SetPoints(points)
    across, count = side + 1, 0
    for cell in numpy.ndindex(side, side, side):
        centre = axis[list(cell[::-1])] + half / side
        if ((centre / AXES) ** 2).sum() < 1.5:
            continue
        own = [((cell[0] + c) * across + cell[1] + b) * across + cell[2] + a for a, b, c in CORNERS]
        if count % 3 == 0:
            stream = [len(FACES)]
            for face in FACES:
                stream += [len(face)] + [own[corner] for corner in face]
            grid.InsertNextCell(vtk.VTK_POLYHEDRON, id_list(stream))
        else:
            grid.InsertNextCell(vtk.VTK_HEXAHEDRON, id_list(own))
        count += 1
    x = centres(grid)[:, 0]
    add(grid.GetCellData(), "pMean", 0.1 * x)
    add(grid.GetCellData(), "UMean", numpy.stack([1 + 0 * x, 0 * x, 0 * x], 1))
    return grid


def stl(mesh):
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(mesh)
    triangles.Update()
    output = triangles.GetOutput()
    points = vtk_to_numpy(output.GetPoints().GetData())
    corners = points[vtk_to_numpy(output.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
    text = ""
    for name, chosen in (("front", corners.mean(1)[:, 0] <= 0), ("rear", corners.mean(1)[:, 0] > 0)):
        text += f"solid {name}\n"
        for triangle in corners[chosen]:
            vertices = "".join("vertex %.9g %.9g %.9g\n" % tuple(point) for point in triangle)
            text += f"facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n"
        text += f"endsolid {name}\n"
    return text


def write(path, mesh, mode, compressor):
    writer = vtk.vtkXMLPolyDataWriter() if path.suffix == ".vtp" else vtk.vtkXMLUnstructuredGridWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(mesh)
    getattr(writer, f"SetDataModeTo{mode}")()
    getattr(writer, f"SetCompressorTypeTo{compressor}")()
    assert writer.Write() == 1


def read(path):
    reader = vtk.vtkXMLPolyDataReader() if path.suffix == ".vtp" else vtk.vtkXMLUnstructuredGridReader()
    errors = []
    reader.AddObserver("ErrorEvent", lambda *_: errors.append(path))
    reader.SetFileName(str(path))
    reader.Update()
    assert not errors, f"VTK cannot read {path}"
    return reader.GetOutput()


def check(path, original, expected):
    mesh = read(path)
    data = mesh.GetCellData()
    names = {data.GetArrayName(at) for at in range(data.GetNumberOfArrays())}
    assert names == expected, f"{path}: {names}"
    assert mesh.GetNumberOfCells() == original.GetNumberOfCells()
    points = [vtk_to_numpy(mesh.GetPoints().GetData()) for mesh in (mesh, original)]
    assert numpy.array_equal(*points), f"{path}: other points"
    assert numpy.allclose(centres(mesh), centres(original)), f"{path}: other cells"
    for at in range(original.GetCellData().GetNumberOfArrays()):
        array = original.GetCellData().GetArray(at)
        same = numpy.array_equal(vtk_to_numpy(array), vtk_to_numpy(data.GetArray(array.GetName())))
        assert same, f"{path}: {array.GetName()} differs"
    for name in expected:
        assert numpy.isfinite(vtk_to_numpy(data.GetArray(name))).all(), f"{path}: {name} is not finite"


def main(program, folder):
    folder.mkdir(parents=True, exist_ok=True)
    meshes = {"boundary.vtp": boundary(), "volume.vtu": volume()}
    (folder / "body.stl").write_text(stl(meshes["boundary.vtp"]))
    truth = ["surface=pMeanTrim:pressure", "volume=pMean:pressure,UMean:velocity"]
    cases = [
        ("Appended", "ZLib", []),
        ("Binary", "LZ4", ["--compress", "zlib"]),
        ("Ascii", "None", ["--compress", "lz4"]),
        ("Appended", "LZMA", ["--streamlines", "volume:-2,-1,0:-2,1,0:5"]),
    ]
    for at, (mode, compressor, options) in enumerate(cases):
        for name, mesh in meshes.items():
            write(folder / name, mesh, mode, compressor)
        out = folder / f"out_{at}"
        command = [program, "--weights", DATA / "ellipsoid.safetensors", "--config", DATA / "ellipsoid.json"]
        command += ["--condition", "alpha=10", "--condition", "beta=5", "--geometry", folder / "body.stl"]
        command += ["--surface", folder / "boundary.vtp", "--volume", folder / "volume.vtu", "--keep-arrays"]
        command += [word for pair in truth for word in ("--truth", pair)]
        command += ["--reference-area", "1.5", "--slice-points", "40", "--overwrite", "--out", out, *options]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        surface = {"pressure", "pressure_error", "pMeanTrim", "patch", "solid"}
        fields = {"velocity", "pressure", "velocity_error", "pressure_error", "pMean", "UMean"}
        # Meshes that were read again, so that text has rounded both alike.
        check(out / "surface.vtp", read(folder / "boundary.vtp"), surface)
        check(out / "volume.vtu", read(folder / "volume.vtu"), fields)
        print(f"{mode}, {compressor}, {options}: VTK {vtk.vtkVersion.GetVTKVersion()} opens what came back")
    lines = read(folder / f"out_{len(cases) - 1}" / "streamlines_1_volume.vtp")
    assert lines.GetNumberOfLines() == 5 and lines.GetPointData().HasArray("time")


main(sys.argv[1], pathlib.Path(sys.argv[2]))
