"""Our own results: the lines that `cargo bench --bench attention -- cuda/` (or metal/) prints.

cuda/f16/A self | fused | median 123.456 µs | device 101.234 µs | error 1.2e-04 | 456.78 TFLOP/s
"""
import collections
import pathlib
import re

# Medians of single calls in seconds, until the device is idle and on the device; the worst error of sampled rows.
Ours = collections.namedtuple("Ours", "seconds device_seconds error")

LINE = re.compile(r"^(?P<title>\w+/\w+/[^|]+) \| (?P<name>[^|]+) \| median (?P<seconds>\S+) µs \| "
                  r"device (?P<device>\S+)(?: µs)? \| error (?P<error>\S+) \|")


def read(log):
    """Results by (title, contestant); none if there is no such file."""
    path = pathlib.Path(log)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    results = {}
    for line in filter(None, map(LINE.match, lines)):
        device = None if line["device"] == "-" else float(line["device"]) * 1e-6
        results[line["title"], line["name"]] = Ours(float(line["seconds"]) * 1e-6, device, float(line["error"]))
    return results
