"""Measure how many small faults of the sources the tests notice, and list those that they do not.

    python tools/mutation.py                                    # all of SOURCES: half an hour
    python tools/mutation.py --mutants 300 --seed 1             # some of them, drawn at random
    python tools/mutation.py --source src/sd4match/geometry.py  # of one file

The tests are collected once. Each mutant is a forked process, which puts the changed code into the functions that are
loaded, and runs the tests that run the changed lines, quickest first, until one fails. What runs at import is changed
before the import: such a mutant is forked before the tests are collected, and runs all of them.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.machinery import SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from unittest.mock import patch

import pytest
from coverage import Coverage

from mutants import Mutant, mutants_of

SOURCES = ("src/sd4match/matching", "src/sd4match/geometry.py", "src/sd4match/config/protocols.py")
TESTS = (
    "tests/matching", "tests/test_geometry.py", "tests/test_geometry_refused.py", "tests/config/test_protocols.py",
    "tests/accelerator/test_components.py::test_a_matcher",
    "tests/accelerator/test_components.py::test_a_loss_and_its_gradient",
    "tests/accelerator/test_components.py::test_a_pair_transform", *SOURCES,
)  # fmt: skip
"""The tests of the sources' own area, with their doctests."""
PRELOADED = ("torch", "scipy", "beartype", "hypothesis", "jaxtyping", "pydantic", "huggingface_hub", "PIL", "yaml")
"""Libraries that all mutants share."""
PYTEST = (
    "-q", "-s", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist",
    "--override-ini", "addopts=--import-mode=importlib --doctest-modules --doctest-continue-on-failure -m 'not slow'",
)  # fmt: skip
WANTED = 0.9
"""Share of killed mutants below which the run fails."""
TIMES = 4
"""A mutant is timed out after `--patience` and so many times what its tests take."""
MEMORY = 32 * 2**30
"""Addresses that a mutant may use, in bytes."""
FAILED, OTHER_VARIABLES = 2, 3
"""Exit codes of processes in which a mutant cannot be made, or not without an import."""
KILLED, TIMED_OUT, SURVIVED, POSTPONED = "killed", "timed out", "survived", "postponed"

Items = Mapping[str, pytest.Item]


@dataclass
class Suite:
    """What the tests do without a mutant."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of each test, by its id."""
    ran: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    """The tests that run each line, by file."""

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a line of a mutant's statement, quickest first."""
        first, last = mutant.lines
        ran = self.ran[str(mutant.file)]
        tests = {test for line in range(first, last + 1) for test in ran.get(line, ())}
        return sorted(tests, key=lambda test: (self.seconds[test], test))

    def times(self, tests: Iterable[str]) -> int:
        """Return the seconds that a mutant of these tests may take, beside the patience."""
        return round(TIMES * sum(self.seconds[test] for test in tests))


def run_forked(work: Callable[[], bool], silent: Sequence[int] = (1, 2)) -> int:
    """Run in a forked process, which ends with 0 for True, 1 for False and 2 for an error, and return its number."""
    number = os.fork()
    if number:
        return number
    code, shown = FAILED, os.dup(2)
    try:
        for stream in silent:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        code = 0 if work() else 1
    except BaseException:
        os.dup2(shown, 2)
        traceback.print_exc()
    finally:
        os._exit(code)


def answer_of(work: Callable[[], object], silent: Sequence[int]) -> Any:
    """Return what a forked process answers, so that nothing that it loads stays here.

    Raises:
        RuntimeError: it fails.
    """
    with tempfile.TemporaryFile() as file:

        def written() -> bool:
            pickle.dump(work(), file)
            file.flush()
            return True

        if os.waitpid(run_forked(written, silent), 0)[1]:
            raise RuntimeError("nothing is measured")
        file.seek(0)
        return pickle.load(file)


def located(mutant: Mutant) -> str:
    """Return the file, the line and the change of a mutant."""
    return f"{os.path.relpath(mutant.file)}:{mutant.describe(mutant.file.read_bytes())}"


