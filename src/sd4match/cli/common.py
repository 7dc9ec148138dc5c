"""Shared options and checks of commands. Importing this module loads neither torch nor rich."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args, get_type_hints

import typer

from sd4match.cli.answer import Document, Leave
from sd4match.errors import shown

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig
    from sd4match.data.config import Split

Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field: a.b=c. May be repeated.")]
BackboneName = Annotated[str | None, typer.Option(help="A known model, a folder, or a hub id; see `models list`.")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:N" or "mps".')]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
SplitName = Annotated[str, typer.Option(help="train, validation or test.")]
CacheLimit = Annotated[str | None, typer.Option(help='Limit of the disk cache, for example "10 GB"; "0" for none.')]
PromptFile = Annotated[Path | None, typer.Option(help="File of a learned prompt.")]
Category = Annotated[str | None, typer.Option(help="What the photos show, for text and class prompts.")]
Fallback = Annotated[
    str | None, typer.Option(help='"text": use the text template for categories that a class prompt has not learned.')
]


@dataclass(frozen=True)
class ExperimentOptions:
    """Options that choose an experiment and change it."""

    preset: Annotated[str | None, typer.Option(help="Experiment that comes with the package.")] = None
    config: Annotated[Path | None, typer.Option(help="Experiment from a YAML file.")] = None
    backbone: BackboneName = None
    dtype: Dtype = None
    overrides: Set = None
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the experiment as YAML and exit.")] = False

    def read(self, default: str, changes: Iterable[str] = ()) -> ExperimentConfig:
        """Return the experiment; with --show-config, print it and exit.

        Args:
            default: preset to use if neither --preset nor --config is given.
            changes: changes `a.b=c` of other options; --set is applied after them.

        Raises:
            ConfigError: the options do not go together, or the experiment cannot work.
        """
        config = read_config(
            preset=self.preset, config=self.config, overrides=[*changes, *(self.overrides or ())], default=default,
            backbone=self.backbone, dtype=self.dtype,
        )  # fmt: skip
        if self.show_config:
            typer.echo(config.to_yaml(), nl=False)
            raise Leave(config.model_dump(mode="json"))
        return config


@dataclass(frozen=True)
class DataOptions:
    """Options that choose the data set and how photos are cached."""

    dataset: Annotated[
        str | None,
        typer.Option(help="spair, pf_pascal, pf_willow, ap10k, folder or synthetic; default: the experiment's."),
    ] = None
    root: Annotated[Path | None, typer.Option(help="Folder of the data set, as it was unpacked.")] = None
    cache_limit: CacheLimit = None

    def changes(self) -> list[str]:
        """Return these options as changes `a.b=c` of the experiment.

        Raises:
            ConfigError: the kind is unknown, or one of --dataset and --root is missing.
        """
        return [*data_changes(self.dataset, self.root), *changed("cache.limit", self.cache_limit)]


_Command = TypeVar("_Command", bound=Callable[..., Document | None])


def option_groups(command: _Command) -> _Command:
    """Replace parameters of a command whose type is a dataclass by one option per field of that dataclass.

    Args:
        command: function of the command.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters = list(_expand(command, hints))

    @functools.wraps(command)
    def call(**values: Any) -> Document | None:
        built = {
            name: cast(type, group)(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return command(**values, **built)

    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__annotations__["return"] = hints["return"]
    return cast("_Command", call)


def _expand(command: Callable[..., Any], hints: dict[str, Any]) -> Iterator[Parameter]:
    for name, parameter in signature(command).parameters.items():
        hint = hints[name]
        if not dataclasses.is_dataclass(hint):
            yield parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)
            continue
        types = get_type_hints(hint, include_extras=True)
        for field in dataclasses.fields(hint):
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name])


def read_config(
    *,
    preset: str | None,
    config: Path | None,
    overrides: Iterable[str] | None,
    default: str,
    backbone: str | None = None,
    dtype: str | None = None,
) -> ExperimentConfig:
    """Return the experiment of the options.

    Args:
        preset: name of a preset.
        config: YAML file, instead of a preset.
        overrides: changes `a.b=c`.
        default: preset to use if neither is given.
        backbone: name of the model; None: that of the experiment.
        dtype: dtype of the model; None: that of the experiment.

    Raises:
        ConfigError: the options do not go together, or the experiment cannot work.
    """
    from sd4match.config.experiment import load_config
    from sd4match.config.presets import load_preset
    from sd4match.errors import ConfigError

    if preset and config:
        raise ConfigError("give --preset or --config, not both")
    read = functools.partial(load_config, config) if config else functools.partial(load_preset, preset or default)
    changes = [*(overrides or ())]
    own = [*changed("backbone.weights", backbone), *changed("backbone.dtype", dtype)]
    if own and read(changes).backbone.kind == "fusion":
        raise ConfigError(
            "--backbone and --dtype are for one model, and this experiment fuses several: "
            "change backbone.backbones in a file"
        )
    return read([*changes, *own])


