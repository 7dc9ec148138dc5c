from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from helpers.training import DropoutVector, Vector, gaussian_cross_entropy, trainer
from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import SamplingConfig, TrainingConfig
from sd4match.errors import ComponentError, ConfigError, InputError, TrainingError
from sd4match.interfaces import Learned
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.tensors import LossValue, PromptEmbedding
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.batches import BatchSplit
from sd4match.training.checkpoint import Checkpoints
from sd4match.training.history import TrainerCallbacks
from sd4match.training.optimization import Optimization, sum_over_processes
from sd4match.training.trainer import Trainer


def read(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def test_a_prompt_is_learned_validated_and_selected(tmp_path):
    prompt, steps, bests = Vector(), [], []
    snapshots = {}

    def on_best(step, pck):
        bests.append(step)
        snapshots[step] = prompt.vector.detach().clone()

    callbacks = TrainerCallbacks(on_step=lambda run: steps.append(run.step))
    run = trainer(prompt).fit(tmp_path, on_best=on_best, callbacks=callbacks)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in run.validation] == [0, 3, 6]
    assert run.best_step == bests[-1]
    assert torch.equal(prompt.vector, snapshots[run.best_step])
    rows = read(tmp_path / "losses.csv")
    assert [float(row["loss"]) for row in rows] == pytest.approx(run.losses, rel=1e-5)
    assert all(float(row["loss"]) >= float(row["excess_loss"]) >= 0 for row in rows)
    assert len(read(tmp_path / "validation.csv")) == 3


def test_the_same_seed_gives_the_same_losses():
    assert trainer().fit().losses == trainer().fit().losses
    assert trainer().fit().losses != trainer(seed=1).fit().losses


def test_learning_lowers_the_loss_on_its_own_pairs():
    run = trainer(steps=60, learning_rate=0.3, validate_every=60, batch_size=5).fit()
    assert sum(run.losses[-10:]) < sum(run.losses[:10])


@pytest.mark.parametrize(("schedule", "last"), [("constant", 0.01), ("cosine", 0.001)])
def test_the_learning_rate_follows_its_schedule_and_groups_their_scale(schedule, last):
    fitted = trainer(schedule=schedule, learning_rate=0.01)
    run = fitted.fit()
    assert run.column("learning_rate")[0] == pytest.approx(0.01)
    optimization = Optimization([Learned("prompt", fitted.prompt)], fitted.config)
    assert optimization.learning_rate(fitted.config.steps + 1) == pytest.approx(last)
    optimization.step(fitted.config.steps, divide_by=1.0)
    (group,) = optimization.adam.param_groups
    assert group["lr"] == pytest.approx(0.5 * run.column("learning_rate")[-1])


def test_both_directions_average_the_two_losses():
    assert trainer().fit().losses[0] != trainer(both_directions=True).fit().losses[0]


def test_nothing_to_learn_and_no_finite_loss_are_named(mini):
    with pytest.raises(InputError, match="EmptyPrompt has nothing to learn"):
        trainer(EmptyPrompt(backbone=mini))
    with pytest.raises(TrainingError, match="nan at step 1"):
        trainer(loss=lambda correlation, targets: correlation.values.sum() * float("nan")).fit()


def test_single_learns_on_mini(mini):
    from sd4match.config import build_dataset, load_preset
    from sd4match.prompting.config import SinglePromptConfig

    config = load_preset("mini-single", ["data.photos_per_category=3", "data.pairs=8"])
    prompt = SinglePromptConfig(num_tokens=4).build(backbone=mini)
    before = prompt.token_embeddings.detach().clone()
    run = Trainer(
        backbone=mini,
        prompt=prompt,
        loss=gaussian_cross_entropy(),
        config=TrainingConfig(steps=2, batch_size=2, validate_every=2, sampling=SamplingConfig(timestep=40)),
        train_data=build_dataset(config, "train"),
        validation_data=build_dataset(config, "validation"),
        validation_matcher=NearestNeighbor(),
        protocol=EvaluationProtocol(),
    ).fit()
    assert len(run.losses) == 2
    assert run.best_step in (0, 2)
    assert run.best_step == 0 or not torch.equal(before, prompt.token_embeddings)


