"""Opens the page in Chromium without a window, and does what a visitor would.

    python web/tests/page.py PAGE_FOLDER PREDICT [SCREENSHOT]

PAGE_FOLDER is what `scripts/web.sh build` made, PREDICT the program, whose prediction is what the page must show.
"""

import functools
import gzip
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import numpy
from playwright.sync_api import sync_playwright

MOST_BYTES = 5_000_000
NEAR = 1e-5
# Of a flow at its finest, on a slow machine.
PATIENCE = 180_000


def tensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: numpy.frombuffer(data[8 + length + start : 8 + length + end], "<f4").reshape(about["shape"])
        for name, about in header.items()
        for start, end in [about["data_offsets"]]
    }


def rounded(points):
    # Zero has one sign.
    return [tuple(point) for point in (numpy.round(points.astype("f8"), 4) + 0.0).tolist()]


def serve(folder):
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def cube(half):
    """A cube as an ASCII STL file, two triangles on each side."""
    lines = ["solid cube"]
    for axis in range(3):
        for side in (-half, half):
            corners = []
            for u, v in ((-half, -half), (half, -half), (half, half), (-half, half)):
                corner = [side] * 3
                corner[(axis + 1) % 3], corner[(axis + 2) % 3] = u, v
                corners.append(corner)
            if side < 0:
                corners.reverse()
            for three in ((0, 1, 2), (0, 2, 3)):
                lines += ["facet normal 0 0 0", "outer loop"]
                lines += [f"vertex {x} {y} {z}" for x, y, z in (corners[i] for i in three)]
                lines += ["endloop", "endfacet"]
    return "\n".join([*lines, "endsolid cube", ""])


