"""`python -m robustness`: try every hostile input, print a table of the outcomes, and exit 1 if one is not fine."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path


def main() -> None:
    """Run the cases that the options choose."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    parser = argparse.ArgumentParser(prog="python -m robustness", description=__doc__)
    parser.add_argument("--only", action="append", help="beginning of the name of a group; may be repeated")
    parser.add_argument("--case", help="part of the name of a case")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--shown", type=int, default=40, help="bad outcomes that are printed")
    parser.add_argument("--output", type=Path, help="JSON file for the outcome of every input")
    options = parser.parse_args()

    from robustness.cases import FINE, Outcome
    from robustness.groups import all_cases
    from robustness.runner import run_all

    started = time.perf_counter()
    with all_cases(options.only) as every:
        cases = [case for case in every if options.case is None or options.case in case.name]
        print(f"{len(cases)} inputs", flush=True)
        results = run_all(cases, workers=options.workers)
    groups = sorted({result.group for result in results})
    width = max(map(len, [*groups, "all"]), default=3)
    counts = {group: Counter(r.outcome for r in results if r.group == group) for group in groups}
    counts["all"] = Counter(result.outcome for result in results)
    for group, count in counts.items():
        fine = sum(count[outcome] for outcome in FINE)
        bad = ", ".join(f"{count[outcome]} {outcome}" for outcome in Outcome if outcome not in FINE and count[outcome])
        print(f"{group:{width}}  {sum(count.values()):5} inputs  {fine:5} fine  {bad}")
    bad_results = [result for result in results if result.outcome not in FINE]
    for result in bad_results[: options.shown]:
        print(f"{result.group} | {result.name} | {result.outcome} | {result.detail[:300]}")
    if options.output:
        rows = [[result.group, result.name, result.outcome, result.detail] for result in results]
        options.output.write_text(json.dumps(rows, indent=0, ensure_ascii=True))
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(1 if bad_results else 0)


if __name__ == "__main__":
    main()
