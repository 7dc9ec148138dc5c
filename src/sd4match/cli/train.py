"""`sd4match train`: learn a prompt, and go on where one was left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import (
    BackboneName,
    CacheLimit,
    ConfigFile,
    Dataset,
    Device,
    Dtype,
    Preset,
    Root,
    Set,
    ShowConfig,
)

if TYPE_CHECKING:
    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.training.history import TrainingRun, Watch

_DEFAULT_OUTPUT = Path("runs/train")


def command(
    output: Annotated[
        Path | None,
        typer.Option(help=f"Folder for prompt.safetensors, report.json and all else; {_DEFAULT_OUTPUT} if not given."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the training in this folder, from its last checkpoint.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew in a folder that holds a training already.")
    ] = False,
    preset: Preset = None,
    dataset: Dataset = None,
    root: Root = None,
    config: ConfigFile = None,
    backbone: BackboneName = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of training.steps.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the initial prompt, the order of pairs and the noise.")
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="A tracker of accelerate, for example tensorboard; may be repeated.")
    ] = None,
    cache_limit: CacheLimit = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Learn a prompt; the best one on validation is kept. SIGTERM and Ctrl-C save the state and end it."""
    import json

    from sd4match.cli.common import cache_changes, check_output, data_changes, read_config, show_config
    from sd4match.errors import ConfigError

    changes = [*data_changes(dataset, root), *cache_changes(cache_limit)]
    changes += [f"training.steps={steps}"] if steps is not None else []
    changes += [f"seed={seed}"] if seed is not None else []
    changes += [f"training.trackers={json.dumps(track)}"] if track else []
    if resume is not None:
        others = {"--output": output, "--preset": preset, "--config": config, "--overwrite": overwrite}
        for name, value in others.items():
            if value:
                raise ConfigError(f"--resume goes on in its own folder with its own config: leave {name} out")
        output, config = resume, started_config(resume)
    output = output or _DEFAULT_OUTPUT
    settings = read_config(
        preset=preset, config=config, overrides=[*changes, *(overrides or ())], default="single", backbone=backbone,
        dtype=dtype,
    )  # fmt: skip
    if show:
        show_config(settings)
    check_output(output)
    if resume is None:
        _claim(output, overwrite=overwrite)

    from sd4match.training.stopping import stop_on_signals

    with stop_on_signals() as stop, _announced(settings, output):
        _learn(settings, output, device=device, resume=resume is not None, stop=stop)


def started_config(output: Path) -> Path:
    """The config of the training in a folder.

    Raises:
        InputError: there is no training.
    """
    from sd4match.errors import InputError

    file = output / "config.yaml"
    if not file.is_file():
        raise InputError(f"--resume {output}: there is no training in it (no {file.name}); start one with --output")
    return file


def _claim(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder in which a training would be lost."""
    if not overwrite and _holds_training(output):
        from sd4match.errors import InputError
        from sd4match.training.run import resume_command

        raise InputError(
            f"--output {output} holds a training already: go on with {resume_command(output)}, "
            "choose another folder, or start anew with --overwrite"
        )


def _holds_training(output: Path) -> bool:
    return (output / "prompt.safetensors").exists() or any((output / "checkpoints").glob("step-*.safetensors"))


@contextmanager
def _announced(settings: ExperimentConfig, output: Path) -> Iterator[None]:
    """Write the config of a new training at once: if it is killed while models load, --resume knows what was meant.

    A training that is refused before its first state leaves nothing. What stands there already is not touched: it is
    replaced once the new training begins.
    """
    from sd4match.errors import SD4MatchError
    from sd4match.io.files import write_atomically

    file = output / "config.yaml"
    if file.exists() or os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [place for place in (output, *output.parents) if not place.exists()]
    write_atomically(file, settings.to_yaml().encode())
    try:
        yield
    except SD4MatchError:
        if not _holds_training(output):
            with suppress(OSError):  # a folder that holds something else stays
                file.unlink()
                for place in made:
                    place.rmdir()
        raise


def _learn(settings: ExperimentConfig, output: Path, *, device: str, resume: bool, stop: Callable[[], bool]) -> None:
    from sd4match.cli.common import pick_device, quiet_libraries
    from sd4match.config.experiment import build
    from sd4match.distributed import Processes
    from sd4match.training.metric_logger import check_trackers
    from sd4match.training.run import check_resumable, resume_command
    from sd4match.training.trainer import check_learns

    where = pick_device(device)
    quiet_libraries()
    check_trackers(settings.training.trackers)
    if resume:
        check_resumable(settings, output)
    parts = build(settings, device=where, cache=settings.cache.open())
    check_learns(parts.prompt)
    run = learn(settings, parts, output, resume=resume, stop=stop)
    if not Processes().is_main:
        return
    if run.stopped:
        typer.echo(f"Stopped after step {run.step} of {settings.training.steps}. Go on with: {resume_command(output)}")
        return
    early = f" (of {settings.training.steps}: no better prompt for {settings.training.patience} validations)"
    typer.echo(
        f"Learned for {run.step} steps{early if run.step < settings.training.steps else ''}. "
        f"Best prompt: step {run.best_step}, validation PCK@0.1 {100 * run.best_pck:.1f}. "
        f"Written: {output / 'prompt.safetensors'}, {output / 'report.json'}"
    )


def learn(
    config: ExperimentConfig,
    parts: Components,
    output: Path,
    *,
    prompt_file: Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingRun:
    """`training.run.learn` under a progress bar."""
    from sd4match.training.run import learn

    with _shown(config.training.steps) as watch:
        return learn(config, parts, output, prompt_file=prompt_file, resume=resume, stop=stop, watch=watch)


@contextmanager
def _shown(steps: int) -> Iterator[Watch]:
    """A bar with loss, PCK, steps a second, time left and memory; the main process's alone."""
    from rich.console import RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from sd4match.cli.common import console
    from sd4match.distributed import Processes
    from sd4match.training.history import Watch

    class TwoLines(Progress):
        """The bar, and below it what is known."""

        status = ""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield Text(self.status)

    columns = (
        TextColumn("learning the prompt"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with TwoLines(*columns, console=console, disable=not Processes().is_main) as bar:
        task = bar.add_task("", total=steps)
        begun: list[tuple[float, int]] = []
        pck = ""

        def on_step(run: TrainingRun) -> None:
            begun.append((time.perf_counter(), run.step))
            del begun[:-51]
            (since, first), (now, last) = begun[0], begun[-1]
            speed = f"{(last - first) / (now - since):.2g} steps/s  " if last > first else ""
            now_at = run.last()
            above = f" ({now_at['excess']:.3f} above its floor)" if "excess" in now_at else ""
            loss = f"loss {now_at['loss']:.3f}{above}"
            bar.status = f"{loss}{pck}  {speed}{memory_in_use()}"
            bar.update(task, completed=run.step)

        def on_validating(done: int, total: int) -> None:
            bar.status = f"validating: {done} of {total} pairs{pck}"

        def on_validation(run: TrainingRun) -> None:
            nonlocal pck
            best = f" (best {100 * run.best_pck:.1f} at {run.best_step})"
            pck = f"  PCK@0.1 {100 * run.validation[-1][1]:.1f}{best}"
            begun.clear()
            bar.status = pck.strip()
            bar.update(task, completed=run.step)

        yield Watch(
            on_plan=lambda plan: console.print(plan.describe()),
            on_step=on_step,
            on_validating=on_validating,
            on_validation=on_validation,
        )


def memory_in_use() -> str:
    """The device's peak, or what this process takes."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB peak"
    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"
