"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

The packages are those that users install, with every extra for users. `make test-lowest` installs them and runs the
quick suite.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEVELOPERS = {"dev", "docs"}
"""Extras that no user needs."""
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)>=(?P<lowest>[\w.]+)")
"""Requirement as pyproject.toml writes it."""


def lowest_versions(project: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """Return the lower bound of each package that users install.

    Raises:
        ValueError: A requirement has another form than "name>=version".
    """
    described = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = described.get("optional-dependencies", {})
    bounds: dict[str, str] = {}
    for requirements in (described["dependencies"], *(extras[name] for name in extras if name not in DEVELOPERS)):
        for requirement in requirements:
            found = REQUIREMENT.fullmatch(requirement)
            if found is None:
                raise ValueError(f"{requirement!r} is not of the form 'name>=version'")
            bounds[found["name"]] = found["lowest"]
    return bounds


def main() -> None:
    """Print one constraint per line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", metavar="VERSION", help="version of torch in place of the lowest one")
    chosen = parser.parse_args().torch
    versions = lowest_versions() | ({"torch": chosen} if chosen else {})
    print("\n".join(f"{name}=={version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