def run_each(mutants: Sequence[Mutant], start: Callable[[Mutant], int], jobs: int) -> dict[Mutant, str]:
    """Start a process for each mutant, `jobs` at a time, and return how each ended.

    Raises:
        RuntimeError: one cannot be made.
    """
    running: dict[int, Mutant] = {}
    outcomes: dict[Mutant, str] = {}
    waiting = list(reversed(mutants))
    began = time.monotonic()
    gc.freeze()  # what is here is not walked through in every process
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[start(mutant)] = mutant
        number, status = os.waitpid(-1, 0)
        mutant = running.pop(number)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FAILED:
            raise RuntimeError(f"{located(mutant)} cannot be made")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == OTHER_VARIABLES:
            outcomes[mutant] = POSTPONED
            continue
        out_of_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        outcomes[mutant] = TIMED_OUT if out_of_time else KILLED if status else SURVIVED
        if outcomes[mutant] == SURVIVED:
            print(f"survived {located(mutant)}", file=sys.stderr, flush=True)
        if len(outcomes) % 100 == 0 or len(outcomes) == len(mutants):
            seconds = time.monotonic() - began
            print(f"{len(outcomes)} of {len(mutants)} mutants, {seconds:.0f} s", file=sys.stderr, flush=True)
    return outcomes


def limit(seconds: int) -> None:
    """End this process when its time is used up, and refuse it more than its memory."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def run_items(
    session: pytest.Session, items: Sequence[pytest.Item], begin: Callable[[pytest.Item], None] = lambda item: None
) -> bool:
    """Run tests until one fails, and return whether none did."""
    for item, following in zip_longest(items, items[1:]):
        begin(item)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


class Collected:
    """A plugin that does other work with the collected tests than running them all."""

    def __init__(self, work: Callable[[pytest.Session, Items], object]) -> None:
        self.work = work
        self.answer: Any = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work, if all tests can be imported."""
        if not session.testsfailed:
            try:
                self.answer = self.work(session, {item.nodeid: item for item in session.items})
            except Exception:  # which pytest would print where nothing is shown
                traceback.print_exc()
        return True


def with_collected(tests: Sequence[str], work: Callable[[pytest.Session, Items], object]) -> Any:
    """Collect tests, and return what some work with them returns; None if they cannot be imported."""
    plugin = Collected(work)
    pytest.main([*PYTEST, *tests], plugins=[plugin])
    return plugin.answer


def measure(session: pytest.Session, items: Items, sources: Sequence[Path]) -> Suite:
    """Run all tests once, and return the time and the lines of each.

    Raises:
        RuntimeError: one fails.
    """
    suite = Suite()
    coverage = Coverage(data_file=None, include=[str(source) for source in sources], config_file=False)
    began = {}

    def begin(item: pytest.Item) -> None:
        coverage.switch_context(item.nodeid)
        began[item.nodeid] = time.perf_counter()

    coverage.start()
    if not run_items(session, list(items.values()), begin):
        raise RuntimeError(f"{list(began)[-1]} fails without a mutant")
    ends = [*list(began.values())[1:], time.perf_counter()]
    suite.seconds = {name: end - start for (name, start), end in zip(began.items(), ends, strict=True)}
    coverage.stop()
    for source in sources:
        lines = coverage.get_data().contexts_by_lineno(str(source))
        suite.ran[str(source)] = {line: [test for test in tests if test in items] for line, tests in lines.items()}
    return suite


def loaded_functions(sources: Sequence[Path]) -> dict[tuple[str, str | None], list[FunctionType]]:
    """Return the functions by file and qualified name, those inside the wrappers of decorators too."""
    files = {str(source) for source in sources}
    functions: dict[tuple[str, str | None], list[FunctionType]] = defaultdict(list)
    for found in gc.get_objects():
        if type(found) is FunctionType and found.__code__.co_filename in files:
            functions[found.__code__.co_filename, found.__code__.co_qualname].append(found)
    return functions


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a module, and of all functions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def replace_function(mutant: Mutant, functions: Sequence[FunctionType]) -> None:
    """Put the changed code into a function that is loaded, and forget what the caches of its module hold.

    A function cannot get code that uses other variables of what it is defined in, such as none of `super()`.
    """
    module = sys.modules[functions[0].__module__]
    loader: Any = module.__loader__
    changed = loader.source_to_code(mutant.apply(mutant.file.read_bytes()), str(mutant.file))
    codes = {(code.co_qualname, code.co_firstlineno): code for code in codes_in(changed)}
    for function in functions:
        new = codes[function.__code__.co_qualname, function.__code__.co_firstlineno]
        if new.co_freevars != function.__code__.co_freevars:
            os._exit(OTHER_VARIABLES)
        function.__code__ = new
    for cached in vars(module).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


