"""How long a user waits before anything is done, in processes of their own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.table import Row, duration

_IMPORT = """
import sys, time
began = time.perf_counter()
import sd4match
print(time.perf_counter() - began)
sys.exit(bool({"torch", "diffusers", "transformers"} & set(sys.modules)))
"""
_TIMES = 5


def rows() -> Iterator[Row]:
    """Import and help."""
    runs = [subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True) for _ in range(_TIMES + 1)]
    seconds = statistics.median(float(run.stdout) for run in runs[1:])
    light = all(run.returncode == 0 for run in runs)
    yield Row(
        "`import sd4match`", duration(seconds), "", None, None, "< 0.3 s, no torch", seconds < 0.3 and light,
        "Median of five processes; torch, diffusers and transformers are " + ("not loaded." if light else "loaded."),
    )  # fmt: skip
    times = []
    for _ in range(_TIMES + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sd4match", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times[1:])
    yield Row(
        "`sd4match --help`", duration(seconds), "", None, None, "< 0.6 s", seconds < 0.6,
        "Median of five processes, from start to end.",
    )  # fmt: skip
