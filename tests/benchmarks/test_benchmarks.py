"""What the benchmarks claim of themselves: counts, equal results, honest rows."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks import __main__ as command
from benchmarks.matching_rows import matching
from benchmarks.operations import count
from benchmarks.rows import Bench, check_same
from benchmarks.starting import rows as starting_rows
from benchmarks.table import Row, save, speed_row, to_markdown
from benchmarks.timing import in_turns, ratio


@pytest.mark.slow
def test_counts_are_those_of_stable_diffusion_2_at_768():
    """In GFLOPs, a multiplication with its addition as two; without attention, as the figures of others are."""
    plain = count(quarter=False, image_size=768, attention=False)
    assert [round(part / 1e9) for part in (plain.encode, plain.unet, plain.unet_to_layer)] == [2435, 1521, 869]
    whole = count(quarter=False, image_size=768)
    assert whole.encode - plain.encode == 4 * 9216**2 * 512  # the VAE's one attention
    assert [plain.features_limit(8, ours=8, kept=kept) for kept in (False, True)] == pytest.approx(
        [2.82, 3.80], abs=0.01
    )
    fewer = [plain.features_limit(8, ours=size, kept=kept) for size in (2, 3) for kept in (False, True)]
    assert fewer == pytest.approx([6.33, 15.21, 5.24, 10.14], abs=0.01)
    assert plain.pair_limit(8) == pytest.approx(2.10, abs=0.01)


@pytest.mark.slow
def test_ours_and_the_loops_give_the_same(tmp_path):
    bench = Bench.load(tmp_path, quarter=True, image_size=64, members=2, rounds=1, reference=16, dtype="float32")
    rows = [*bench.rows(), matching(pairs=12, rounds=1)]  # each checks before it measures
    assert len(rows) == 10
    assert all(row.ratio > 0 for row in rows)


def test_other_results_are_not_timed():
    check_same("it", 1e-6)
    with pytest.raises(AssertionError, match="it: ours and the loop differ"):
        check_same("it", 1e-2)


def test_contenders_take_turns():
    order = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: time.sleep(0.001) or order.append("b")}, rounds=3)
    assert "".join(order) == "baabbaab"
    assert [len(found) for found in times.values()] == [3, 3]
    assert ratio(times["b"], times["a"]) > 1


def test_a_missed_row_says_so(tmp_path):
    hit = speed_row("fast", ours=1.0, loop=2.4, ratio=2.4, limit=2.5, note="Loops.")
    missed = speed_row("slow", ours=1.0, loop=2.0, ratio=2.0, limit=2.5, note="")
    assert (hit.reached, missed.reached) == (True, False)
    assert "| 2. slow | 1.00 s | 2.00 s | 2.00 | 2.50 | >= 2.30 x | **no** |" in to_markdown([hit, missed])
    (tmp_path / "performance.md").write_text("before\n<!-- quick: begin -->\nold\n<!-- quick: end -->\nafter\n")
    save(tmp_path, "quick", "Title.", [hit], seconds=60)
    text = (tmp_path / "performance.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- quick: end -->\nafter\n")
    assert "old" not in text
    assert json.loads((tmp_path / "performance.json").read_text())["quick"]["rows"][0]["ratio"] == 2.4


def test_the_tables_in_the_documents_are_those_that_were_saved():
    stored = json.loads((command.DOCS / "performance.json").read_text())
    text = (command.DOCS / "performance.md").read_text()
    for name in ("quick", "full"):
        assert to_markdown([Row(**row) for row in stored[name]["rows"]]) in text


def test_starting_is_light():
    """Twice the time that is asked for, since tests share their machine."""
    imported, helped = starting_rows()
    assert "not loaded" in imported.note
    for row, most in ((imported, 0.6), (helped, 1.2)):
        number, unit = row.ours.split()
        assert float(number) * (1e-3 if unit == "ms" else 1) < most