def run_loaded(
    session: pytest.Session, items: Items, mutants: Sequence[Mutant], options: argparse.Namespace
) -> tuple[Suite, dict[Mutant, str]]:
    """Run the mutants of functions in forks of a process that has collected the tests."""
    sources = python_files(options.source)
    suite: Suite = answer_of(lambda: measure(session, items, sources), silent=(1, 2))
    functions = loaded_functions(sources)

    def start(mutant: Mutant) -> int:
        def work() -> bool:
            tests = suite.tests_of(mutant)
            if not tests:
                return True
            limit(options.patience + suite.times(tests))
            replace_function(mutant, functions[str(mutant.file), mutant.function])
            return run_items(session, [items[test] for test in tests])

        return run_forked(work)

    return suite, run_each(mutants, start, options.jobs)


def load_changed(mutant: Mutant) -> None:
    """Have the changed text imported in place of the file's."""
    own = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if Path(self.path) != mutant.file:
            return own(self, fullname)
        return self.source_to_code(mutant.apply(mutant.file.read_bytes()), self.path)

    patch.object(SourceFileLoader, "get_code", get_code).start()


def run_imported(suite: Suite, mutants: Sequence[Mutant], options: argparse.Namespace) -> dict[Mutant, str]:
    """Run the mutants of what runs at import, each with imports of its own.

    Raises:
        RuntimeError: the tests fail in this order without a mutant.
    """

    def run_all(session: pytest.Session, items: Items) -> bool:
        return run_items(session, sorted(items.values(), key=lambda item: suite.seconds.get(item.nodeid, 0.0)))

    def start(mutant: Mutant) -> int:
        def work() -> bool:
            limit(options.patience + suite.times(suite.seconds))
            load_changed(mutant)
            return bool(with_collected(options.tests, run_all))

        return run_forked(work)

    if mutants and os.waitpid(run_forked(lambda: bool(with_collected(options.tests, run_all))), 0)[1]:
        raise RuntimeError("the tests fail without a mutant, quickest first")
    return run_each(mutants, start, options.jobs)


def python_files(paths: Iterable[str]) -> list[Path]:
    """Return the files, and those of folders, as whole paths."""
    found = [Path(path).resolve() for path in paths]
    return sorted({file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path])})


def report(outcomes: Mapping[Mutant, str]) -> float:
    """Print the table of files and the survivors, and return the share of mutants that do not survive."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, outcome in outcomes.items():
        for row in (os.path.relpath(mutant.file), "all"):
            counts[row][outcome] += 1
    shares = {row: 1 - count[SURVIVED] / count.total() for row, count in counts.items()}
    print("| file | mutants | killed | timed out | survived | share |\n| --- | --- | --- | --- | --- | --- |")
    for row, count in sorted(counts.items(), key=lambda pair: (pair[0] == "all", pair[0])):
        numbers = " | ".join(str(count[outcome]) for outcome in (KILLED, TIMED_OUT, SURVIVED))
        print(f"| {row} | {count.total()} | {numbers} | {100 * shares[row]:.1f} % |")
    for mutant, outcome in sorted(outcomes.items(), key=lambda pair: (pair[0].file, pair[0].start)):
        if outcome == SURVIVED:
            print(f"survived {located(mutant)}")
    return shares["all"]


def main() -> None:
    """Run the mutants, and end with 1 if too few of them are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", nargs="+", default=SOURCES, metavar="PATH", help="files and folders to change")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="tests that should notice")
    parser.add_argument("--mutants", type=int, metavar="N", help="draw so many; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at a time")
    parser.add_argument("--patience", type=int, default=20, metavar="SECONDS", help="for a mutant that does not end")
    parser.add_argument("--preload", nargs="*", default=PRELOADED, metavar="MODULE", help="libraries to import first")
    options = parser.parse_args()
    os.environ.update(HYPOTHESIS_PROFILE="mutation", OMP_NUM_THREADS="1")
    for name in options.preload:
        import_module(name)
    mutants = [mutant for file in python_files(options.source) for mutant in mutants_of(file)]
    if options.mutants is not None and options.mutants < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.mutants)
    loaded = [mutant for mutant in mutants if mutant.function is not None]
    imported = [mutant for mutant in mutants if mutant.function is None]

    def work(session: pytest.Session, items: Items) -> tuple[Suite, dict[Mutant, str]]:
        return run_loaded(session, items, loaded, options)

    answer = answer_of(lambda: with_collected(options.tests, work), silent=(1,))
    if answer is None:
        sys.exit("the tests cannot be collected, or do not pass without a mutant")
    suite, outcomes = answer
    imported += [mutant for mutant, outcome in outcomes.items() if outcome == POSTPONED]
    outcomes |= run_imported(suite, imported, options)
    sys.exit(0 if report(outcomes) >= WANTED else 1)


if __name__ == "__main__":
    main()