def changed(field: str, value: object) -> list[str]:
    """Return the change that sets a field; none if the option was not given.

    Args:
        field: path of the field, for example "evaluation.limit".
        value: None, False or an empty list mean that the option was not given.

    >>> changed("evaluation.limit", 3), changed("evaluation.limit", None)
    (['evaluation.limit=3'], [])
    """
    given = value is not None and value is not False and value != []
    return [f"{field}={json.dumps(value)}"] if given else []


def data_changes(dataset: str | None, root: Path | None) -> list[str]:
    """Return --dataset and --root as changes of the experiment.

    Args:
        dataset: kind of data set.
        root: its folder.

    Raises:
        ConfigError: the kind is unknown, or one of the two options is missing.
    """
    from sd4match.data.config import RootedConfig, dataset_kind
    from sd4match.errors import ConfigError
    from sd4match.registry import datasets

    if dataset is None:
        if root is not None:
            raise ConfigError("--root goes with --dataset KIND")
        return []
    kind = dataset_kind(dataset)
    if root is not None:
        return changed("data", {"kind": kind, "root": str(root)})
    if issubclass(datasets.config_class(kind), RootedConfig):
        raise ConfigError(f"--dataset {dataset} needs --root FOLDER, the data set as it was unpacked")
    return changed("data", {"kind": kind})


def check_split(name: str) -> Split:
    """Return the name of a split after a check.

    Args:
        name: "train", "validation" or "test".

    Raises:
        ConfigError: it is another name.
    """
    from sd4match.data.config import Split
    from sd4match.errors import ConfigError

    if name not in get_args(Split):
        raise ConfigError(f"--split must be train, validation or test, not {shown(name)}")
    return cast("Split", name)


def check_output(output: Path) -> Path:
    """Check before a computation that a folder can be written.

    Args:
        output: folder of the results.

    Returns:
        The folder, or its nearest existing parent, for temporary files.

    Raises:
        InputError: the path is a file or below one, or the folder cannot be written.
    """
    from sd4match.errors import InputError
    from sd4match.paths import exists, is_folder

    try:
        is_other = not stat.S_ISDIR(output.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_other = False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--output {shown(str(output))} cannot be made: {reason}") from None
    if is_other:
        raise InputError(f"--output {output} is a file; give a folder")
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if exists(folder))
    if not is_folder(existing) or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--output {output} cannot be made: {existing} is not a folder that can be written")
    return existing


def prompt_changes(fallback: str | None, file: Path | str | None) -> dict[str, str]:
    """Return --fallback as changes of the config of a prompt file.

    Args:
        fallback: value of the option.
        file: prompt file.

    Raises:
        InputError: there is no file, or it is not of a class prompt.
    """
    from sd4match.errors import InputError, a
    from sd4match.prompting.serialization import read_prompt

    if fallback is None:
        return {}
    if file is None:
        raise InputError("--fallback goes with --prompt FILE, of a class prompt")
    kind = read_prompt(file)[0].config.kind
    if kind != "class":
        raise InputError(f"--fallback is for class prompts; {file} is {a(kind)} prompt")
    return {"fallback": fallback}


def prepare_device(name: str) -> str:
    """Return the name of a device after a check, and silence other libraries.

    Args:
        name: value of --device.

    Raises:
        ConfigError: there is no such device.
    """
    from sd4match.devices import resolve_device

    device = resolve_device(name, what="--device")
    quiet_libraries()
    return device


def quiet_libraries() -> None:
    """Turn off progress bars and notices of other libraries."""
    import diffusers
    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


def program() -> str:
    """Return a command that starts this program again from the same folder, since `sd4match` may not be on the PATH."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        interpreter = Path(sys.executable)
        if shutil.which(interpreter.name) == sys.executable:
            return f"{interpreter.name} -m sd4match"
        below = interpreter.is_relative_to(Path.cwd())
        return f"{shlex.quote(str(interpreter.relative_to(Path.cwd()) if below else interpreter))} -m sd4match"
    name = Path(called).name
    found = shutil.which(name)
    return name if found is not None and Path(found).absolute() == Path(called).absolute() else shlex.quote(called)
