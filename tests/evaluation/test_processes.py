"""The same evaluation in two processes: the same counts, every feature map made once, one error for all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from helpers import layouts
from helpers.processes import launch
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.config import SPairConfig
from sd4match.distributed import Processes
from sd4match.errors import SD4MatchError
from sd4match.evaluation import Evaluator
from sd4match.interfaces import Prompt
from sd4match.matching import NearestNeighbor
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone

PROGRAM = """
import json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from sd4match.distributed import Processes
from evaluation.test_processes import evaluate

folder = Path(sys.argv[1])
answers = {name: evaluate(folder / name, **case) for name, case in json.loads(sys.argv[3]).items()}
(folder / f"{Processes().index}.json").write_text(json.dumps(answers))
"""


class Zeros(Prompt):
    def __init__(self, scope):
        super().__init__()
        self.scope = scope

    def forward(self, images, partners=None):
        return PromptEmbedding(torch.zeros(len(images), 16, 8))


def evaluate(scratch, root, scope="image", *, skip_bad=False, stopping=False, memory=1 << 30, batch_size=2):
    """Return the scores or the error of this process, and how many maps it made."""
    backbone = FakeBackbone()
    asked = []

    def should_stop():
        asked.append(True)
        return stopping and Processes().index == 1 and len(asked) > 1

    evaluator = Evaluator(
        backbone=backbone, protocol=EvaluationProtocol(), matchers={"it": NearestNeighbor()}, sampling=Sampling(0),
        batch_size=batch_size, scratch=scratch, skip_bad=skip_bad, memory=memory,
    )  # fmt: skip
    scratch.mkdir(exist_ok=True)
    answer = {}
    try:
        data = SPairConfig(root=str(root), split="test").build()
        scores = evaluator.evaluate(data, Zeros(scope), should_stop=should_stop)
        answer["scores"] = None if scores is None else scores["it"].to_json()
    except SD4MatchError as error:
        answer["error"] = str(error)
    return answer | {"extracted": backbone.extracted}


CASES = {
    "image": {},
    "pair": {"scope": "pair"},
    "on disk": {"memory": 1},
    "one batch": {"batch_size": 8},
    "damaged": {"root": "damaged"},
    "skipping": {"root": "damaged", "skip_bad": True},
    "stopping": {"stopping": True},
}


@pytest.mark.slow
def test_two_processes_agree_and_make_each_map_once(tmp_path):
    """In one launch for all cases, since a start takes seconds."""
    roots = {name: tmp_path / name for name in ("whole", "damaged")}
    for root in roots.values():
        layouts.write_spair(root)
    (photo,) = roots["damaged"].rglob("JPEGImages/cat/2008_000002.jpg")
    photo.write_bytes(b"no picture")
    cases = {name: case | {"root": str(roots[case.get("root", "whole")])} for name, case in CASES.items()}
    folder, tests = tmp_path / "two", Path(__file__).parents[1]
    folder.mkdir()
    launch([sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(tests), json.dumps(cases)], 2)
    files = {folder / f"{rank}.json" for rank in range(2)}
    assert {file for file in folder.rglob("*") if file.is_file()} == files  # no maps are left
    found = [json.loads(file.read_text()) for file in sorted(files)]
    answers = {name: [answer[name] for answer in found] for name in CASES}

    for name in ("image", "pair", "on disk", "one batch"):
        alone = evaluate(tmp_path / "one", **cases[name] | {"memory": 1 << 30})
        two = answers[name]
        assert [answer["scores"] for answer in two] == [json.loads(json.dumps(alone["scores"]))] * 2
        assert alone["extracted"] == sum(answer["extracted"] for answer in two) == (10 if name == "pair" else 5)
        if name == "one batch":
            assert [answer["extracted"] for answer in two] == [5, 0]  # no photo is left for the second
        else:
            assert all(answer["extracted"] for answer in two)

    one, other = answers["damaged"]
    assert one["error"] == other["error"]  # all stop at the error of one
    assert "not a readable image" in one["error"]
    one, other = answers["skipping"]
    assert one["scores"] == other["scores"]
    assert len(one["scores"]["skipped"]) == 2
    assert [answer["scores"] for answer in answers["stopping"]] == [None, None]  # a stop of one stops all


def test_one_process_needs_no_launcher():
    processes = Processes()
    assert (processes.index, processes.count, processes.is_main) == (0, 1, True)
    assert processes.share(range(5)) == range(5)
    assert processes.gather([1, 2]) == [1, 2]
    assert processes.from_main("x") == "x"