class Page:
    def __init__(self, page, address):
        self.page, self.complaints = page, []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # Nothing but the page itself is asked for.
        page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or self.complaints.append(request.url))
        page.goto(address)

    def wait(self, state="finished"):
        self.page.wait_for_selector(f'body[data-state="{state}"]', timeout=PATIENCE)

    def field(self, place, array):
        script = """([place, array]) => {
            const { corners, arrays } = globalThis.flow.places.find(({ name }) => name === place);
            return { corners: [...corners], values: [...arrays[array].values] };
        }"""
        got = self.page.evaluate(script, [place, array])
        corners = numpy.array(got["corners"]).reshape(-1, 3)
        return corners, numpy.array(got["values"]).reshape(len(corners), -1)

    def words(self):
        return self.page.inner_text("#warnings")

    def set(self, name, value):
        self.page.eval_on_selector(
            f'input[name="{name}"]',
            "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }",
            str(value),
        )

    def choose(self, name, value):
        self.page.check(f'input[name="{name}"][value="{value}"]')

    def pixels(self, canvas):
        return self.page.eval_on_selector(canvas, "(canvas) => canvas.toDataURL()")

    def drop(self, name, text):
        transfer = self.page.evaluate_handle(
            """([name, text]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([text], name));
                return transfer;
            }""",
            [name, text],
        )
        self.page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def check_native(page, predict, folder):
    """What is shown is what the program predicts, at each of the points."""
    subprocess.run([predict, "--out", folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for place, arrays in (("surface", ["pressure"]), ("slice", ["pressure", "velocity"])):
        native = tensors(pathlib.Path(folder) / f"{place}.safetensors")
        # The points of the page are some of those of the program, but for a rounding.
        index = {point: at for at, point in enumerate(rounded(native["positions"]))}
        for array in arrays:
            for kind in ("", "_exact"):
                corners, values = page.field(place, array + kind)
                at = [index[point] for point in rounded(corners)]
                expected = native[array + kind].reshape(len(native["positions"]), -1)[at]
                worst = numpy.abs(values - expected).max()
                print(f"{place} {array + kind}: {len(corners)} points, largest difference {worst:.2e}")
                assert worst <= NEAR, (place, array + kind, worst)


def check_controls(page):
    page.choose("kind", "error")
    assert "ΔCp" in page.page.evaluate("() => globalThis.labels.surface")
    page.choose("kind", "")
    before = page.pixels("#slice")
    page.choose("field", "velocity")
    assert page.pixels("#slice") != before, "another field looks alike"
    page.choose("field", "pressure")

    # A slider by the keyboard, then by script.
    _, old = page.field("surface", "pressure")
    page.page.focus('input[name="a"]')
    page.page.keyboard.press("ArrowLeft")
    page.wait("predicting")
    page.wait()
    _, new = page.field("surface", "pressure")
    assert numpy.abs(new - old).max() > 1e-3, "a slider changes nothing"
    page.set("alpha", -15)
    page.wait()
    errors = page.page.inner_text("#errors")
    shares = [float(word) for word in errors.split() if word.replace(".", "").isdigit()]
    assert len(shares) == 3 and all(0 < share < 4 for share in shares), errors


def check_views(page):
    page.page.hover("#surface")
    probe = page.page.inner_text("#surface-probe")
    assert " at (" in probe, probe
    before = page.pixels("#surface")
    page.page.focus("#surface")
    page.page.keyboard.press("ArrowLeft")
    turned = page.pixels("#surface")
    assert turned != before, "keys do not turn the body"
    box = page.page.locator("#surface").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.move(*middle)
    page.page.mouse.down()
    page.page.mouse.move(middle[0] + 60, middle[1] + 20)
    page.page.mouse.up()
    assert page.pixels("#surface") != turned, "the mouse does not turn the body"
    page.page.focus("#slice")
    page.page.keyboard.press("ArrowUp")
    assert " at (" in page.page.inner_text("#slice-probe")


def check_touch(page):
    """Two fingers that part come nearer."""
    before = page.pixels("#surface")
    page.page.eval_on_selector(
        "#surface",
        """(canvas) => {
            const box = canvas.getBoundingClientRect();
            const finger = (type, pointerId, x) => canvas.dispatchEvent(new PointerEvent(type, {
                pointerId, pointerType: "touch", bubbles: true, clientX: box.x + x, clientY: box.y + 100,
            }));
            canvas.setPointerCapture = () => {};
            finger("pointerdown", 11, 100);
            finger("pointerdown", 12, 140);
            finger("pointermove", 12, 240);
            finger("pointerup", 11, 100);
            finger("pointerup", 12, 240);
        }""",
    )
    assert page.pixels("#surface") != before, "fingers do not zoom"


def check_bodies(page):
    page.drop("cube.stl", cube(0.7))
    page.wait("predicting")
    page.wait()
    corners, values = page.field("surface", "pressure")
    assert len(corners) == 8 and numpy.isfinite(values).all()
    assert "cube.stl" in page.page.inner_text("#surface-title")
    print("cube.stl:", page.words().replace("\n", " | "))
    assert "geometry" in page.words(), page.words()

    # One cell of a surface has one value.
    points = "-.7 -.7 -.7 .7 -.7 -.7 0 .7 -.7 0 0 .8"
    vtp = f"""<VTKFile type="PolyData" version="1.0"><PolyData><Piece NumberOfPoints="4" NumberOfPolys="4">
        <CellData><DataArray type="Float32" Name="truth" format="ascii">1 2 3 4</DataArray></CellData>
        <Points><DataArray type="Float32" NumberOfComponents="3" format="ascii">{points}</DataArray></Points>
        <Polys><DataArray type="Int32" Name="connectivity" format="ascii">0 2 1 0 1 3 1 2 3 2 0 3</DataArray>
        <DataArray type="Int32" Name="offsets" format="ascii">3 6 9 12</DataArray></Polys>
        </Piece></PolyData></VTKFile>"""
    page.page.set_input_files("#file", {"name": "body.vtp", "mimeType": "text/xml", "buffer": vtp.encode()})
    page.wait("predicting")
    page.wait()
    counts = page.page.evaluate("() => globalThis.flow.places.map(({ points, corners }) => [points, corners.length / 3])")
    assert counts[0] == [4, 12], counts

    # What cannot be is told, and the page goes on.
    page.drop("large.stl", cube(30))
    page.wait("failed")
    assert "large.stl" in page.words(), page.words()
    page.drop("not-a-mesh.stl", "\0\1\2")
    page.page.wait_for_function("() => document.getElementById('warnings').innerText.includes('not-a-mesh')")
    page.page.click("#back")
    page.wait("predicting")
    page.wait()


def main(folder, predict, screenshot=None):
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in pathlib.Path(folder).iterdir()}
    print("bytes compressed:", sum(sizes.values()), sizes)
    assert sum(sizes.values()) <= MOST_BYTES
    address = serve(folder)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as results:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        tab = browser.new_page(viewport={"width": 1400, "height": 940}, color_scheme="light")
        page = Page(tab, address)
        page.wait()
        print(tab.inner_text("#speed"))
        if screenshot:
            tab.screenshot(path=screenshot)
        check_native(page, predict, f"{results}/native")
        check_controls(page)
        check_views(page)
        check_touch(page)
        check_bodies(page)
        light = tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
        tab.emulate_media(color_scheme="dark")
        assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") != light
        assert not page.complaints, page.complaints
        browser.close()


main(*sys.argv[1:])
