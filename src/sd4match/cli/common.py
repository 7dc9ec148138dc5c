"""What the commands share: options, progress bars, and how a config comes together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig

console = Console(stderr=True, highlight=False)
"""Progress and remarks; what a command answers goes to stdout."""

Preset = Annotated[str | None, typer.Option(help="An experiment that comes with the package.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="An experiment from a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field: a.b=c. May be repeated.")]
BackboneName = Annotated[
    str | None, typer.Option(help="A known name, a folder, or a hub id; see `sd4match models list`.")
]
Dataset = Annotated[
    str | None,
    typer.Option(help="spair, pf_pascal, pf_willow, ap10k, folder or synthetic; without: the preset's."),
]
Root = Annotated[Path | None, typer.Option(help="Folder of the data set, as it was unpacked.")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:N" or "mps".')]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
Fallback = Annotated[
    str | None, typer.Option(help='"text": a class prompt takes the text template for categories it has not learned.')
]
CacheLimit = Annotated[
    str | None, typer.Option(help='Of what is kept on disk between runs: "10 GB" unless said otherwise; "0" for none.')
]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print the experiment as YAML and leave.")]


def read_config(
    *,
    preset: str | None,
    config: Path | None,
    overrides: Iterable[str] | None,
    default: str,
    backbone: str | None = None,
    dtype: str | None = None,
) -> ExperimentConfig:
    """The experiment that the options describe."""
    from sd4match.config.experiment import load_config, load_preset
    from sd4match.errors import ConfigError

    if preset and config:
        raise ConfigError("give --preset or --config, not both")
    changes = list(overrides or ())
    changes += [f"backbone.weights={quoted(backbone)}"] if backbone else []
    changes += [f"backbone.dtype={quoted(dtype)}"] if dtype else []
    read = partial(load_config, config) if config else partial(load_preset, preset or default)
    if (backbone or dtype) and read(overrides or ()).backbone.kind == "fusion":
        raise ConfigError(
            "--backbone and --dtype are of one model, and this experiment fuses several: change its parts"
        )
    return read(changes)


def quoted(text: str) -> str:
    """As a YAML string, whatever is in it."""
    import json

    return json.dumps(text)


def show_config(config: ExperimentConfig) -> None:
    """Print a config and leave."""
    typer.echo(config.to_yaml(), nl=False)
    raise typer.Exit


def check_output(output: Path) -> Path:
    """Refuse an output folder that cannot be one, before any work is done for it.

    Returns:
        The folder itself, or the nearest one above it that exists already: a place for temporary files.

    Raises:
        InputError: there is a file of that name or above it, or nothing can be written there.
    """
    from sd4match.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder")
    above = next(place for place in (output.absolute(), *output.absolute().parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"--output {output} cannot be made: {above} is not a folder that can be written")
    return above


def prompt_settings(fallback: str | None, file: Path | str | None) -> dict[str, str]:
    """What --fallback changes in the config of a prompt file.

    Raises:
        InputError: there is no file, or its prompt is not one for each category.
    """
    from sd4match.errors import InputError
    from sd4match.prompting.serialization import read_prompt

    if fallback is None:
        return {}
    if file is None:
        raise InputError("--fallback goes with --prompt FILE, of a class prompt")
    kind = read_prompt(file)[0].config.kind
    if kind != "class":
        raise InputError(f"--fallback is for class prompts; {file} is a {kind} prompt")
    return {"fallback": fallback}


def pick_device(name: str) -> str:
    """A device that exists.

    Raises:
        ConfigError: it does not.
    """
    import torch

    from sd4match.errors import ConfigError

    if name == "auto":
        own = os.environ.get("LOCAL_RANK")  # one of several processes takes a device of its own
        return ("cuda" if own is None else f"cuda:{own}") if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {name!r}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: torch has no MPS here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here; use cpu")
    return name


def quiet_libraries() -> None:
    """No loading bars and no notices of other libraries between ours."""
    import diffusers
    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


@contextmanager
def progress_bar(*, visible: bool = True) -> Iterator[Progress]:
    """A bar with counts and the time that is left."""
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not visible) as progress:
        yield progress


def evaluation_progress(bar: Progress) -> Callable[[str, str, int, int], None]:
    """What `evaluate_prompts` tells of its way, as lines of a bar: each prompt's photos, then its pairs."""
    tasks: dict[tuple[str, str], TaskID] = {}

    def tell(name: str, what: str, done: int, total: int) -> None:
        if (name, what) not in tasks:
            tasks[name, what] = bar.add_task(f"{name}: {what}", total=total)
        bar.update(tasks[name, what], completed=done)

    return tell


def cache_changes(limit: str | None) -> list[str]:
    """What --cache-limit changes in a config."""
    return [] if limit is None else [f"cache.limit={quoted(limit)}"]


def data_changes(dataset: str | None, root: Path | None) -> list[str]:
    """What --dataset and --root change in a config.

    Raises:
        ConfigError: an unknown kind, or one of the two without the other.
    """
    from sd4match.data.config import RootedConfig, dataset_kind
    from sd4match.errors import ConfigError
    from sd4match.registry import datasets

    if dataset is None:
        if root is not None:
            raise ConfigError("--root goes with --dataset KIND")
        return []
    kind = dataset_kind(dataset)
    if root is None:
        if issubclass(datasets.config_of(kind), RootedConfig):
            raise ConfigError(f"--dataset {dataset} needs --root FOLDER, the data set as it was unpacked")
        return [f"data={{kind: {kind}}}"]
    return [f"data={{kind: {kind}, root: {quoted(str(root))}}}"]
