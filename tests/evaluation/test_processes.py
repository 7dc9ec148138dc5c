"""The same evaluation in two processes: the same counts, every feature map made once, one error for all."""

from __future__ import annotations

import json
import sys

import pytest

from helpers import layouts
from helpers.processes import launch
from sd4match.data.config import SPairConfig
from sd4match.testing import FakeBackbone

PROGRAM = """
import json, sys, torch
from pathlib import Path
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.config import SPairConfig
from sd4match.errors import SD4MatchError
from sd4match.evaluation import Evaluator
from sd4match.interfaces import Prompt
from sd4match.matching import NearestNeighbor
from sd4match.distributed import Processes
from sd4match.testing import FakeBackbone
from sd4match.structures.tensors import PromptEmbedding, Sampling

torch.set_num_threads(1)

class Zeros(Prompt):
    scope = sys.argv[3]
    def forward(self, images, partners=None):
        return PromptEmbedding(torch.zeros(len(images), 16, 8))

root, output, _, skip, memory, batch_size = sys.argv[1:]
data = SPairConfig(root=root, split="test").build()
backbone = FakeBackbone()
evaluator = Evaluator(
    backbone=backbone, protocol=EvaluationProtocol(), matchers={"it": NearestNeighbor()}, sampling=Sampling(0),
    batch_size=int(batch_size), scratch=Path(output), skip_bad=skip == "skip", memory=int(memory),
)
answer = {}
asked = []
def should_stop():
    asked.append(True)
    return skip == "stopping" and Processes().index == 1 and len(asked) > 1
try:
    scores = evaluator.evaluate(data, Zeros(), should_stop=should_stop)
    answer["scores"] = None if scores is None else scores["it"].to_json()
except SD4MatchError as error:
    answer["error"] = str(error)
answer["extracted"] = backbone.extracted
Path(output, f"{Processes().index}.json").write_text(json.dumps(answer))
"""


def run(count, root, output, scope="image", skip="stop", memory=1 << 30, batch_size=2):
    """Return what each of `count` processes writes."""
    output.mkdir()
    launch([sys.executable, "-c", PROGRAM, str(root), str(output), scope, skip, str(memory), str(batch_size)], count)
    answers = [json.loads((output / f"{rank}.json").read_text()) for rank in range(count)]
    assert {file.name for file in output.iterdir()} == {f"{rank}.json" for rank in range(count)}  # no maps left
    return answers


@pytest.mark.parametrize(
    ("scope", "memory"), [("image", 1 << 30), pytest.param("image", 1, marks=pytest.mark.slow), ("pair", 1 << 30)]
)
def test_two_processes_count_what_one_counts(tmp_path, scope, memory):
    layouts.write_spair(tmp_path)
    (alone,) = run(1, tmp_path, tmp_path / "one", scope)
    two = run(2, tmp_path, tmp_path / "two", scope, memory=memory)
    assert [answer["scores"] for answer in two] == [alone["scores"]] * 2
    assert alone["extracted"] == sum(answer["extracted"] for answer in two) == (5 if scope == "image" else 10)
    assert all(answer["extracted"] for answer in two)


def test_a_process_without_photos_of_its_own_counts_all_the_same(tmp_path):
    layouts.write_spair(tmp_path)
    (alone,) = run(1, tmp_path, tmp_path / "one", batch_size=8)
    two = run(2, tmp_path, tmp_path / "two", batch_size=8)
    assert [answer["scores"] for answer in two] == [alone["scores"]] * 2
    assert [answer["extracted"] for answer in two] == [5, 0]


def test_all_processes_stop_at_the_error_of_one_and_skip_the_same_pairs(tmp_path):
    base = layouts.write_spair(tmp_path)
    (base / "JPEGImages/cat/2008_000002.jpg").write_bytes(b"no picture")
    errors = {answer["error"] for answer in run(2, tmp_path, tmp_path / "two")}
    assert len(errors) == 1
    assert "not a readable image" in errors.pop()
    answers = run(2, tmp_path, tmp_path / "skipping", skip="skip")
    assert answers[0]["scores"] == answers[1]["scores"]
    assert len(answers[0]["scores"]["skipped"]) == 2


def test_a_stop_of_one_process_stops_all(tmp_path):
    layouts.write_spair(tmp_path)
    answers = run(2, tmp_path, tmp_path / "two", skip="stopping")
    assert [answer["scores"] for answer in answers] == [None, None]


def test_one_process_needs_no_launcher(tmp_path):
    from sd4match.distributed import Processes

    layouts.write_spair(tmp_path)
    processes = Processes()
    assert (processes.index, processes.count, processes.is_main) == (0, 1, True)
    assert processes.share(range(5)) == range(5)
    assert processes.gather([1, 2]) == [1, 2]
    assert processes.from_main("x") == "x"
    assert len(SPairConfig(root=str(tmp_path), split="test").build()) == 5
    assert FakeBackbone().extracted == 0