def test_gradients_are_summed_over_processes_and_what_no_process_used_stays_untouched():
    """Against a fake of two processes, of which the other one used only the second parameter."""
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

    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([2.0, 4.0])
    assert sum_over_processes(parameters, [5.0], TwoProcesses()) == [8.0]
    gradients = [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]
    assert gradients == [[2.0, 4.0], [6.0, 8.0], None]


def test_however_a_batch_is_split_the_step_is_the_same():
    """Micro-batches of one, two and all pairs."""
    prompts = []
    for at_once in (1, 2, 5):
        prompt = Vector()
        cut = trainer(prompt, steps=3, validate_every=3, batch_size=5, per_device=at_once, learning_rate=0.1)
        last = []
        run = cut.fit(
            callbacks=TrainerCallbacks(on_step=lambda run, vector=prompt.vector, last=last: last.append(vector.clone()))
        )
        assert run.batch_split.accumulation == -(-5 // at_once)
        prompts.append(last[-1].detach())
    for other in prompts[1:]:
        assert torch.allclose(prompts[0], other, atol=1e-5)
    assert prompts[0].abs().max() > 0.05


def test_pairs_without_visible_points_do_not_count_in_any_micro_batch():
    """One micro-batch has no visible point: the mean is over the others, as in a single batch."""
    import dataclasses

    class Half(FakePairs):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return record if index % 2 else dataclasses.replace(record, visible=record.visible & False)

    losses = []
    for at_once in (1, 4):
        cut = trainer(train_data=Half(pairs=4), steps=1, validate_every=1, batch_size=4, per_device=at_once)
        losses += cut.fit().losses
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] > 1


def test_micro_batches_are_halved_when_memory_runs_out():
    sizes = []

    class Small(FakeBackbone):
        def extract(self, encoded, prompt, sampling):
            if torch.is_grad_enabled() and len(encoded) > 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
            return super().extract(encoded, prompt, sampling)

    small, whole = trainer(batch_size=5), trainer(batch_size=5)
    small.backbone.backbone = Small()
    run = small.fit(callbacks=TrainerCallbacks(on_batch_split=lambda split: sizes.append(split.per_device)))
    assert sizes == [5, 3, 2]
    assert run.losses == pytest.approx(whole.fit().losses, abs=1e-5)

    class Tiny(FakeBackbone):
        def extract(self, encoded, prompt, sampling):
            if torch.is_grad_enabled():
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
            return super().extract(encoded, prompt, sampling)

    tiny = trainer()
    tiny.backbone.backbone = Tiny()
    with pytest.raises(TrainingError, match="memory does not suffice for one pair at step 1;"):
        tiny.fit()


def test_other_errors_of_torch_are_not_mistaken_for_memory():
    class Broken(FakeBackbone):
        def extract(self, encoded, prompt, sampling):
            if torch.is_grad_enabled():
                raise RuntimeError("shapes do not fit")
            return super().extract(encoded, prompt, sampling)

    broken = trainer()
    broken.backbone.backbone = Broken()
    with pytest.raises(ComponentError, match="the backbone Broken failed: RuntimeError: shapes"):
        broken.fit()


def test_a_gradient_that_is_not_finite_moves_nothing():
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    prompt, inner = Vector(), gaussian_cross_entropy()
    poisoned = trainer(prompt, loss=lambda correlation, targets: Poison.apply(inner(correlation, targets).value))
    with pytest.raises(TrainingError, match="gradient is not finite at step 1"):
        poisoned.fit()
    assert torch.equal(prompt.vector, torch.zeros_like(prompt.vector))


def test_patience_ends_a_training_that_does_not_improve():
    """A prompt whose gradient is zero never gets better than at the start."""

    class Idle(Vector):
        def forward(self, images, partners=None):
            prompt = super().forward(images)
            return PromptEmbedding(prompt.values * 0)

    run = trainer(Idle(), steps=50, validate_every=2, patience=3).fit()
    assert (run.step, run.best_step, run.stopped) == (6, 0, False)


