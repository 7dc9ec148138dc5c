"""A reproduction that is killed, shared by processes, or met by a second one, on `mini` with a few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.processes import hold_folder, launch

SMALL = (
    "--steps", "2", "--pairs", "4", "--seeds", "0", "--device", "cpu", "--set", "data.photos_per_category=2",
    "--set", "training.batch_size=2", "--set", "training.validation_pairs=2",
)  # fmt: skip


def command(output, *targets):
    return [sys.executable, "-W", "ignore", "-m", "sd4match", "reproduce", *targets, "--output", str(output), *SMALL]


def results(output):
    """Return everything that a target and its trainings came to, except for how long they took."""
    numbers = json.loads((output / "table4" / "reproduction.json").read_text())
    numbers.pop("wall_seconds")
    files = sorted(output.glob("runs/*/prompt.safetensors"))
    scores = [json.loads(file.read_text()).get("scores") for file in sorted(output.glob("runs/**/scores.json"))]
    pictures = (output / "table4" / "figure.png").read_bytes()
    return numbers, {file.parent.name: file.read_bytes() for file in files}, scores, pictures


@pytest.mark.slow
def test_a_killed_reproduction_goes_on_to_the_same_bits(tmp_path):
    subprocess.run(command(tmp_path / "whole", "table4"), check=True, capture_output=True, timeout=900)
    killed = tmp_path / "killed"
    for until in ("runs/single-seed-0-*/checkpoints", "runs/single-from-text-seed-0-*/losses.csv"):
        child = subprocess.Popen(command(killed, "table4"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not any(killed.glob(until)) and child.poll() is None:
            time.sleep(0.05)
        assert child.poll() is None, f"ended before {until}"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not (killed / "table4").exists()
    subprocess.run(command(killed, "table4"), check=True, capture_output=True, timeout=900)
    assert results(killed) == results(tmp_path / "whole")

    (learned,) = killed.glob("runs/single-seed-0-*/prompt.safetensors")
    before = learned.stat().st_mtime_ns
    again = subprocess.run(command(killed, "table4"), check=True, capture_output=True, timeout=900, text=True)
    assert "empty string > random" in again.stdout
    assert learned.stat().st_mtime_ns == before  # nothing is trained twice
    assert results(killed) == results(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_write_one_reproduction(tmp_path):
    launch(command(tmp_path / "two", "table4", "fig6"), 2)
    subprocess.run(command(tmp_path / "one", "table4"), check=True, capture_output=True, timeout=900)
    (two, prompts, _, _), (one, alone, _, _) = results(tmp_path / "two"), results(tmp_path / "one")
    of_fig6 = {name.rpartition("-")[0] for name in set(prompts) - set(alone)}
    assert of_fig6 == {"class-seed-0", "cpm-seed-0"}
    assert [cell["pairs"] for cell in two["cells"]] == [cell["pairs"] for cell in one["cells"]]
    for both in zip(one["cells"], two["cells"], strict=True):
        found = [cell["pck"]["0.1"]["mean"] for cell in both]
        assert found[0] == pytest.approx(found[1], abs=0.1)  # sums in another order may move a point
    assert (tmp_path / "two" / "fig6" / "figure.png").exists()
    assert not list((tmp_path / "two").rglob(".sd4match-lock"))


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_told(tmp_path):
    holder = hold_folder(tmp_path / "out")
    try:
        second = subprocess.run(command(tmp_path / "out", "table1"), capture_output=True, text=True, timeout=300)
    finally:
        holder.kill()
        holder.communicate()
    assert second.returncode == 2
    assert "another run is writing into" in second.stderr
    assert second.stderr.count("\n") == 1
