"""Training in two processes gives the result of one."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.processes import launch

PROGRAM = """
import json, sys
from pathlib import Path

import torch

from sd4match.config import build_components, load_preset
from sd4match.distributed import Processes
from sd4match.training import TrainerCallbacks, train

torch.set_num_threads(1)
output, steps = Path(sys.argv[1]), int(sys.argv[2])
config = load_preset("single", [
    f"training.steps={steps}", "training.schedule=constant", "training.validate_every=1000", "training.batch_size=5",
    "training.validation_pairs=7", "data.photos_per_category=4", "data.pairs=40", "prompt.num_tokens=6", "seed=2",
    "cache.limit='0'",
])
components = build_components(config)
(vectors,) = components.prompt.parameters()
gradients, prompts = [], []


def remember(run):
    gradients.append(vectors.grad.flatten().tolist())
    prompts.append(vectors.detach().flatten().tolist())


index = Processes().index
run = train(config, components, output / "run", callbacks=TrainerCallbacks(on_step=remember))
if index == 0:
    report = json.loads((output / "run" / "report.json").read_text())
    answer = {"gradients": gradients, "prompts": prompts, "losses": run.losses, "report": report["results"],
              "batch": report["training"]["batch"]}
    Path(output, "answer.json").write_text(json.dumps(answer))
"""


def learn_in(count, folder, steps):
    folder.mkdir()
    launch([sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(steps)], count)
    return json.loads((folder / "answer.json").read_text())


def apart(one, other):
    """The largest difference of two lists of numbers."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_two_processes_take_the_same_steps(tmp_path):
    alone, two = learn_in(1, tmp_path / "one", 5), learn_in(2, tmp_path / "two", 5)
    assert alone["batch"].startswith("5 pairs a step = 1 device x 5 at once")
    assert two["batch"].startswith("5 pairs a step = 2 devices (3 or 2 each)")
    assert max(map(abs, alone["gradients"][0])) > 1e-3
    assert apart(alone["gradients"][0], two["gradients"][0]) < 1e-5
    assert apart(alone["prompts"][-1], two["prompts"][-1]) < 1e-4
    assert apart(alone["losses"], two["losses"]) < 1e-4
    assert alone["report"] == two["report"]


@pytest.mark.slow
def test_how_rounding_grows(tmp_path, capsys):
    """Adam divides by the size of gradients, so a difference in last digits grows: shown in docs/how-to/train.md."""
    alone, two = learn_in(1, tmp_path / "one", 200), learn_in(2, tmp_path / "two", 200)
    growth = {
        step: apart(alone["prompts"][step - 1], two["prompts"][step - 1]) for step in (1, 2, 5, 10, 20, 50, 100, 200)
    }
    with capsys.disabled():
        print("\nlargest difference of the prompt, 1 and 2 processes, after steps:")
        print("  ".join(f"{step}: {value:.1e}" for step, value in growth.items()))
    assert growth[5] < 1e-4
    assert growth[200] < 1