def test_a_learned_temperature_is_learned_logged_and_restored():
    loss = gaussian_cross_entropy(temperature="learned", initial_temperature=0.5)
    run = trainer(loss=loss, steps=20, validate_every=20, learning_rate=0.1).fit()
    assert run.columns == ("loss", "excess_loss", "learning_rate", "temperature")
    temperatures = run.column("temperature")
    assert temperatures[-1] > 1  # random features are told apart by nothing: flat is best
    assert run.log_values() == {"temperature": temperatures[-1]}
    best = temperatures[run.best_step - 1] if run.best_step else 0.5
    assert loss.log_values()["temperature"] == pytest.approx(best, abs=1e-5)
    with pytest.raises(ConfigError, match="initial_temperature"):
        gaussian_cross_entropy(temperature=0.1, initial_temperature=0.2)
    with pytest.raises(ConfigError, match="greater than"):
        gaussian_cross_entropy(temperature=0.0)


@pytest.mark.slow
def test_bfloat16_is_near_and_other_precisions_are_refused(mini):
    from sd4match.config import build_dataset, load_preset
    from sd4match.prompting.config import SinglePromptConfig

    config = load_preset("mini-single", ["data.photos_per_category=3", "data.pairs=8"])

    def losses(**fields):
        return Trainer(
            backbone=mini, prompt=SinglePromptConfig(num_tokens=4).build(backbone=mini), loss=gaussian_cross_entropy(),
            config=TrainingConfig(
                steps=1, batch_size=2, validation_pairs=1, sampling=SamplingConfig(timestep=40), **fields
            ),
            train_data=build_dataset(config, "train"), validation_data=build_dataset(config, "validation"),
            validation_matcher=NearestNeighbor(), protocol=EvaluationProtocol(),
        ).fit().losses  # fmt: skip

    exact, half = losses(), losses(mixed_precision="bf16")
    assert exact != half
    assert exact == pytest.approx(half, rel=0.02)
    unsupported = trainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.Accelerator.mixed_precision", "fp16")
        with pytest.raises(ConfigError, match="use bf16 or no"):
            unsupported.fit()
    with pytest.raises(ConfigError, match="fewer pairs than there are processes"):
        BatchSplit(3, devices=4, per_device=1)


def test_global_generators_are_seeded_and_restored():
    """A prompt with dropout: the same seed gives the same losses, and the caller's generator is restored."""
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    first = torch.rand(1).tolist()
    losses = trainer(DropoutVector()).fit().losses
    assert first + torch.rand(1).tolist() == expected
    assert trainer(DropoutVector()).fit().losses == losses


def test_any_function_is_a_loss_and_a_lower_bound_is_logged_if_the_loss_says_so():
    """A plain function may return a scalar or a `LossValue`; both learn the same as the loss they call."""
    inner = gaussian_cross_entropy()
    expected = trainer(loss=inner).fit()
    scalar = trainer(loss=lambda correlation, targets: inner(correlation, targets).value).fit()
    value = trainer(loss=lambda correlation, targets: LossValue(inner(correlation, targets).value)).fit()
    assert expected.columns == ("loss", "excess_loss", "learning_rate")
    assert scalar.columns == value.columns == ("loss", "learning_rate")
    assert scalar.losses == value.losses == expected.losses


def test_a_resumed_prompt_is_in_training_mode_at_once(tmp_path):
    """A finished training leaves the prompt in evaluation mode; a resumed one must not make steps in it."""

    class Recording(Vector):
        def forward(self, images, partners=None):
            if torch.is_grad_enabled():
                modes.append(self.training)
            return super().forward(images)

    modes, prompt, store = [], Recording(), Checkpoints(tmp_path)
    trainer(prompt, steps=4, validate_every=4).fit(checkpoints=store)
    assert not prompt.training
    trainer(prompt, steps=8, validate_every=4).fit(checkpoints=store, resume=True)
    assert len(modes) == 8
    assert all(modes)
