from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from sd4match.config import SamplingSettings, TrainingSettings
from sd4match.errors import InputError, TrainingError
from sd4match.matching.losses import GaussianCrossEntropy
from sd4match.matching.matchers import NearestNeighbor
from sd4match.measurement import Measurement
from sd4match.prompting.fixed import EmptyPrompt
from sd4match.protocols import ParameterGroup
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.trainer import Trainer


class Vector(nn.Module):
    """A prompt of nobody's kind: the trainer knows protocols only."""

    scope = "dataset"

    def __init__(self):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(1, 16, 8))

    def forward(self, images, partners=None):
        from sd4match.types import PromptEmbedding

        return PromptEmbedding(self.vector.expand(len(images), -1, -1))

    def parameter_groups(self):
        return [ParameterGroup("vector", (self.vector,), scale=0.5)]


def read(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def trainer(prompt=None, loss=None, **settings):
    options = {"steps": 6, "batch_size": 2, "validate_every": 3, "sampling": SamplingSettings(timestep=0)} | settings
    return Trainer(
        backbone=FakeBackbone(),
        prompt=prompt or Vector(),
        loss=loss or GaussianCrossEntropy(temperature=0.15),
        settings=TrainingSettings(**options),
        train_data=FakePairs(pairs=5),
        validation_data=FakePairs(pairs=4),
        validation_matcher=NearestNeighbor(),
        measurement=Measurement(),
    )


def test_a_prompt_is_learned_validated_and_kept(tmp_path):
    prompt, steps, bests = Vector(), [], []
    snapshots = {}

    def on_best(step, pck):
        bests.append(step)
        snapshots[step] = prompt.vector.detach().clone()

    run = trainer(prompt).fit(tmp_path, on_step=lambda step, loss: steps.append(step), on_best=on_best)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in run.validation] == [0, 3, 6]
    assert run.best_step == bests[-1]
    assert torch.equal(prompt.vector, snapshots[run.best_step])
    rows = read(tmp_path / "losses.csv")
    assert [float(row["loss"]) for row in rows] == pytest.approx(run.losses, abs=1e-5)
    assert len(read(tmp_path / "validation.csv")) == 3


def test_the_same_seed_gives_the_same_losses():
    assert trainer().fit().losses == trainer().fit().losses
    assert trainer().fit().losses != trainer(seed=1).fit().losses


def test_learning_lowers_the_loss_on_its_own_pairs():
    run = trainer(steps=60, learning_rate=0.3, validate_every=60, batch_size=5).fit()
    assert sum(run.losses[-10:]) < sum(run.losses[:10])


@pytest.mark.parametrize(("schedule", "last"), [("constant", 0.005), ("cosine", 0.0005)])
def test_groups_learn_at_their_scale_and_schedule(schedule, last):
    one = trainer(schedule=schedule)
    optimizer = torch.optim.Adam([{"params": one.prompt.parameter_groups()[0].parameters, "scale": 0.5}])
    one._set_learning_rate(optimizer, 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    one._set_learning_rate(optimizer, one.settings.steps + 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(last)


def test_both_directions_average_the_two_losses():
    one, other = trainer(), trainer(both_directions=True)
    assert one.fit().losses[0] != other.fit().losses[0]


def test_nothing_to_learn_and_no_finite_loss_are_named(mini):
    with pytest.raises(InputError, match="EmptyPrompt has nothing to learn"):
        trainer(EmptyPrompt(backbone=mini))
    with pytest.raises(TrainingError, match="nan at step 1"):
        trainer(loss=lambda correlation, targets: correlation.values.sum() * float("nan")).fit()


def test_single_learns_on_mini(mini):
    from sd4match.config import build_dataset, load_preset
    from sd4match.prompting.learned import SinglePrompt

    config = load_preset("mini-single", ["data.photos_per_category=3", "data.pairs=8"])
    prompt = SinglePrompt(backbone=mini, slots=4)
    before = prompt.token_embeddings.detach().clone()
    run = Trainer(
        backbone=mini,
        prompt=prompt,
        loss=GaussianCrossEntropy(temperature=0.15),
        settings=TrainingSettings(steps=2, batch_size=2, validate_every=2, sampling=SamplingSettings(timestep=40)),
        train_data=build_dataset(config, "train"),
        validation_data=build_dataset(config, "validation"),
        validation_matcher=NearestNeighbor(),
        measurement=Measurement(),
    ).fit()
    assert len(run.losses) == 2
    assert run.best_step in (0, 2)
    assert run.best_step == 0 or not torch.equal(before, prompt.token_embeddings)


def test_gradients_are_averaged_over_processes_and_what_no_process_used_stays_untouched():
    """Against a stand-in for two processes, of which the other one used only the second category."""
    from accelerate import Accelerator

    class Three(Vector):
        def __init__(self):
            super().__init__()
            self.parts = nn.ParameterList(torch.zeros(2) for _ in range(3))

        def parameter_groups(self):
            return [ParameterGroup("parts", tuple(self.parts))]

    theirs = iter([torch.tensor([0.0, 1.0, 0.0]), torch.zeros(2), torch.tensor([6.0, 8.0])])

    class TwoProcesses(Accelerator):
        num_processes = 2
        device = torch.device("cpu")

        def __init__(self):
            pass

        def reduce(self, tensor, reduction="sum", scale=1.0):
            return (tensor + next(theirs)) / (1 if reduction == "sum" else 2)

    prompt = Three()
    prompt.parts[0].grad = torch.tensor([2.0, 4.0])
    trainer(prompt)._average_gradients(TwoProcesses())
    found = [None if part.grad is None else part.grad.tolist() for part in prompt.parts]
    assert found == [[1.0, 2.0], [3.0, 4.0], None]
