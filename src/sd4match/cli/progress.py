"""Progress of commands on stderr: bars on a terminal, plain lines elsewhere.

A pipe, a log file or a dumb terminal gets no control characters. Tasks that take two seconds or more print a line at
their end, and one every half minute.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from sd4match.training.history import TrainerCallbacks, TrainingRun

console = Console(stderr=True, highlight=False, markup=False)
"""Console for progress and remarks; results go to stdout."""

_SPEED_STEPS = 50
"""Number of steps over which the speed is averaged."""
_SILENT_SECONDS, _SECONDS_BETWEEN_LINES = 2.0, 30.0


def is_live() -> bool:
    """Return whether stderr is a terminal on which bars can be drawn."""
    return sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal


def tell(line: str) -> None:
    """Print a remark on stderr, folded at the width of a terminal, or on one line elsewhere."""
    console.print(line, soft_wrap=not is_live())


class _Count(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        is_open = task.total is None or task.finished
        return Text("") if is_open else super().render(task).append(" left")


def _columns(width: int) -> list[ProgressColumn]:
    """Return the columns that fit into a terminal; narrow ones have no bar and no elapsed time."""
    name = min(28, max(width // 3, 14))
    one_line = Column(no_wrap=True, overflow="ellipsis", min_width=name, max_width=name)
    bar = min(40, width - name - (36 if width >= 70 else 28))
    return [
        TextColumn("{task.description}", table_column=one_line, markup=False),
        *([BarColumn(bar)] if bar >= 8 else []),
        _Count(table_column=Column(no_wrap=True)),
        *([TimeElapsedColumn(table_column=Column(no_wrap=True))] if width >= 70 else []),
        _Left(compact=True, table_column=Column(no_wrap=True)),
    ]


class Bars(Progress):
    """Progress display with one bar per task, and a line of text below them.

    Nothing is drawn before the first task, so that earlier errors are printed on one line.

    Args:
        visible: False for a process that is not the main one.
        before: text until the first task, for example "loading the model".
        transient: whether the bars disappear at the end.
    """

    def __init__(self, *, visible: bool = True, before: str = "", transient: bool = False) -> None:
        self.status = ""
        self._is_plain = visible and not is_live()
        self._told: dict[TaskID, float] = {}
        self._ended: set[TaskID] = set()
        self._before = before
        self._first: TaskID | None = None
        super().__init__(
            *_columns(console.width), console=console, disable=not visible or self._is_plain, transient=transient
        )

    def __enter__(self) -> Bars:
        if self._before and not self.disable:
            self._first = self.add_task(self._before, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_first()
        if self.live.is_started:
            self.stop()

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        """Add a bar; see `rich.progress.Progress`."""
        self._drop_first()
        self.start()
        return super().add_task(description, *arguments, **options)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a bar; see `rich.progress.Progress`."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move a bar; see `rich.progress.Progress`."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def reset(self, task_id: TaskID, **changes: Any) -> None:
        """Begin a bar again; see `rich.progress.Progress`."""
        super().reset(task_id, **changes)
        self._told.pop(task_id, None)
        self._ended.discard(task_id)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars, and the line below them."""
        yield self.make_tasks_table(self.tasks)
        if self.status:
            yield Text(self.status, no_wrap=True, overflow="ellipsis")

    def _drop_first(self) -> None:
        if self._first is not None:
            self.remove_task(self._first)
            self._first = None

    def _tell(self, task_id: TaskID) -> None:
        """Print a plain line about a task, if enough time has passed."""
        if not self._is_plain or task_id in self._ended:
            return
        task = self._tasks[task_id]
        elapsed = task.elapsed or 0.0
        is_due = elapsed - self._told.get(task_id, 0.0) >= _SECONDS_BETWEEN_LINES
        if task.total is None or not (is_due or (task.finished and elapsed >= _SILENT_SECONDS)):
            return
        self._told[task_id] = elapsed
        if task.finished:
            self._ended.add(task_id)
        left = task.time_remaining
        times = _clock(elapsed) if task.finished else f"{'?' if left is None else _clock(left)} left"
        told = [f"{task.description}: {task.completed:.0f} of {task.total:.0f}", times, *self.status.split("  ")]
        tell(", ".join(text for text in told if text.strip()))


def _clock(seconds: float) -> str:
    """Return a time as m:ss or h:mm:ss.

    >>> _clock(61), _clock(3605)
    ('1:01', '1:00:05')
    """
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress_bar(*, visible: bool = True, before: str = "") -> Iterator[Bars]:
    """Show a bar per task, with counts and the remaining time; until the first task, show the text `before`."""
    with Bars(visible=visible, before=before) as bars:
        yield bars


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal a task of unknown duration, with the elapsed time."""
    with Bars(visible=_is_main(), before=what, transient=True):
        yield


def evaluation_progress(bar: Bars) -> Callable[[str, str, int, int], None]:
    """Return a callback for evaluations that shows the photos and the pairs of each prompt as tasks of a bar."""
    tasks: dict[tuple[str, str], TaskID] = {}

    def on_progress(name: str, what: str, done: int, total: int) -> None:
        if (name, what) not in tasks:
            tasks[name, what] = bar.add_task(f"{name}: {what}", total=total)
        bar.update(tasks[name, what], completed=done)

    return on_progress


def count_progress(bar: Bars, description: str) -> Callable[[int, int], None]:
    """Return a callback that shows a count and its total as one task of a bar."""
    tasks: list[TaskID] = []

    def on_progress(done: int, total: int) -> None:
        if not tasks:
            tasks.append(bar.add_task(description, total=total))
        bar.update(tasks[0], completed=done)

    return on_progress


@contextmanager
def training_progress(steps: int) -> Iterator[TrainerCallbacks]:
    """Show a bar with loss, PCK, speed, remaining time and memory of a training, on the main process only."""
    from sd4match.training.history import TrainerCallbacks

    with Bars(visible=_is_main()) as bar:
        task = bar.add_task("training the prompt", total=steps)
        times: list[tuple[float, int]] = []
        pck = ""

        def on_step(run: TrainingRun) -> None:
            times.append((time.perf_counter(), run.step))
            del times[: -_SPEED_STEPS - 1]
            bar.status = f"{_describe_loss(run)}{pck}  {_describe_speed(times)}{memory_in_use()}"
            bar.update(task, completed=run.step)

        def on_validation_progress(done: int, total: int) -> None:
            bar.status = f"validating: {done} of {total} pairs{pck}"

        def on_validation(run: TrainingRun) -> None:
            nonlocal pck
            best = f" (best {100 * run.best_pck:.1f} at {run.best_step})"
            pck = f"  PCK@0.1 {100 * run.validation[-1][1]:.1f}{best}"
            times.clear()
            bar.status = pck.strip()
            bar.update(task, completed=run.step)

        yield TrainerCallbacks(
            on_batch_split=lambda split: tell(split.describe()),
            on_step=on_step,
            on_validation_progress=on_validation_progress,
            on_validation=on_validation,
        )


def _describe_loss(run: TrainingRun) -> str:
    last = run.last()
    above_bound = f" ({last['excess_loss']:.3f} above its lower bound)" if "excess_loss" in last else ""
    return f"loss {last['loss']:.3f}{above_bound}"


def _describe_speed(times: list[tuple[float, int]]) -> str:
    (since, first), (now, last) = times[0], times[-1]
    return f"{(last - first) / (now - since):.2g} steps/s  " if last > first else ""


def memory_in_use() -> str:
    """Return the peak memory of the CUDA device, or the memory of this process."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB peak"
    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"
