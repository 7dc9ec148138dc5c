from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from helpers.training import Vector, trainer
from sd4match.config.protocols import Measurement
from sd4match.config.sections import SamplingSettings, TrainingSettings
from sd4match.errors import InputError, TrainingError
from sd4match.matching.losses import GaussianCrossEntropy
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.text import EmptyPrompt
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.batches import BatchPlan
from sd4match.training.history import Watch
from sd4match.training.optimization import sum_over_processes
from sd4match.training.trainer import Trainer


def read(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def test_a_prompt_is_learned_validated_and_kept(tmp_path):
    prompt, steps, bests = Vector(), [], []
    snapshots = {}

    def on_best(step, pck):
        bests.append(step)
        snapshots[step] = prompt.vector.detach().clone()

    watch = Watch(on_step=lambda run: steps.append(run.step))
    run = trainer(prompt).fit(tmp_path, on_best=on_best, watch=watch)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in run.validation] == [0, 3, 6]
    assert run.best_step == bests[-1]
    assert torch.equal(prompt.vector, snapshots[run.best_step])
    rows = read(tmp_path / "losses.csv")
    assert [float(row["loss"]) for row in rows] == pytest.approx(run.losses, rel=1e-5)
    assert all(float(row["loss"]) >= float(row["excess"]) >= 0 for row in rows)
    assert len(read(tmp_path / "validation.csv")) == 3


def test_the_same_seed_gives_the_same_losses():
    assert trainer().fit().losses == trainer().fit().losses
    assert trainer().fit().losses != trainer(seed=1).fit().losses


def test_learning_lowers_the_loss_on_its_own_pairs():
    run = trainer(steps=60, learning_rate=0.3, validate_every=60, batch_size=5).fit()
    assert sum(run.losses[-10:]) < sum(run.losses[:10])


@pytest.mark.parametrize(("schedule", "last"), [("constant", 0.01), ("cosine", 0.001)])
def test_the_learning_rate_follows_its_schedule_and_groups_their_scale(schedule, last):
    one = trainer(schedule=schedule, learning_rate=0.01)
    run = one.fit()
    assert run.column("learning_rate")[0] == pytest.approx(0.01)
    assert one.state.optimisation.learning_rate(one.settings.steps + 1) == pytest.approx(last)
    (group,) = one.state.optimisation.adam.param_groups
    assert group["lr"] == pytest.approx(0.5 * run.column("learning_rate")[-1])


def test_both_directions_average_the_two_losses():
    one, other = trainer(), trainer(both_directions=True)
    assert one.fit().losses[0] != other.fit().losses[0]


def test_nothing_to_learn_and_no_finite_loss_are_named(mini):
    with pytest.raises(InputError, match="EmptyPrompt has nothing to learn"):
        trainer(EmptyPrompt(backbone=mini))
    with pytest.raises(TrainingError, match="nan at step 1"):
        trainer(loss=lambda correlation, targets: correlation.values.sum() * float("nan")).fit()


def test_single_learns_on_mini(mini):
    from sd4match.config.experiment import build_dataset, load_preset
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


def test_gradients_are_summed_over_processes_and_what_no_process_used_stays_untouched():
    """Against a stand-in for two processes, of which the other one used only the second part."""
    from accelerate import Accelerator

    theirs = torch.tensor([0.0, 0.0, 6.0, 8.0, 0.0, 0.0, 0.0, 1.0, 0.0, 3.0])

    class TwoProcesses(Accelerator):
        num_processes = 2
        device = torch.device("cpu")

        def __init__(self):
            pass

        def reduce(self, tensor, reduction="mean", scale=1.0):
            assert reduction == "sum"
            return tensor + theirs

    parts = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parts[0].grad = torch.tensor([2.0, 4.0])
    assert sum_over_processes(parts, [5.0], TwoProcesses()) == [8.0]
    assert [None if part.grad is None else part.grad.tolist() for part in parts] == [[2.0, 4.0], [6.0, 8.0], None]


def test_however_a_batch_is_cut_the_step_is_the_same():
    """Pieces of one, two and all pairs."""
    prompts = []
    for at_once in (1, 2, 5):
        prompt = Vector()
        one = trainer(prompt, steps=3, validate_every=3, batch_size=5, per_device=at_once, learning_rate=0.1)
        last = []
        run = one.fit(watch=Watch(on_step=lambda run, vector=prompt.vector, last=last: last.append(vector.clone())))
        assert run.plan.accumulation == -(-5 // at_once)
        prompts.append(last[-1].detach())
    for other in prompts[1:]:
        assert torch.allclose(prompts[0], other, atol=1e-5)
    assert prompts[0].abs().max() > 0.05


def test_pairs_without_visible_points_count_nothing_wherever_they_stand():
    """Cut into pieces, one of which has no visible point: the mean is over the others, as in one piece."""
    import dataclasses

    class Half(FakePairs):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return record if index % 2 else dataclasses.replace(record, visible=record.visible & False)

    losses = []
    for at_once in (1, 4):
        one = trainer(steps=1, validate_every=1, batch_size=4, per_device=at_once)
        one.batches.data = Half(pairs=4)
        losses += one.fit().losses
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] > 1


