"""All groups of hostile inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robustness import (
    caches,
    configs,
    datasets,
    features,
    functions,
    matcher_api,
    models,
    options,
    photos,
    prompts,
    reports,
    trainings,
)
from robustness.cases import Case

GROUPS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "model folders": models.cases,
    "prompt files": prompts.cases,
    "published prompts": prompts.published_cases,
    "checkpoints": trainings.cases,
    "feature files": features.cases,
    "caches": caches.cases,
    "reports": reports.cases,
    "configs": configs.cases,
    "overrides": configs.override_cases,
    "photos": photos.cases,
    "data sets": datasets.cases,
    "options": options.cases,
    "functions": functions.cases,
    "matcher": matcher_api.cases,
}
"""By name: function from a folder, in which it may write undamaged inputs, to the cases."""


@contextmanager
def all_cases(only: Sequence[str] | None = None) -> Iterator[list[Case]]:
    """Yield the cases of all groups whose names begin as one of `only`."""
    with tempfile.TemporaryDirectory(prefix="robustness-base-") as temporary:
        found: list[Case] = []
        for name, make in GROUPS.items():
            if only is None or any(name.startswith(start) for start in only):
                base = Path(temporary) / name.replace(" ", "-")
                base.mkdir()
                found += list(make(base))
        yield found
