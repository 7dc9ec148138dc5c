"""Trainer of a prompt and of other components that learn, with selection of the best values on validation pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from sd4match.arguments import check_arguments
from sd4match.backbones.cached import cached
from sd4match.checks import check_count
from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import TrainingConfig
from sd4match.data.checked import check_dataset
from sd4match.data.subset import first
from sd4match.distributed import Processes
from sd4match.errors import (
    ComponentError,
    ConfigError,
    DatasetError,
    InputError,
    PhotoError,
    SD4MatchError,
    TrainingError,
    shown,
)
from sd4match.evaluation.evaluator import Evaluator
from sd4match.interfaces import Backbone, Learned, MatchingLoss, PairDataset, Prompt, evaluation_mode, learns
from sd4match.interfaces.calls import describe_component
from sd4match.interfaces.learning import SORTS
from sd4match.paths import as_path
from sd4match.prompting.pairing import preprocessors
from sd4match.structures.tensors import LossFunction, MatchFunction, PairFunction
from sd4match.training.accumulation import GradientAccumulator, LossTotals
from sd4match.training.batches import Batches, BatchSplit
from sd4match.training.checkpoint import Checkpoints
from sd4match.training.history import SELECTION_ALPHA, TrainerCallbacks, TrainingRun
from sd4match.training.losses import as_matching_loss
from sd4match.training.metric_logger import MetricLogger
from sd4match.training.optimization import Optimization, sum_over_processes
from sd4match.training.random_state import random_state, restore_random_state, seeded_random_state
from sd4match.training.state import TrainingState

_VALIDATION = "validation"


class Trainer:
    """Trainer of a prompt and of the other components that learn: a matcher, a pair transform, a loss.

    One step draws the pairs of (seed, step) and splits them over processes and into micro-batches that fit into memory.
    It computes prompts for both sides, extracts all photos at once, correlates, and computes the loss. It sums the
    gradients over micro-batches and processes, divides them by the number of pairs with a visible point, and makes one
    step of Adam. The result is the same up to rounding for every split. The backbone stays frozen. At step 0, every
    `validate_every` steps and at the end, the prompt is measured on validation pairs, and the best values are selected.

    Args:
        backbone: frozen backbone.
        prompt: prompt, learned or not; prompt, matcher or pair transform must have parameters.
        loss: a `MatchingLoss`, which may have parameters, or any function `(Correlation, Keypoints) -> scalar`.
        config: settings of the training.
        train_data: training pairs; the same on all processes.
        validation_data: validation pairs, of which the first `config.validation_pairs` are measured; the same on all
            processes.
        validation_matcher: matcher of the validation; if `matcher` learns, it is used instead.
        protocol: rule by which correct matches are counted.
        validation_batch_size: number of photos, and of pairs, that are measured together.
        matcher: matcher whose matches a loss with `takes_matches` gets, and which may learn; other losses do not use
            it.
        pair_transform: transform of both maps, which must learn.

    Raises:
        InputError: nothing that matches depend on has parameters, or an argument is of another type.
        ConfigError: the protocol does not have the alpha of the selection; a matcher learns and the loss does not take
            matches; or a pair transform learns nothing.
        DatasetError: there are no training or no validation pairs.

    >>> from sd4match.config import get_protocol
    >>> from sd4match.matching import GaussianCrossEntropy, NearestNeighbor
    >>> from sd4match.prompting import SinglePromptConfig
    >>> from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> trainer = Trainer(
    ...     backbone=backbone, prompt=SinglePromptConfig().build(backbone=backbone), loss=GaussianCrossEntropy(),
    ...     config=TrainingConfig(steps=2, batch_size=2), train_data=FakePairs(), validation_data=FakePairs(),
    ...     validation_matcher=NearestNeighbor(), protocol=get_protocol("sd4match"),
    ... )
    >>> trainer.fit().step
    2
    """

    @check_arguments
    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: Prompt,
        loss: MatchingLoss | LossFunction,
        config: TrainingConfig,
        train_data: PairDataset,
        validation_data: PairDataset,
        validation_matcher: MatchFunction,
        protocol: EvaluationProtocol,
        validation_batch_size: int = 8,
        matcher: MatchFunction | None = None,
        pair_transform: PairFunction | None = None,
    ) -> None:
        check_count("validation_batch_size", validation_batch_size)
        check_learns(prompt=prompt, loss=loss, matcher=matcher, pair_transform=pair_transform)
        check_selection_alpha(protocol)
        check_dataset(train_data, what="train_data")
        check_dataset(validation_data, what="validation_data")
        self.backbone = cached(backbone)
        self.prompt = prompt
        self.loss = as_matching_loss(loss)
        self.config = config
        self.batches = Batches(
            train_data, preprocessors(self.backbone, prompt), seed=config.seed, batch_size=config.batch_size
        )
        self.validation_pairs = first(validation_data, config.validation_pairs)
        self.matcher = matcher if getattr(loss, "takes_matches", False) else None
        self.pair_transform = pair_transform
        self.validation_matcher = matcher if matcher is not None and learns(matcher) else validation_matcher
        self.protocol = protocol
        self.validation_batch_size = validation_batch_size

    @check_arguments
    def fit(
        self,
        output: str | Path | None = None,
        *,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_best: Callable[[int, float], None] = lambda step, pck: None,
        callbacks: TrainerCallbacks | None = None,
    ) -> TrainingRun:
        """Train, and set the learned values to the best ones that validation found.

        Args:
            output: folder for `losses.csv` and `validation.csv`, for trackers, and for temporary feature maps; None:
                none.
            checkpoints: folder of checkpoints; None: the state is not saved.
            resume: continue from the latest checkpoint, if there is one.
            stop: called after every step and during a validation; if it returns True on any process, the state is saved
                and the run ends on all.
            on_best: called on the main process with step and PCK when validation finds a better prompt.
            callbacks: further functions to call on the main process.

        Returns:
            The history of the training.

        Raises:
            ConfigError: the precision is not supported, or the protocol does not fit the backbone.
            TrainingError: the loss is not finite, memory does not suffice for one pair, a checkpoint does not fit, or a
                file cannot be written.
            DatasetError, PhotoError: a pair cannot be read; the state before its step is saved.
            ComponentError: a custom component raises another error, or returns a value that its interface does not
                allow.
        """
        run = _Run(
            self,
            None if output is None else as_path(output, what="output"),
            checkpoints,
            stop,
            on_best,
            callbacks or TrainerCallbacks(),
        )
        with seeded_random_state(self.config.seed + run.processes.index), closing(run.logger):
            if resume:
                run.resume()
            run.run()
        return run.finish()


class _Run:
    """State of one call of `Trainer.fit`.

    Args:
        trainer: components, data and settings.
        output: see `Trainer.fit`, also for the other arguments.
    """

    def __init__(
        self,
        trainer: Trainer,
        output: Path | None,
        checkpoints: Checkpoints | None,
        stop: Callable[[], bool],
        on_best: Callable[[int, float], None],
        callbacks: TrainerCallbacks,
    ) -> None:
        self.started = time.perf_counter()
        self.config = config = trainer.config
        self.prompt = trainer.prompt
        self.loss = trainer.loss
        self.validation_pairs = trainer.validation_pairs
        self.checkpoints = checkpoints
        self.stop = stop
        self.on_best = on_best
        self.processes = Processes()
        self.callbacks = callbacks if self.processes.is_main else TrainerCallbacks()
        self.accelerator = _accelerator(config, output)
        self.learned = [Learned(name, getattr(trainer, name)) for name in SORTS if getattr(trainer, name) is not None]
        self.history = TrainingRun()
        self.state = TrainingState(self.learned, Optimization(self.learned, config), self.history)
        excess_column = ["excess_loss"] if self.loss.has_lower_bound else []
        self.logged = tuple(self.state.log_values())
        self.history.columns = ("loss", *excess_column, "learning_rate", *self.logged)
        self.accumulator = GradientAccumulator(
            backbone=trainer.backbone, prompt=self.prompt, loss=self.loss, matcher=trainer.matcher,
            pair_transform=trainer.pair_transform, config=config, batches=trainer.batches,
            split=_batch_split(config, self.processes, self.accelerator),
            precision=_precision(config, self.accelerator), on_split=self.callbacks.on_batch_split,
        )  # fmt: skip
        self.evaluator = Evaluator(
            backbone=trainer.backbone, protocol=trainer.protocol, matchers={_VALIDATION: trainer.validation_matcher},
            sampling=config.sampling.sampling(config.seed), batch_size=trainer.validation_batch_size, scratch=output,
            pair_transform=trainer.pair_transform,
        )  # fmt: skip
        self.logger = MetricLogger(output, self.history, self.accelerator, config.model_dump(mode="json"))
        self.stop_requested = False
        self.late_failure: SD4MatchError | None = None
        """Error of writing metrics on this process; raised on all processes at the next step."""

    def resume(self) -> None:
        """Restore the latest checkpoint, if there is one."""
        checkpoint = None if self.checkpoints is None else self.processes.on_main(self.checkpoints.latest)
        if checkpoint is not None:
            try:
                per_device = self.state.restore(checkpoint, self.processes)
            except TrainingError as error:
                raise TrainingError(f"{checkpoint.name} cannot be resumed from: {error}") from None
            if per_device is not None and self.config.per_device is None:
                split = self.accumulator.split
                self.accumulator.split = replace(split, per_device=min(per_device, split.share))

    def run(self) -> None:
        """Make steps, log them, validate and write checkpoints, until the training is over or a stop is requested."""
        for component in self.learned:
            component.train()
        self.log(self.logger.start)
        self.callbacks.on_batch_split(self.accumulator.split)
        self.stop_requested = self.processes.any(self.stop())
        while not (self.stop_requested or self.is_over()):
            if self.is_validation_due():
                self.validate()
            else:
                self.step()
                if self.is_checkpoint_due():
                    self.write_checkpoint()
        self.history.stopped = not self.is_over()
        self.write_checkpoint()
        self.processes.together(self.late_failure)

    def finish(self) -> TrainingRun:
        """Set the learned values to the best ones, and return the history."""
        self.state.load_best()
        for component in self.learned:
            component.train(False)
        self.history.batch_split = self.accumulator.split
        self.history.seconds = time.perf_counter() - self.started
        return self.history

    def is_validation_due(self) -> bool:
        """Return whether the prompt must be measured before the next step."""
        step, config = self.history.step, self.config
        return (step % config.validate_every == 0 or step >= config.steps) and not self.history.is_validated(step)

    def is_checkpoint_due(self) -> bool:
        """Return whether the state is to be saved after this step."""
        return self.history.step % self.config.checkpoint_every == 0 or self.is_validation_due()

    def is_over(self) -> bool:
        """Return whether all steps are made, or validation has stalled, and the last validation is made."""
        is_at_end = self.history.step >= self.config.steps or self.history.has_stalled(self.config.patience)
        return is_at_end and not self.is_validation_due()

    def step(self) -> None:
        """Make one step of Adam on the mean loss of the step's pairs over all processes, and log it."""
        step, optimization = self.history.step + 1, self.state.optimization
        totals = self.compute_gradient(step)
        if not math.isfinite(totals.loss):
            raise TrainingError(f"the loss is {totals.loss} at step {step}; {self.describe_cause()}")
        count = max(totals.pairs, 1.0)
        optimization.step(step, divide_by=count)
        excess_loss = [totals.excess_loss / count] if self.loss.has_lower_bound else []
        values = (totals.loss / count, *excess_loss, optimization.learning_rate(step), *self.log_values())
        self.history.rows.append(values)
        self.log(self.logger.log_step)
        self.callbacks.on_step(self.history)

    def log_values(self) -> tuple[float, ...]:
        """Return the logged values of the components, in the order of the columns.

        Raises:
            ComponentError: the names are not those of the first step.
        """
        values = self.state.log_values()
        if tuple(values) != self.logged:
            raise ComponentError(
                f"components must log the same names after every step: {shown(list(self.logged))} at first, and "
                f"{shown(list(values))} at step {self.history.step + 1}"
            )
        return tuple(values.values())

    def describe_cause(self) -> str:
        """Return a likely cause of a loss that is not finite."""
        for name, component in self.state.learned.items():
            if not all(tensor.isfinite().all() for tensor in component.state_dict().values()):
                return f"the values of the {name} are not finite: a lower training.learning_rate may help"
        return (
            "a lower training.learning_rate may help; what is learned is finite, so that "
            f"{describe_component('loss', self.loss)} itself overflows"
        )

    def compute_gradient(self, step: int) -> LossTotals:
        """Compute the summed gradient of all processes, and exchange failures and stop requests with it.

        Raises:
            SD4MatchError: a process failed; the same error is raised on all processes.
        """
        own, failure, before = LossTotals(), self.late_failure, random_state()

        def reset() -> None:
            self.state.optimization.zero_grad()
            restore_random_state(before)

        try:
            if failure is None:
                own = self.accumulator.accumulate(step, self.processes.index, reset=reset)
        except SD4MatchError as error:
            failure = error
        pairs, loss, excess_loss, failures, stops = sum_over_processes(
            self.state.optimization.parameters,
            (own.pairs, own.loss, own.excess_loss, float(failure is not None), float(self.stop())),
            self.accelerator,
        )
        if failures:
            reset()  # back to the state after the previous step
            self.fail(failure)
        self.stop_requested = stops > 0
        return LossTotals(pairs, loss, excess_loss)

    def fail(self, failure: SD4MatchError | None) -> None:
        """Raise the first failure of any process on all processes; save the state first if data could not be read."""
        first_failure = self.processes.gather([failure] if failure is not None else [])[0]
        if isinstance(first_failure, (DatasetError, PhotoError)):
            self.write_checkpoint()
        raise first_failure

    def validate(self) -> None:
        """Measure the prompt. If a stop is requested meanwhile, nothing is recorded, and it is measured on resume."""
        history = self.history
        with seeded_random_state(self.config.seed), evaluation_mode(*(each.component for each in self.learned)):
            measured = self.evaluator.evaluate(
                self.validation_pairs, self.prompt, progress=self.report_validation_progress, should_stop=self.stop
            )
        if measured is None:
            self.stop_requested = True
            return
        scores = measured[_VALIDATION]
        pck = scores.pck("image")[f"{SELECTION_ALPHA:g}"]
        history.validation.append((history.step, pck))
        if pck > history.best_pck:
            history.best_step, history.best_pck, history.best_scores = history.step, pck, scores
            self.state.save_best()
            self.processes.on_main(lambda: self.on_best(history.step, pck))
            self.write_checkpoint()
        self.log(self.logger.log_validation)
        self.callbacks.on_validation(history)
        self.stop_requested = self.processes.any(self.stop())

    def report_validation_progress(self, what: str, done: int, total: int) -> None:
        """Pass the evaluator's progress over pairs to the callback."""
        if what == "pairs":
            self.callbacks.on_validation_progress(done, total)

    def write_checkpoint(self) -> None:
        """Save the state of all processes."""
        checkpoints = self.checkpoints
        if checkpoints is not None:
            checkpoint = self.state.capture(self.processes, per_device=self.accumulator.split.per_device)
            self.processes.on_main(lambda: checkpoints.write(checkpoint, best_step=self.history.best_step))

    def log(self, write: Callable[[], None]) -> None:
        """Write metrics; if that fails, all processes raise the error together at the next step or at the end."""
        try:
            write()
        except SD4MatchError as error:
            self.late_failure = error


