"""Commands `sd4match new`, which write skeletons of packages."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.answer import Document

app = typer.Typer(help="Skeletons of packages.", no_args_is_help=True, rich_markup_mode=None)

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX = ".template"


@app.callback()
def root() -> None:
    """Skeletons of packages."""


@app.command("plugin")
def plugin(
    name: Annotated[str, typer.Argument(help="Name of the package, for example sd4match-lowrank.")],
    output: Annotated[Path | None, typer.Option(help="New folder; default: the name.")] = None,
) -> Document:
    """Write an installable package with a prompt, a matcher, a loss and their tests."""
    from sd4match.errors import InputError, shown
    from sd4match.io.files import write_together
    from sd4match.paths import exists, is_folder

    if not _NAME.fullmatch(name) or len(name) > 64:
        raise InputError(f"NAME is that of a package, such as sd4match-lowrank, not {shown(name)}")
    kind = re.sub("[-_]+", "_", name.removeprefix("sd4match")).strip("_")
    title, module = kind.title().replace("_", ""), name.replace("-", "_")
    if not title.isidentifier() or iskeyword(module):
        raise InputError(f"{shown(name)} gives no names of classes and modules: take one such as sd4match-lowrank")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise InputError(f"there is a module {module!r} already: give another NAME, such as sd4match-{kind}")
    folder = output or Path(name)
    if exists(folder) and not (is_folder(folder) and not any(folder.iterdir())):
        raise InputError(f"{folder} exists: give another --output")
    words = {"name": name, "module": module, "kind": kind, "title": title}
    contents = {
        folder / path.replace("MODULE", module): _filled(text, words).encode()
        for path, text in _templates(files("sd4match.cli").joinpath("plugin_template"))
    }
    write_together(contents, name=f"the plugin to {folder}", error=InputError)
    typer.echo(f"Written: {folder} ({len(contents)} files). Go on with:")
    typer.echo(f"  cd {shlex.quote(str(folder))} && pip install --editable '.[test]' && pytest")
    return {"folder": folder, "files": list(contents)}


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    """Return the paths and texts of all templates below a folder."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            found.append((prefix + entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")))
    return found


def _filled(text: str, words: dict[str, str]) -> str:
    from string import Template

    return Template(text).substitute(words)
