"""Hostile config files and overrides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robustness.cases import Case, input_is_ready
from robustness.damage import json_text, text_damages, value_damages
from sd4match.config import load_config, load_preset, parse_config
from sd4match.documents import parse_yaml

_PRESETS = ("mini-single", "mini-cpm", "sd-dino")
_WORDS = (
    "yes", "on", "0x_", "2024-13-45", "1:30:00", ".inf", "-.inf", ".nan", "true", "1e400", "9" * 5000, "-1", "''", "[",
    "[[1]]", "{a: 1}", "{cls: 1}", "!!int x", "!!python/object/apply:os.system ['true']", "'1'", "0.5", "1e-300",
    "1e300", "~no-such-user/x", "&a [*a]", "null", "\ud800",
)  # fmt: skip
_TEXTS = {
    "a section twice": "training: {steps: 5}\ntraining: {batch_size: 3}",
    "a merge key": "a: &a {steps: 5}\ntraining: {<<: *a}",
    "a bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{name}: &{name} [{','.join([f'*{above}'] * 9)}]" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a bomb in the protocol": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
    "evaluation: {protocol: {name: [*c,*c,*c,*c,*c,*c]}}",
    "a fusion that holds itself": "backbone: &b {kind: fusion, backbones: [*b]}",
    "a list": "[1, 2]", "a number": "5", "text": "single", "numbers as names": "{1: 2}", "a name twice below":
    "prompt: {kind: single, seed: 1, seed: 2}", "an unknown section": "trainig: {steps: 5}",
    "an unknown model": "model: sd9", "model and preset": "{model: mini, preset: mini-single}",
    "an unknown preset": "preset: mini-sinlge", "a number as a preset": "preset: 5",
}  # fmt: skip


def _dump(config: object) -> object:
    return config.model_dump(mode="json")  # type: ignore[attr-defined]


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of every value of some presets, and of the text."""
    for preset in _PRESETS:
        config = load_preset(preset)
        text = config.to_yaml()
        right = _dump(parse_config(text, origin="config"))
        for name, value in value_damages(parse_yaml(text, what=preset), per_kind=1):
            damaged = json_text(value).replace("Infinity", ".inf").replace("NaN", ".nan")  # JSON is YAML
            field = name.rpartition(" ")[2].rpartition(".")[2]
            # a value that is left out or null is the default; any text may be a template or a folder
            legitimate = (
                "list for backbone.layers",
                "negative evaluation.protocol.cell_shift",
                "number for cache.limit",
            )
            differ = name.startswith(("drop", "null for", "empty", "text for", *legitimate))
            differ = differ or name == "number for pair_transform.components"
            yield _case(
                f"{preset}: {name}", damaged.encode(), (field, field.rstrip("s"), "hostile.yaml"), right, differ
            )
        for name, content in text_damages(text):
            differ = name in ("empty", "truncated to a half", "one byte less")
            yield _case(f"{preset}: {name}", content, ("hostile.yaml",), right, differ)
    for name, text in _TEXTS.items():
        yield _case(name, text.encode(), ("hostile.yaml", "model", "preset"), None, False)


def _case(name: str, content: bytes, names: tuple[str, ...], right: object, differ: bool) -> Case:
    def act(folder: Path) -> object:
        file = folder / "hostile.yaml"
        file.write_bytes(content)
        input_is_ready()
        return _dump(load_config(file))

    return Case("configs", name, act, names, right=right, may_differ=differ)


def override_cases(base: Path) -> Iterator[Case]:
    """Yield hostile values for every field of a preset."""
    config = load_preset("mini-single")
    plain = _dump(config)
    for path, value in _leaves(plain):
        for word in _WORDS:
            override = f"{path}={word}"

            def act(folder: Path, override: str = override) -> object:
                return _dump(load_preset("mini-single", [override]))

            is_text = isinstance(value, str) or value is None
            differ = (
                is_text
                or path == "backbone.layers"
                or word in ("null", "-1", "true", "0.5", "1e-300", "1e300")
                or isinstance(value, list)
            )
            names = (path.rpartition(".")[2], path, path.partition(".")[0], "preset", word[:10])
            may_differ = differ and not _never(value, word)
            yield Case("overrides", override[:60], act, names, right=plain, may_differ=may_differ)


def _never(value: object, word: str) -> bool:
    """Return whether a value of this type can never be right."""
    if isinstance(value, bool):
        return word not in ("true", "false")
    if isinstance(value, int):
        return word not in ("-1", "null", "'1'")
    if isinstance(value, float):
        return word not in ("null", "0.5", "-1", "1e-300")
    if isinstance(value, str):
        return word in ("true", "0.5", "-1", "1e300", "1e-300", "1e400", ".inf", ".nan", "[", "[[1]]", "{cls: 1}")
    return False


def _leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path, tree
