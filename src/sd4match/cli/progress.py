"""Progress bars of the commands, on stderr."""

from __future__ import annotations

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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from sd4match.training.history import TrainerCallbacks, TrainingRun

console = Console(stderr=True, highlight=False)
"""Console for progress and remarks; results go to stdout."""

_SPEED_STEPS = 50
"""Number of last steps over which the speed is averaged."""


def _columns(description: str) -> tuple[ProgressColumn, ...]:
    return (
        TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip


class _TaskBars(Progress):
    """One bar per task. Nothing is printed before the first task, so that earlier errors are one line."""

    def __enter__(self) -> _TaskBars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live.is_started:
            self.stop()

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        self.start()
        return super().add_task(description, *arguments, **options)


@contextmanager
def progress_bar(*, visible: bool = True) -> Iterator[Progress]:
    """Show a bar per task, with counts and the remaining time."""
    with _TaskBars(*_columns("{task.description:<28}"), console=console, disable=not visible) as bars:
        yield bars


def evaluation_progress(bar: Progress) -> Callable[[str, str, int, int], None]:
    """Return a callback for evaluations that shows the photos and the pairs of each prompt as tasks of a bar."""
    tasks: dict[tuple[str, str], TaskID] = {}

    def on_progress(name: str, what: str, done: int, total: int) -> None:
        if (name, what) not in tasks:
            tasks[name, what] = bar.add_task(f"{name}: {what}", total=total)
        bar.update(tasks[name, what], completed=done)

    return on_progress


def count_progress(bar: Progress, description: str) -> Callable[[int, int], None]:
    """Return a callback that shows how many things are done, and how many there are, as one task of a bar."""
    tasks: list[TaskID] = []

    def on_progress(done: int, total: int) -> None:
        if not tasks:
            tasks.append(bar.add_task(description, total=total))
        bar.update(tasks[0], completed=done)

    return on_progress


class _TrainingBar(Progress):
    """Bar with a line of text below it."""

    status = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.status)


@contextmanager
def training_progress(steps: int) -> Iterator[TrainerCallbacks]:
    """Show a bar with loss, PCK, speed, remaining time and memory of a training, on the main process only."""
    from sd4match.distributed import Processes
    from sd4match.training.history import TrainerCallbacks

    columns = _columns("training the prompt")
    with _TrainingBar(*columns, console=console, disable=not Processes().is_main) as bar:
        task = bar.add_task("", total=steps)
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
            on_batch_split=lambda split: console.print(split.describe()),
            on_step=on_step,
            on_validation_progress=on_validation_progress,
            on_validation=on_validation,
        )


def _describe_loss(run: TrainingRun) -> str:
    last = run.last()
    excess = f" ({last['excess_loss']:.3f} above its lower bound)" if "excess_loss" in last else ""
    return f"loss {last['loss']:.3f}{excess}"


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
