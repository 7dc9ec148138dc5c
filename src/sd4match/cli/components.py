"""Command `sd4match components`, which lists the components of this package and of installed plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sd4match.cli.answer import Document

if TYPE_CHECKING:
    from sd4match.registry import Registry


def command(
    sort: Annotated[str | None, typer.Argument(help="Only this sort, for example matcher or prompt.")] = None,
) -> Document:
    """List every kind of component: its package, what it does, and its fields with their defaults."""
    from rich.console import Console
    from rich.table import Table

    from sd4match.errors import InputError, choose_from
    from sd4match.registry import REGISTRIES

    sorts = {registry.sort.replace(" ", "-"): registry for registry in REGISTRIES}
    if sort not in (None, "protocol", *sorts):
        raise InputError(f"unknown sort of component {sort!r}; {choose_from(sort or '', [*sorts, 'protocol'])}")
    rows = [row for name, each in sorts.items() if sort in (None, name) for row in _rows(name, each)]
    rows += _protocol_rows() if sort in (None, "protocol") else []
    table = Table("sort", "kind", "package", "what", "fields")
    for row in rows:
        fields = ", ".join(f"{name}={default}" for name, default in row["fields"].items())
        table.add_row(row["sort"], row["kind"], row["package"], row["summary"], fields)
    Console(highlight=False, markup=False, width=None).print(table)
    for reason in (reason for registry in sorts.values() for reason in registry.left_out()):
        typer.echo(reason)
    return rows


def _rows(name: str, registry: Registry[Any, Any]) -> list[dict[str, Any]]:
    """Return a row for each kind of a sort."""
    rows = []
    for kind in registry.kinds():
        config = registry.config_class(kind)
        summary = (config.__doc__ or "").strip().partition("\n")[0]
        fields = {
            field: "required" if info.is_required() else _shown(info.get_default(call_default_factory=True))
            for field, info in config.model_fields.items()
            if field != "kind"
        }
        rows.append(
            {"sort": name, "kind": kind, "package": registry.package(kind), "summary": summary, "fields": fields}
        )
    return rows


def _protocol_rows() -> list[dict[str, Any]]:
    """Return a row for each evaluation protocol."""
    from sd4match.config.protocols import PROTOCOLS, all_protocols, protocol_package

    rows = []
    for name, protocol in all_protocols().items():
        fields = {field: _shown(value) for field, value in protocol if field != "name"}
        summary = "Published way to count correct points." if name in PROTOCOLS else "Way to count correct points."
        package = protocol_package(name)
        rows.append({"sort": "protocol", "kind": name, "package": package, "summary": summary, "fields": fields})
    return rows


def _shown(default: Any) -> str:
    """Return a default as in YAML: the kind of a component, or the value."""
    import json

    from pydantic import BaseModel

    if isinstance(default, BaseModel):
        return str(getattr(default, "kind", type(default).__name__))
    return default if isinstance(default, str) else json.dumps(default)
