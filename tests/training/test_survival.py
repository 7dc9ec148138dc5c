"""A training that is killed, stopped, or meets a full disk resumes from its last good state, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = '''
import json, os, random, signal, sys, time
from pathlib import Path

import torch

torch.set_num_threads(1)  # no thread may run when this process forks

from sd4match.io import files
from sd4match.config import build_components, load_preset
from sd4match.training.run import train

output, kills, steps, write_every = Path(sys.argv[1]), *map(int, sys.argv[2:])
config = load_preset("single", [
    f"training.steps={steps}", "training.checkpoint_every=2", "training.validate_every=10", "training.batch_size=1",
    "training.validation_pairs=2", "data.photos_per_category=2", "data.pairs=6", "prompt.num_tokens=4", "seed=3",
    "cache.limit='0'",
])
backbone = build_components(config).backbone


def train_in_child(folder, resume, kill_in_write=None):
    """Train in a child process, which kills itself in its `kill_in_write`-th durable write."""
    child = os.fork()
    if child:
        return child
    if kill_in_write is not None:
        real, left = os.fsync, [kill_in_write]

        def fsync(handle):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(handle)

        files.os.fsync = fsync
    train(config, build_components(config, backbone=backbone), folder, resume=resume)
    os._exit(0)


started = time.perf_counter()
train(config, build_components(config, backbone=backbone), output / "whole")  # here, so that children import nothing
length = time.perf_counter() - started
rng = random.Random(7)
killed = in_write = half_written = 0
attempts = 0
while True:
    attempts += 1
    folder = output / "killed"
    if killed < kills and killed % write_every == 0:
        child = train_in_child(folder, True, kill_in_write=rng.randint(1, 6))
    else:
        child = train_in_child(folder, True)
        if killed < kills:
            time.sleep(rng.uniform(0, 0.3 * length))
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
    status = os.waitpid(child, 0)[1]
    if status == 0:
        if killed >= kills:
            break
        import shutil
        shutil.rmtree(folder)  # it came to its end before it was killed: once more from the start
        continue
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    killed += 1
    temporary = [file for file in folder.rglob("*.part")] if folder.exists() else []
    half_written += bool(temporary)
    assert attempts < 20 * kills + 5
same = {
    name: (output / "whole" / name).read_bytes() == (output / "killed" / name).read_bytes()
    for name in ("prompt.safetensors", "losses.csv", "validation.csv", "config.yaml")
}
reports = [json.loads((output / name / "report.json").read_text()) for name in ("whole", "killed")]
for report in reports:
    del report["wall_seconds"]
same["report.json"] = reports[0] == reports[1]
left = [str(file) for file in output.rglob("*.part")]
print(json.dumps({"killed": killed, "half_written": half_written, "same": same, "left": left}))
'''


def kill_and_resume(folder, kills, steps, write_every):
    """Kill a training `kills` times, every `write_every`-th time while a file is being written."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), *map(str, (kills, steps, write_every))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_with_the_same_bits(tmp_path):
    answer = kill_and_resume(tmp_path, kills=20, steps=100, write_every=4)
    assert answer["killed"] == 20
    assert answer["half_written"] >= 3  # of five kills in a write; some come after the renaming
    assert all(answer["same"].values()), answer