def _batch_split(config: TrainingConfig, processes: Processes, accelerator: Accelerator) -> BatchSplit:
    """Return a split in which a device takes its whole share at once, unless config or launcher set fewer pairs."""
    whole = BatchSplit(config.batch_size, processes.count, config.batch_size)
    share = -(-whole.share // accelerator.gradient_accumulation_steps)
    return replace(whole, per_device=min(whole.share, config.per_device or share))


def _accelerator(config: TrainingConfig, output: Path | None) -> Accelerator:
    """Return the `Accelerator` of this process.

    Raises:
        ConfigError: accelerate refuses the settings of its launcher or of the environment.
    """
    try:
        return Accelerator(
            cpu=not torch.cuda.is_available(), log_with=list(config.trackers) or None, project_dir=output
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"accelerate cannot start: {error}; see the environment variables ACCELERATE_*") from None


def _precision(config: TrainingConfig, accelerator: Accelerator) -> str:
    precision = config.mixed_precision or accelerator.mixed_precision
    if precision not in ("no", "bf16"):
        raise ConfigError(f"mixed precision {precision} would need its loss scaled: use bf16 or no")
    return str(precision)


def check_selection_alpha(protocol: EvaluationProtocol) -> None:
    """Check that a protocol measures the alpha by which the best prompt is selected.

    Raises:
        ConfigError: the alpha is missing.
    """
    if SELECTION_ALPHA not in protocol.alphas:
        raise ConfigError(
            f"evaluation.protocol.alphas = {list(protocol.alphas)} must contain {SELECTION_ALPHA:g}: the best prompt "
            "is selected by its PCK there"
        )


def check_learns(*, prompt: Prompt, loss: object, matcher: object = None, pair_transform: object = None) -> None:
    """Check that a component learns, and that none learns without an effect.

    Raises:
        InputError: nothing that matches depend on is learned.
        ConfigError: a matcher learns, and the loss does not take matches; the loss does, and there is no matcher; or a
            pair transform learns nothing.
    """
    if pair_transform is not None:
        check_transform_learns(pair_transform)
    takes_matches = getattr(loss, "takes_matches", False)
    if takes_matches and matcher is None:
        raise ConfigError(f"{describe_component('loss', loss)} takes matches: give the matcher that they are of")
    if learns(matcher) and not takes_matches:
        raise ConfigError(
            f"{describe_component('matcher', matcher)} learns, and {describe_component('loss', loss)} does not take "
            "matches: choose a loss that does, for example end_point_error"
        )
    if not any(map(learns, (prompt, matcher, pair_transform))):  # a learned loss alone changes no match
        raise InputError(
            f"{type(prompt).__name__} has nothing to learn; choose a prompt that learns, for example single, or a "
            "matcher or a pair transform that does"
        )


def check_transform_learns(pair_transform: object) -> None:
    """Check that the pair transform of a training learns.

    Raises:
        ConfigError: it has no parameters.
    """
    if not learns(pair_transform):
        raise ConfigError(
            "pair_transform is for matching; a prompt is learned on the maps themselves, and this transform learns "
            "nothing: leave it out"
        )
