"""Training of a prompt on points that a user clicked, with progress and a stop button on the page."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Lock, Thread

import numpy as np
from torch import Tensor

from sd4match.app.matching import Model, Point
from sd4match.backbones.pretrained import model_facts
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.presets import load_preset
from sd4match.errors import InputError, PhotoError, shown
from sd4match.evaluation.evaluator import Evaluator
from sd4match.interfaces import PairDataset, Prompt
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.serialization import save_prompt
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord
from sd4match.training.history import SELECTION_ALPHA, TrainerCallbacks, TrainingRun
from sd4match.training.trainer import Trainer

FEWEST_POINTS = 3
MOST_STEPS = 1000
_SECONDS_BETWEEN_REPORTS = 0.3
_NOTHING_LEARNED = "the training was stopped before its first step: nothing was learned"


class ClickedPairs(PairDataset):
    """Data set of one pair of photos in memory, with the points that a user clicked in both.

    Args:
        photos: source and target.
        source_points: N points (x, y) in pixels of the source.
        target_points: N corresponding points in pixels of the target.

    Raises:
        InputError: there are fewer than `FEWEST_POINTS`, or not as many in both.

    >>> black = Photo(np.zeros((60, 90, 3), dtype=np.uint8))
    >>> points = [(10.0, 10.0), (40.0, 20.0), (80.0, 50.0)]
    >>> ClickedPairs((black, black), points, points)[0].visible.sum()
    np.int64(3)
    """

    name = "clicked"
    split = "train"
    categories = ()
    reference = "photo"

    def __init__(
        self, photos: tuple[Photo, Photo], source_points: Sequence[Point], target_points: Sequence[Point]
    ) -> None:
        if len(source_points) != len(target_points):
            raise InputError(
                f"{len(source_points)} points in the left photo, and {len(target_points)} in the right one"
            )
        if len(source_points) < FEWEST_POINTS:
            raise InputError(
                f"click at least {FEWEST_POINTS} points, each in the left photo and then in the right one; "
                f"there are {len(source_points)}"
            )
        self._photos = dict(zip(("source", "target"), photos, strict=True))
        self._record = PairRecord(
            pair_id="clicked", source_id="source", target_id="target",
            source_size=photos[0].size, target_size=photos[1].size,
            source_points=np.array(source_points, dtype=np.float64),
            target_points=np.array(target_points, dtype=np.float64),
            visible=np.ones(len(source_points), dtype=np.bool_),
        )  # fmt: skip
        self.keys: tuple[PairKey, ...] = (self._record,)

    def __getitem__(self, index: int) -> PairRecord:
        return self._record

    def photo(self, image_id: str) -> Photo:
        """Return the photo "source" or "target".

        Raises:
            PhotoError: another name.
        """
        if image_id not in self._photos:
            raise PhotoError(f"no photo {shown(image_id)} in a clicked pair")
        return self._photos[image_id]


@dataclass(frozen=True, eq=False)
class Progress:
    """State of a training at one moment."""

    losses: tuple[float, ...]
    """Loss of every step above its lower bound; the loss itself if it has no bound."""
    steps: int
    pck: tuple[float, ...]
    """PCK@0.1 on the clicked points themselves, before the first step and after the last one."""
    file: Path | None = None
    """File of the learned prompt, once the training is over."""
    waits: bool = False
    """True while the training of another page has to end first."""

    def __str__(self) -> str:
        if self.waits:
            return "Waits until another page's training has ended; Stop gives it up."
        text = f"Step {len(self.losses)} of {self.steps}"
        if self.losses:
            text += f", loss {self.losses[-1]:.3f} above its lower bound"
        if self.file is not None:
            text = f"Done after {len(self.losses)} of {self.steps} steps"
            if len(self.pck) == 2:
                text += (
                    f": of your own points {100 * self.pck[0]:.0f} % are found before, {100 * self.pck[1]:.0f} % after"
                )
        return text


class Training:
    """Training of a Single prompt in a thread of its own.

    The prompt after the last step is saved. The best step cannot be chosen, since all clicked points are used for
    training.

    Args:
        model: model with a frozen backbone; its lock is released between steps, so that other sessions can match.
        pairs: training pairs.
        steps: number of steps of Adam.
        file: prompt file to write.
        seed: seed of the initial prompt and the noise.

    Raises:
        InputError: the model takes no prompt, or another number of steps than 1 to `MOST_STEPS`.
    """

    def __init__(self, model: Model, pairs: ClickedPairs, *, steps: int, file: Path, seed: int = 0) -> None:
        if not model.takes_prompt:
            raise InputError(f"{model.name} takes no prompt, so there is nothing to learn: choose another model")
        if not 1 <= steps <= MOST_STEPS:
            raise InputError(f"steps must be from 1 to {MOST_STEPS}, not {steps}")
        self.model, self.pairs, self.steps, self.file, self.seed = model, pairs, steps, file, seed
        self._stop = Event()
        self._reports: Queue[Progress | None] = Queue()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Stop the training after the current step; the prompt of that step is saved."""
        self._stop.set()

    def progress(self, turn: Lock | None = None) -> Generator[Progress]:
        """Start the training, and yield its state repeatedly and at the end; leaving the iteration stops it.

        Args:
            turn: lock that is held while the training runs; until it is free, the state says that the training waits.

        Raises:
            InputError: it was stopped before its first step.
            SD4MatchError: the training cannot go on.
        """
        turn = turn or Lock()
        while not turn.acquire(timeout=_SECONDS_BETWEEN_REPORTS):
            if self._stop.is_set():
                raise InputError(_NOTHING_LEARNED)
            yield Progress((), self.steps, (), waits=True)
        try:
            yield from self._watched()
        finally:
            turn.release()

    def _watched(self) -> Iterator[Progress]:
        self._thread.start()
        try:
            while (report := self._latest_report()) is not None:
                yield report
        finally:
            self.stop()
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _latest_report(self) -> Progress | None:
        report = self._reports.get()
        try:
            while report is not None and report.file is None:
                report = self._reports.get_nowait()
        except Empty:
            time.sleep(_SECONDS_BETWEEN_REPORTS)
        return report

    def _run(self) -> None:
        try:
            self._reports.put(self._learn())
        except BaseException as failure:  # is raised where the page waits
            self._failure = failure
        self._reports.put(None)

    def _learn(self) -> Progress:
        """Train, write the file, and return the last state."""
        with self.model.lock:
            config = self.model.config
            single = _single(config).model_copy(update={"seed": self.seed})
            prompt = single.build(backbone=self.model.backbone).to(self.model.backbone.device)
            training = config.training.model_copy(
                update={
                    "steps": self.steps, "batch_size": 1, "per_device": None, "validate_every": self.steps,
                    "validation_pairs": None, "patience": None, "trackers": (), "seed": self.seed,
                }
            )  # fmt: skip
            trainer = Trainer(
                backbone=self.model.backbone, prompt=prompt, loss=config.loss.build(), config=training,
                train_data=self.pairs, validation_data=self.pairs,
                validation_matcher=training.validation_matcher.build(), protocol=config.evaluation.protocol,
            )  # fmt: skip
            last: dict[str, Tensor] = {}

            def on_step(run: TrainingRun) -> None:
                last.update({name: value.detach().clone() for name, value in prompt.state_dict().items()})
                self._reports.put(self._state(run))
                self._let_others_match()

            callbacks = TrainerCallbacks(on_step=on_step, on_validation=lambda run: self._reports.put(self._state(run)))
            run = trainer.fit(stop=self._stop.is_set, callbacks=callbacks)
            if not last:
                raise InputError(_NOTHING_LEARNED)
            prompt.load_state_dict(last)
            details = {
                **model_facts(config.backbone.model_name), "layer": self.model.backbone.spec.layer,
                "training_timestep": training.sampling.timestep, "data": "points clicked in one pair of photos",
                "points": len(self.pairs[0].visible), "step": run.step, "seed": self.seed,
            }  # fmt: skip
            save_prompt(prompt, self.file, backbone=self.model.backbone, details=details)
            if run.stopped and len(run.validation) == 1:  # the trainer measures a stopped run when it is resumed
                run.validation.append((run.step, _pck(trainer, prompt)))
            return self._state(run, file=self.file)

    def _state(self, run: TrainingRun, *, file: Path | None = None) -> Progress:
        losses = run.column("excess_loss") or run.losses
        return Progress(tuple(losses), self.steps, tuple(pck for _, pck in run.validation), file)

    def _let_others_match(self) -> None:
        """Release the lock of the model for a moment, since no other thread gets a lock that is taken again at once."""
        self.model.lock.release()
        time.sleep(0.002)
        self.model.lock.acquire()


def _pck(trainer: Trainer, prompt: Prompt) -> float:
    """Return PCK@0.1 of a prompt on the pairs with which the trainer validates."""
    evaluator = Evaluator(
        backbone=trainer.backbone, protocol=trainer.protocol, matchers={"validation": trainer.validation_matcher},
        sampling=trainer.config.sampling.sampling(trainer.config.seed), batch_size=trainer.validation_batch_size,
    )  # fmt: skip
    measured = evaluator.evaluate(trainer.validation_pairs, prompt)
    return measured["validation"].pck("image")[f"{SELECTION_ALPHA:g}"]


def _single(config: ExperimentConfig) -> SinglePromptConfig:
    """Return the Single prompt of an experiment, or else of the experiment "single" on the same model."""
    if config.backbone.kind == "stable_diffusion" and not isinstance(config.prompt, SinglePromptConfig):
        config = load_preset("single", [f"backbone.weights={json.dumps(config.backbone.model_name)}"])
    return config.prompt if isinstance(config.prompt, SinglePromptConfig) else SinglePromptConfig()
