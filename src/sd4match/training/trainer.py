"""Learning a prompt: built parts in, the best prompt on validation out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from sd4match.backbones.cached import cached
from sd4match.config.protocols import Measurement
from sd4match.config.sections import TrainingSettings
from sd4match.data.subset import first
from sd4match.distributed import Processes
from sd4match.errors import ConfigError, DatasetError, InputError, PhotoError, SD4MatchError, TrainingError
from sd4match.evaluation.evaluator import Evaluator, Rule
from sd4match.interfaces import Backbone, KnowsFloor, Learns, Matcher, MatchingLoss, PairDataset, PromptProvider
from sd4match.prompting.pairing import wanted_views
from sd4match.training.accumulation import Gradient, Sums
from sd4match.training.batches import Batches, BatchPlan
from sd4match.training.checkpoint import Checkpoints
from sd4match.training.history import SELECTION_ALPHA, TrainingRun, Watch
from sd4match.training.metric_logger import Journal
from sd4match.training.optimization import Optimisation, sum_over_processes
from sd4match.training.random_state import own_random_state, random_state, restore_random_state
from sd4match.training.state import TrainingState


class Trainer:
    """Composes a backbone, a prompt that learns, a loss and two data sets; knows no kinds.

    Each step: the pairs of (seed, step), shared out over processes and cut into pieces that memory holds; prompts for
    both sides, one extraction of all photos, correlation, loss; gradients summed over pieces and processes, divided by
    the pairs that counted; a step of Adam on what is learned. So a batch gives the same step, to rounding, however it
    is cut. The backbone stays frozen. At step 0, every `validate_every` steps and at the end the prompt is measured on
    validation pairs; the best one is what remains.

    Args:
        backbone: as built.
        prompt: one that learns.
        loss: may learn too.
        settings: of the training.
        train_data: all processes must be given the same; likewise below.
        validation_data: of which the first `validation_pairs` are measured.
        validation_matcher: with which.
        measurement: how they are counted.
        validation_batch_size: photos, and pairs, that are measured together.

    Raises:
        InputError: there is nothing to learn in the prompt.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: PromptProvider,
        loss: MatchingLoss,
        settings: TrainingSettings,
        train_data: PairDataset,
        validation_data: PairDataset,
        validation_matcher: Matcher,
        measurement: Measurement,
        validation_batch_size: int = 8,
    ) -> None:
        check_learns(prompt)
        self.backbone = cached(backbone)
        self.prompt = prompt
        self.loss = loss
        self.settings = settings
        self.batches = Batches(
            train_data, wanted_views(self.backbone, prompt), seed=settings.seed, batch_size=settings.batch_size
        )
        self.validation_pairs = first(validation_data, settings.validation_pairs)
        self.evaluator = Evaluator(
            backbone=self.backbone,
            rules={"validation": Rule(measurement, validation_matcher)},
            sampling=settings.sampling.sampling(settings.seed),
            batch_size=validation_batch_size,
        )

    def fit(
        self,
        output: Path | None = None,
        *,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_best: Callable[[int, float], None] = lambda step, pck: None,
        watch: Watch | None = None,
    ) -> TrainingRun:
        """Learn, and leave the best prompt in the provider.

        Args:
            output: folder for `losses.csv` and `validation.csv`, for trackers, and for what a validation needs on disk.
            checkpoints: where the state is kept on the way.
            resume: go on from the last of them, if there is one.
            stop: asked after every step; if it says yes, the state is kept and the run ends.
            on_best: called when validation finds a better prompt, which the provider then holds; on the main process.
            watch: what is told of the way; on the main process.

        Raises:
            TrainingError: the loss is not finite, memory does not suffice for one pair, or a file cannot be written.
            DatasetError, PhotoError: a pair cannot be read; the state before its step is kept.
        """
        started = time.perf_counter()
        self._begin(output, checkpoints, stop, on_best, watch or Watch())
        with own_random_state(self.settings.seed + self.processes.index):
            if checkpoints is not None and resume:
                self._go_on_from(checkpoints)
            self._write_down(self.journal.start)
            self.watch.on_plan(self.gradient.plan)
            try:
                self._steps_and_validations()
            finally:
                self.journal.close()
        self.state.take_best()
        self.prompt.eval()  # type: ignore[attr-defined]  # `check_learns` has seen that it is a module
        self.run.plan, self.run.seconds = self.gradient.plan, time.perf_counter() - started
        return self.run

    def _begin(
        self,
        output: Path | None,
        checkpoints: Checkpoints | None,
        stop: Callable[[], bool],
        on_best: Callable[[int, float], None],
        watch: Watch,
    ) -> None:
        settings, self.processes = self.settings, Processes()
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), log_with=list(settings.trackers) or None, project_dir=output
        )
        parts = {"prompt": self.prompt, "loss": self.loss}
        learned = {name: part for name, part in parts.items() if isinstance(part, Learns)}
        self.state = TrainingState(learned, Optimisation(learned, settings), TrainingRun())
        self.run = self.state.run
        excess = ["excess"] if isinstance(self.loss, KnowsFloor) else []
        self.run.columns = ("loss", *excess, "learning_rate", *self.state.readings())
        self.checkpoints, self.stop, self.on_best = checkpoints, stop, on_best
        self.watch = watch if self.processes.is_main else Watch()
        self.gradient = Gradient(
            backbone=self.backbone, prompt=self.prompt, loss=self.loss, settings=settings, batches=self.batches,
            plan=self._plan(), precision=self._precision(), on_plan=self.watch.on_plan,
        )  # fmt: skip
        self.evaluator.scratch = output
        self.journal = Journal(output, self.run, self.accelerator, settings.model_dump(mode="json"))
        self._late_failure: SD4MatchError | None = None

    def _plan(self) -> BatchPlan:
        """A device's whole share at once, unless the settings or the launcher say otherwise."""
        whole = BatchPlan(self.settings.batch_size, self.processes.count, self.settings.batch_size)
        pieces = self.accelerator.gradient_accumulation_steps
        return replace(whole, per_device=min(whole.share, self.settings.per_device or -(-whole.share // pieces)))

    def _precision(self) -> str:
        precision = self.settings.mixed_precision or self.accelerator.mixed_precision
        if precision not in ("no", "bf16"):
            raise ConfigError(f"mixed precision {precision} would need its loss scaled: use bf16 or no")
        return str(precision)

    def _go_on_from(self, checkpoints: Checkpoints) -> None:
        found = self.processes.on_main(checkpoints.latest)
        if found is not None:
            per_device = self.state.restore(found, self.processes)
            if per_device is not None and self.settings.per_device is None:
                plan = self.gradient.plan
                self.gradient.plan = replace(plan, per_device=min(per_device, plan.share))

    def _steps_and_validations(self) -> None:
        asked_to_stop = self._anyone(self.stop())
        while not asked_to_stop:
            if self._validation_is_due():
                asked_to_stop = self._anyone(not self._validate())
            elif self._is_over():
                break
            else:
                asked_to_stop = self._step(self.run.step + 1)
                if self.run.step % self.settings.checkpoint_every == 0 or self._validation_is_due():
                    self._keep()
        self.run.stopped = not self._is_over()
        self._keep()
        self.processes.together(self._late_failure)

    def _validation_is_due(self) -> bool:
        step, settings = self.run.step, self.settings
        return (step % settings.validate_every == 0 or step >= settings.steps) and not self.run.validated(step)

    def _is_over(self) -> bool:
        run, settings = self.run, self.settings
        return (run.step >= settings.steps and run.validated(run.step)) or run.has_stalled(settings.patience)

    def _step(self, step: int) -> bool:
        """One step of Adam on the mean loss of the step's pairs, over all processes; whether anyone asks for a stop."""
        optimisation, failure, own = self.state.optimisation, self._late_failure, Sums()
        before = random_state()

        def begin() -> None:
            optimisation.clear()
            restore_random_state(before)

        try:
            if failure is None:
                own = self.gradient.accumulate(step, self.processes.index, begin=begin)
        except SD4MatchError as error:
            failure = error
        pairs, loss, excess, failures, wishes = sum_over_processes(
            optimisation.parameters,
            (own.pairs, own.loss, own.excess, float(failure is not None), float(self.stop())),
            self.accelerator,
        )
        if failures:
            begin()  # where the step before ended
            self._fail(failure)
        count = max(pairs, 1.0)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step}; a lower training.learning_rate may help")
        optimisation.step(step, divide_by=count)
        known = [excess / count] if "excess" in self.run.columns else []
        rate, readings = optimisation.learning_rate(step), self.state.readings().values()
        self.run.rows.append((loss / count, *known, rate, *readings))
        self._write_down(self.journal.step)
        self.watch.on_step(self.run)
        return wishes > 0

    def _fail(self, own: SD4MatchError | None) -> None:
        """One process's failure ends the training of all; if it is the data's, all before it is kept."""
        error = self.processes.gather([own] if own is not None else [])[0]
        if isinstance(error, (DatasetError, PhotoError)):
            self._keep()
        raise error

    def _validate(self) -> bool:
        """Measure the prompt; False if a stop was asked for, before or at its end."""

        def tell(what: str, done: int, total: int) -> None:
            if self.stop():
                raise _StopAskedError("a stop was asked for")
            if what == "pairs":
                self.watch.on_validating(done, total)

        try:
            with own_random_state(self.settings.seed), _resting(self.prompt):
                scores = self.evaluator.evaluate(self.validation_pairs, self.prompt, progress=tell)["validation"]
        except _StopAskedError:
            return False
        run, value = self.run, scores.pck("image")[f"{SELECTION_ALPHA:g}"]
        run.validation.append((run.step, value))
        if value > run.best_pck:
            run.best_step, run.best_pck, run.best_scores = run.step, value, scores
            self.state.best = self.state.now()
            self.processes.on_main(lambda: self.on_best(run.step, value))
            self._keep()
        self._write_down(self.journal.validation)
        self.watch.on_validation(run)
        return not self.stop()

    def _keep(self) -> None:
        """Write a checkpoint of where everything stands."""
        checkpoints = self.checkpoints
        if checkpoints is not None:
            now = self.state.capture(self.processes, per_device=self.gradient.plan.per_device)
            self.processes.on_main(lambda: checkpoints.write(now, best_step=self.run.best_step))

    def _anyone(self, wish: bool) -> bool:
        """Whether any process wishes it: signals do not reach all of them at once."""
        return any(self.processes.gather([wish]))

    def _write_down(self, write: Callable[[], None]) -> None:
        """On the main process; if that fails, all stop together at the next step."""
        try:
            write()
        except SD4MatchError as error:
            self._late_failure = error


@contextmanager
def _resting(prompt: PromptProvider) -> Iterator[None]:
    """As it will be used: without what is only for learning (dropout), and back."""
    assert isinstance(prompt, nn.Module)
    prompt.eval()
    try:
        yield
    finally:
        prompt.train()


class _StopAskedError(SD4MatchError):
    """A stop was asked for during a validation, which will be made anew."""


def check_learns(prompt: PromptProvider) -> None:
    """Refuse a prompt with which there is nothing to do.

    Raises:
        InputError: it has no parameters.
    """
    if not isinstance(prompt, nn.Module) or not prompt.parameter_groups():
        raise InputError(
            f"{type(prompt).__name__} has nothing to learn; choose a prompt that learns, for example single"
        )
