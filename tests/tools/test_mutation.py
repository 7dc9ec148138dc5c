"""The runner of mutants: on a module of which one fault is noticed and another is not, and what it changes at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mutants import mutants_of  # noqa: E402

MODULE = '''"""Doc: 1 + 1."""
from functools import cache

LIMIT = 3
UNSEEN = 4


class Sum:
    @cache
    def of(self, a, b):
        if a > LIMIT:
            raise ValueError("more than 3: " + str(a + 1))
        return a + b


def double(a):
    return 2 * a


def untested(a):
    return a - 1


def forever(a):
    while a != 0:
        a = a - 1
    return a
'''
TESTS = """
import pytest
import toy

def test_sum():
    assert toy.Sum().of(3, 2) == 5
    with pytest.raises(ValueError):
        toy.Sum().of(4, 2)

def test_double():
    assert toy.double(2) == 4
    assert toy.forever(2) == 0
"""


def run(folder, *arguments):
    command = [sys.executable, ROOT / "tools" / "mutation.py", "--source", "toy.py", "--tests", "test_toy.py",
               "--preload", "--patience", "1", *arguments]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "test_toy.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return tmp_path


@pytest.mark.slow
def test_what_no_test_notices_survives(toy):
    done = run(toy)
    assert done.returncode == 1, done.stderr
    survived = [line.split("toy.py:")[1] for line in done.stdout.splitlines() if line.startswith("survived")]
    assert survived == [
        "5: [constant] UNSEEN = 4  ->  UNSEEN = 5",
        "21: [return] return a - 1  ->  return None",
        "21: [arithmetic] return a - 1  ->  return a + 1",
        "21: [constant] return a - 1  ->  return a - 2",
        "26: [constant] a = a - 1  ->  a = a - 2",
    ], done.stdout
    assert "| toy.py | 17 | 11 | 1 | 5 | 70.6 % |" in done.stdout


def test_a_sample_is_drawn(toy):
    assert "| all | 3 |" in run(toy, "--mutants", "3", "--seed", "1").stdout


def test_tests_that_fail_without_a_mutant_measure_nothing(toy):
    (toy / "test_toy.py").write_text("def test_it():\n    assert False\n")
    done = run(toy)
    assert done.returncode == 1
    assert "test_it fails without a mutant" in done.stderr
    assert not done.stdout.startswith("| file")


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("x < 1", ["x <= 1", "x < 2"]),
        ("1 < x >= y", ["2 < x >= y", "1 <= x >= y", "1 < x > y"]),
        ("x is not None", ["x is None"]),
        ("not x", [" x"]),
        ("-x", ["x"]),
        ("-1", ["0"]),
        ("x and y or z", ["x or y or z", "x and y and z"]),
        ("(x + y) // (z)", ["(x - y) // (z)", "(x + y) * (z)"]),
        ("x.any(dim=-1)", ["x.all(dim=-1)", "x.any()", "x.any(dim=0)"]),
        ("f(x, y=z, v=w)", ["f(x, v=w)", "f(x, y=z)"]),
        ("f(y=z, v=w)", ["f(v=w)", "f(y=z)"]),
        ("Field(default=None, description='1')", []),
        ("'text' if x else y", ["'text' if (not (x)) else y"]),
        ("'text' if x == y else z", ["'text' if x != y else z"]),
        ("f'{1 + 1}'", []),
        ("1  # pragma: no mutate", []),
        ("True", ["False"]),
    ],
)
def test_each_change_is_small(tmp_path, line, changed):
    file = tmp_path / "one.py"
    file.write_text(f"a: int | None = {line}\n")
    source = file.read_bytes()
    found = [mutant.apply(source).decode().removeprefix("a: int | None = ").rstrip("\n") for mutant in mutants_of(file)]
    assert sorted(found) == sorted(changed)


def test_statements_are_changed_where_they_run(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(
        '__all__ = [1]\nif TYPE_CHECKING:\n    X = 1\n\ndef f(a=1) -> "1":\n    """1"""\n    check(a)\n    return a\n'
    )
    found = {(mutant.operator, mutant.function, mutant.lines) for mutant in mutants_of(file)}
    assert found == {("constant", None, (5, 5)), ("deleted", "f", (7, 7)), ("return", "f", (8, 8))}