def test_memory_that_runs_out_makes_the_pieces_smaller():
    plans = []

    class Small(FakeBackbone):
        def extract(self, latents, prompt, sampling):
            if torch.is_grad_enabled() and len(latents.keys) > 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
            return super().extract(latents, prompt, sampling)

    one, whole = trainer(batch_size=5), trainer(batch_size=5)
    one.backbone.backbone = Small()
    run = one.fit(watch=Watch(on_plan=lambda plan: plans.append(plan.per_device)))
    assert plans == [5, 3, 2]
    assert run.losses == pytest.approx(whole.fit().losses, abs=1e-5)

    class Tiny(FakeBackbone):
        def extract(self, latents, prompt, sampling):
            if torch.is_grad_enabled():
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
            return super().extract(latents, prompt, sampling)

    one = trainer()
    one.backbone.backbone = Tiny()
    with pytest.raises(TrainingError, match="memory does not suffice for one pair at step 1;"):
        one.fit()


def test_other_failures_of_torch_are_not_taken_for_memory():
    class Broken(FakeBackbone):
        def extract(self, latents, prompt, sampling):
            if torch.is_grad_enabled():
                raise RuntimeError("shapes do not fit")
            return super().extract(latents, prompt, sampling)

    one = trainer()
    one.backbone.backbone = Broken()
    with pytest.raises(RuntimeError, match="shapes"):
        one.fit()


def test_a_gradient_that_is_not_finite_moves_nothing():
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    prompt, inner = Vector(), GaussianCrossEntropy(temperature=0.15)
    one = trainer(prompt, loss=lambda correlation, targets: Poison.apply(inner(correlation, targets)))
    with pytest.raises(TrainingError, match="gradient is not finite at step 1"):
        one.fit()
    assert torch.equal(prompt.vector, torch.zeros_like(prompt.vector))


def test_patience_ends_a_training_that_gets_no_better():
    """A prompt whose gradient is nothing never gets better than at the start."""

    class Idle(Vector):
        def forward(self, images, partners=None):
            prompt = super().forward(images)
            return type(prompt)(prompt.values * 0)

    run = trainer(Idle(), steps=50, validate_every=2, patience=3).fit()
    assert (run.step, run.best_step, run.stopped) == (6, 0, False)


def test_a_learned_temperature_is_learned_read_out_and_kept():
    loss = GaussianCrossEntropy(temperature="learned", initial_temperature=0.5)
    run = trainer(loss=loss, steps=20, validate_every=20, learning_rate=0.1).fit()
    assert run.columns == ("loss", "excess", "learning_rate", "temperature")
    temperatures = run.column("temperature")
    assert temperatures[-1] > 1  # random features are told apart by nothing: flat is best
    assert run.readings() == {"temperature": temperatures[-1]}
    kept = temperatures[run.best_step - 1] if run.best_step else 0.5
    assert loss.readings()["temperature"] == pytest.approx(kept, abs=1e-5)
    with pytest.raises(InputError, match="initial_temperature"):
        GaussianCrossEntropy(temperature=0.1, initial_temperature=0.2)
    with pytest.raises(InputError, match="positive"):
        GaussianCrossEntropy(temperature=0.0)


def test_bfloat16_is_near_and_other_precisions_are_refused(mini):
    from sd4match.config.experiment import build_dataset, load_preset
    from sd4match.errors import ConfigError
    from sd4match.prompting.learned import SinglePrompt

    config = load_preset("mini-single", ["data.photos_per_category=3", "data.pairs=8"])

    def losses(**settings):
        return Trainer(
            backbone=mini, prompt=SinglePrompt(backbone=mini, slots=4), loss=GaussianCrossEntropy(temperature=0.15),
            settings=TrainingSettings(
                steps=1, batch_size=2, validation_pairs=1, sampling=SamplingSettings(timestep=40), **settings
            ),
            train_data=build_dataset(config, "train"), validation_data=build_dataset(config, "validation"),
            validation_matcher=NearestNeighbor(), measurement=Measurement(),
        ).fit().losses  # fmt: skip

    exact, half = losses(), losses(mixed_precision="bf16")
    assert exact != half
    assert exact == pytest.approx(half, rel=0.02)
    one = trainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.Accelerator.mixed_precision", "fp16")
        with pytest.raises(ConfigError, match="use bf16 or no"):
            one.fit()
    with pytest.raises(ConfigError, match="fewer pairs than there are processes"):
        BatchPlan(3, devices=4, per_device=1)


def test_generators_of_others_are_seeded_and_left_alone():
    """A prompt with dropout: the same seed learns the same, and the caller's generator goes on as if nothing was."""

    class Dropping(Vector):
        def forward(self, images, partners=None):
            prompt = super().forward(images)
            return type(prompt)(nn.functional.dropout(prompt.values + 1.0))

    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    first = torch.rand(1).tolist()
    losses = trainer(Dropping()).fit().losses
    assert first + torch.rand(1).tolist() == expected
    assert trainer(Dropping()).fit().losses == losses
