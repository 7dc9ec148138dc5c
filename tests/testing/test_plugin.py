"""`check_plugin` checks all that an installed package registers, and names what it could not build."""

from __future__ import annotations

import itertools
import sys

import pytest

from sd4match import registry
from sd4match.testing import PluginCheck, check_plugin

GOOD = '''
"""A package with a matcher, a loss that is a function of two maps, and a prompt that needs a field."""
from typing import Annotated, Literal
import torch
from pydantic import Field
from torch import nn
from sd4match.backbones import Backbone
from sd4match.config import get_protocol
from sd4match.errors import CheckpointError
from sd4match.matching import CoPCA, KernelSoftArgmax, GaussianCrossEntropyConfig
from sd4match.prompting import Prompt, PromptEmbedding, encode_token_vectors
from sd4match.registry import register, register_backbone, register_prompt

STRICT = get_protocol("sd4match").derive(name="KIND-strict", inclusive=False)

@register
class Wide(KernelSoftArgmax):
    """Kernel soft arg-max of another name."""
    kind: Literal["KIND-wide"] = "KIND-wide"

@register
class Few(CoPCA):
    """Co-PCA to few channels."""
    kind: Literal["KIND-few"] = "KIND-few"
    components: int = 4

@register_prompt("KIND-two")
class Two(Prompt):
    """Two vectors."""

    def __init__(self, *, backbone, start: Annotated[float, Field(description="value of the vectors")]) -> None:
        super().__init__()
        self.text_encoder = backbone.text_encoder
        self.vectors = nn.Parameter(torch.full((2, backbone.text_encoder.width), start))

    def forward(self, images, partners=None):
        return PromptEmbedding(encode_token_vectors(self.text_encoder, self.vectors[None]))

@register_backbone("KIND-large")
class Large(Backbone):
    """A model that is not here."""

    def __init__(self, *, device: str = "cpu") -> None:
        raise CheckpointError("no such folder: large")

    prepare = encode = extract = None
'''
POINTS = {
    "sd4match.matchers": "wide = {module}:Wide",
    "sd4match.pair_transforms": "few = {module}:Few",
    "sd4match.prompts": "two = {module}:Two",
    "sd4match.backbones": "all = {module}",
    "sd4match.protocols": "strict = {module}:STRICT",
}
names = (f"conformance_plugin_{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def forget_kinds():
    from contextlib import ExitStack

    with ExitStack() as stack:
        for each in registry.REGISTRIES:
            stack.enter_context(each.temporarily())
        yield


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package: a module and its metadata in a folder on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(code=GOOD, points=POINTS):
        name = next(names)
        (tmp_path / f"{name}.py").write_text(code.replace("KIND", name))
        metadata = tmp_path / f"{name}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"[{group}]\n{line}\n" for group, line in points.items()]
        (metadata / "entry_points.txt").write_text("".join(lines).format(module=name))
        return name

    yield install
    for name in [name for name in sys.modules if name.startswith("conformance_plugin_")]:
        del sys.modules[name]


def test_a_whole_package(install):
    name = install()
    found = check_plugin(name)
    assert isinstance(found, PluginCheck)
    assert found.checked == (f"matcher {name}-wide", f"pair transform {name}-few")
    assert list(found.left_out) == [f"prompt {name}-two", f"backbone {name}-large"]
    assert "start: Field required" in found.left_out[f"prompt {name}-two"]
    assert found.left_out[f"backbone {name}-large"] == "no such folder: large"
    found = check_plugin(name, fields={f"{name}-two": {"start": 0.5}})
    assert found.checked == (f"matcher {name}-wide", f"pair transform {name}-few", f"prompt {name}-two")


def matcher(body):
    return (
        "from typing import Literal, Any\nimport torch\nfrom sd4match.matching import KernelSoftArgmax, Matches\n"
        "from sd4match.registry import register\n" + body
    )


FAULTS = {
    "not imported": ("import no_such_module", {}, "must be loaded and registered; it raised ModuleNotFoundError"),
    "no such name": ("", {}, "must be loaded and registered; it raised AttributeError"),
    "ends the process": ("import sys; sys.exit(3)", {}, "it ends the process: SystemExit 3"),
    "not registered": ("class Thing: ...", {}, "must register matcher kinds, and what it names is not registered"),
    "no kind": (matcher("class Thing(KernelSoftArgmax):\n    kind: str\n"), {}, "needs a fixed kind"),
    "a taken kind": (
        matcher("class Thing(KernelSoftArgmax):\n    'Mine.'\n    kind: Literal['mutual'] = 'mutual'\n"),
        {},
        "is taken",
    ),
    "another sort": (
        "from sd4match.matching import GaussianCrossEntropyConfig as Thing",
        {},
        "is no matcher: derive it from",
    ),
    "no description": (
        matcher("class Thing(KernelSoftArgmax):\n    kind: Literal['KIND'] = 'KIND'\n"),
        {},
        "must have a docstring, whose first line is its description",
    ),
    "a field without default or description": (
        matcher("class Thing(KernelSoftArgmax):\n    'Mine.'\n    kind: Literal['KIND'] = 'KIND'\n    power: float\n"),
        {},
        "the field 'power' must have a default or a description",
    ),
    "a config that is not read back": (
        matcher(
            "from pydantic import field_serializer\nclass Thing(KernelSoftArgmax):\n    'Mine.'\n"
            "    kind: Literal['KIND'] = 'KIND'\n    power: float = 1.0\n"
            "    @field_serializer('power')\n    def more(self, power): return power + 1\n"
        ),
        {},
        "must be read from JSON and YAML as it was written",
    ),
    "a component that breaks a promise": (
        matcher(
            "class Thing(KernelSoftArgmax):\n    'Mine.'\n    kind: Literal['KIND'] = 'KIND'\n"
            "    def cells(self, correlation): return super().cells(correlation) + len(correlation.values)\n"
        ),
        {},
        "matcher conformance_plugin_.*: .*the matcher Thing",
    ),
    "an unknown group": (
        "Thing = 1",
        {"sd4match.matcher": "x = {module}:Thing"},
        "unknown group 'sd4match.matcher'; did",
    ),
    "no entry point": ("", {"console_scripts": "x = {module}:Thing"}, "must have entry points of the groups sd4match"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_package_is_noticed_and_named(fault, install):
    code, points, message = FAULTS[fault]
    name = install(code, points or {"sd4match.matchers": "thing = {module}:Thing"})
    with pytest.raises(AssertionError, match=message) as error:
        check_plugin(name)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["no-such-package", ""])
def test_a_package_that_is_not_installed(name):
    with pytest.raises(AssertionError, match="must be installed, and is not"):
        check_plugin(name)
