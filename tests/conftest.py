"""Shapes in signatures are checked at run time: this hook must stand before the first import of sd4match."""

from __future__ import annotations

import ast
import os
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from threading import RLock
from unittest.mock import patch

from jaxtyping import _import_hook, install_import_hook

import helpers.typecheck  # noqa: F401 - the hook looks it up by name

REAL_DEVICE = os.environ.get("SD4MATCH_TEST_DEVICE")
"""Device that `tests/accelerator` use instead of a pretended one."""
if REAL_DEVICE is None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the suite is the CPU's, and torch knows one accelerator in a process
for name in ("SD4MATCH_MODELS", "HF_HUB_OFFLINE", "HF_ENDPOINT", "ACCELERATE_USE_CPU", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)  # results do not depend on what the user has set

CHECKED = (
    "structures", "geometry", "io", "matching", "backbones", "prompting", "data", "evaluation", "training", "viz",
)  # fmt: skip
"""Packages whose shapes are checked."""
CONFIGS = (
    "backbones.config", "prompting.config", "data.config", "matching.matchers", "matching.losses",
    "matching.pair_transforms", "matching.rejection",
)  # fmt: skip
"""Modules that load no torch, so that their annotations cannot be evaluated."""


def modules_to_check() -> list[str]:
    """Return the modules of the checked packages, but for the configs."""
    source = Path(__file__).parents[1] / "src" / "sd4match"
    files = [file.relative_to(source).with_suffix("") for file in source.rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files if file.parts[0] in CHECKED]
    return [f"sd4match.{name}" for name in names if "." in name and name not in CONFIGS] + ["sd4match.geometry"]


SHAPES = ("Bool", "Float", "Int", "Integer", "Num", "Real", "Shaped", "UInt8")
"""Types of jaxtyping."""
parsing = RLock()
"""Python 3.11 cannot parse two modules at once, which threads that import do."""


class ShapesAlone(_import_hook.JaxtypingTransformer):
    """Check functions and dataclasses that name a shape: wrapping all others takes a quarter of the suite's time."""

    def visit_FunctionDef(self, node):
        signature = [*ast.walk(node.args), *ast.walk(node.returns or ast.Pass())]
        return super().visit_FunctionDef(node) if self.has_shape(signature) else self.visit_inside(node)

    def visit_ClassDef(self, node):
        fields = [part for each in node.body if isinstance(each, ast.AnnAssign) for part in ast.walk(each.annotation)]
        return super().visit_ClassDef(node) if self.has_shape(fields) else self.visit_inside(node)

    def has_shape(self, parts):
        return any(isinstance(part, ast.Subscript) and ast.unparse(part.value) in SHAPES for part in parts)

    def visit_inside(self, node):
        self._parents.append(node)
        self.generic_visit(node)
        self._parents.pop()
        return node


class CheckedLoader(_import_hook._JaxtypingLoader):
    """Load bytecode of the module alone under the hook's name, and that of libraries which it imports under their own.

    The hook's own loader renames bytecode until a module has run, so every library that it imports is compiled anew:
    seconds for each process.
    """

    def get_code(self, fullname):
        real = "importlib._bootstrap_external.cache_from_source"
        own_name = partial(_import_hook._optimized_cache_from_source, f"{self._typechecker.get_hash()}shapes")
        with parsing, patch(real, own_name):
            return super().get_code(fullname)

    exec_module = SourceFileLoader.exec_module


_import_hook._JaxtypingLoader = CheckedLoader
_import_hook.JaxtypingTransformer = ShapesAlone
install_import_hook(modules_to_check(), "helpers.typecheck.typecheck")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

from sd4match.testing import pretend_accelerator  # noqa: E402

collect_ignore = ["helpers"]
if REAL_DEVICE is None:
    with pretend_accelerator():  # before the first backward() of this process
        pass

for profile, examples in (("quick", 20), ("deep", 1_000)):
    settings.register_profile(
        profile, deadline=None, max_examples=examples, derandomize=profile == "quick",
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
settings.register_profile("mutation", settings.get_profile("quick"), phases=[Phase.explicit, Phase.generate])
profile = os.environ.get("HYPOTHESIS_PROFILE", "quick")
settings.load_profile(profile)
shared = profile == "mutation" or "PYTEST_XDIST_WORKER" in os.environ  # threads of torch do not survive a fork
torch.set_num_threads(1 if shared else max(1, min(2, os.cpu_count() or 1)))


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user(tmp_path_factory):
    """What tests keep between runs, they keep among themselves."""
    os.environ["SD4MATCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def mini():
    """The packaged model, loaded once."""
    from sd4match.backbones.config import StableDiffusionConfig

    return StableDiffusionConfig(weights="mini").build()


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> Path:
    """A Stable Diffusion folder of another size, with random weights, in diffusers' layout."""
    from helpers.model_folders import write_random_model

    return write_random_model(tmp_path_factory.mktemp("models") / "tiny-sd")


@pytest.fixture
def realdata() -> Path:
    """Real files that are not in the repository."""
    folder = Path(os.environ.get("SD4MATCH_REALDATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SD4MATCH_REALDATA")
    return folder
