"""What the commands share: options, progress bars, and how a config comes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from sd4match.config import ExperimentConfig

console = Console(stderr=True, highlight=False)
"""Progress and remarks; what a command answers goes to stdout."""

Preset = Annotated[str | None, typer.Option(help="An experiment that comes with the package.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="An experiment from a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field: a.b=c. May be repeated.")]
BackboneName = Annotated[str | None, typer.Option(help='"mini", or the folder of a diffusers model.')]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:N".')]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
Fallback = Annotated[
    str | None, typer.Option(help='"text": a class prompt takes the text template for categories it has not learned.')
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
    from sd4match.config import load_config, load_preset
    from sd4match.errors import ConfigError

    if preset and config:
        raise ConfigError("give --preset or --config, not both")
    changes = list(overrides or ())
    changes += [f"backbone.weights={_quoted(backbone)}"] if backbone else []
    changes += [f"backbone.dtype={_quoted(dtype)}"] if dtype else []
    return load_config(config, changes) if config else load_preset(preset or default, changes)


def _quoted(text: str) -> str:
    """As a YAML string, whatever is in it."""
    import json

    return json.dumps(text)


def show_config(config: ExperimentConfig) -> None:
    """Print a config and leave."""
    typer.echo(config.to_yaml(), nl=False)
    raise typer.Exit


def check_output(output: Path) -> None:
    """Refuse an output folder that cannot be one.

    Raises:
        InputError: there is a file of that name.
    """
    from sd4match.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder")


def prompt_settings(fallback: str | None) -> dict[str, str]:
    """What an option changes in the config of a prompt file."""
    return {} if fallback is None else {"fallback": fallback}


def pick_device(name: str) -> str:
    """A device that exists.

    Raises:
        ConfigError: it does not.
    """
    import torch

    from sd4match.errors import ConfigError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}")
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
def progress_bar() -> Iterator[Progress]:
    """A bar with counts and the time that is left."""
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield progress
