"""Progress on terminals of any width, and silence in pipes, logs and dumb terminals."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from helpers.command_line import sets
from helpers.terminal import run_in_terminal, terminal
from sd4match.cli import progress

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def drawn(monkeypatch):
    """Return what a terminal of a width gets from tasks of 12000 photos and of pairs, and from a wait before them."""

    def draw(columns, **environment):
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm", "COLUMNS": str(columns)} | environment).items():
            monkeypatch.setenv(name, value)
        with terminal(columns) as (file, text):
            monkeypatch.setattr(sys, "stderr", file)
            monkeypatch.setattr(progress, "console", Console(stderr=True, highlight=False, markup=False))
            with progress.waiting("loading sd2-1"):
                pass
            with progress.progress_bar(before="loading") as bars:
                photos = bars.add_task("implicit-captioner: photos of the split", total=12345)
                pairs = bars.add_task("text: pairs", total=8)
                bars.update(photos, completed=6000)
                bars.advance(pairs)
                bars.status = "loss 4.321 (1.234 above its lower bound)  PCK@0.1 45.6 (best 45.6 at 75)  0.43 steps/s"
                bars.refresh()
            monkeypatch.undo()
            return text()

    return draw


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_every_line_fits_into_the_terminal(drawn, columns):
    screen = drawn(columns)
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", screen)) if line.strip()]
    assert max(map(len, lines)) <= columns
    shown = lines[-3:]
    assert "6000/12345" in shown[0]
    assert "1/8" in shown[1]
    assert shown[2].startswith("loss 4.321")
    assert ("━" in shown[0]) == (columns >= 60)
    assert "implicit-capt" in shown[0]
    assert screen.count("\n") < 12  # a bar that is folded would push the screen up with every picture
    assert "\x1b[?25h" in screen.rpartition("\x1b[?25l")[2]  # the cursor is there again


def test_no_color_leaves_no_color(drawn):
    assert COLOR.search(drawn(80))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", drawn(80, NO_COLOR="1"))


def test_a_dumb_terminal_and_a_pipe_get_no_control_characters(drawn, capsys):
    assert drawn(80, TERM="dumb") == ""
    with progress.waiting("loading"), progress.progress_bar(before="reading") as bars:
        bars.advance(bars.add_task("text: pairs", total=1))
    assert capsys.readouterr() == ("", "")


def test_forced_colors_draw_no_bars_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "console", Console(stderr=True))
    with progress.progress_bar() as bars:
        bars.advance(bars.add_task("text: pairs", total=1))
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_each_half_minute_and_one_at_the_end(monkeypatch):
    log, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", log)
    with progress.Bars() as bars:
        bars.get_time = lambda: now[0]
        task = bars.add_task("extracting", total=8)
        for _ in range(8):
            now[0] += 10
            bars.advance(task)
        bars.update(task, completed=8)
        bars.reset(task, total=1, description="evaluating " + 90 * "x")
        now[0] += 3605
        bars.status = "loss 4.3  0.5 steps/s"
        bars.update(task, completed=1)
        bars.reset(task, total=1)
        now[0] += 1.9
        bars.update(task, completed=1)
        bars.add_task("unknown", total=None)
    assert log.getvalue().splitlines() == [
        "extracting: 3 of 8, 0:50 left",
        "extracting: 6 of 8, 0:20 left",
        "extracting: 8 of 8, 1:20",
        f"evaluating {90 * 'x'}: 1 of 1, 1:00:05, loss 4.3, 0.5 steps/s",
    ]


def test_processes_that_are_not_the_main_one_are_silent(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.Bars(visible=False) as bars:
        bars.get_time = iter(range(0, 1000, 100)).__next__
        bars.advance(bars.add_task("extracting", total=1))
    assert log.getvalue() == ""


def test_a_program_without_stderr_has_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert not progress.is_live()


EVALUATE = [sys.executable, "-m", "sd4match", "evaluate",
            *sets("data.photos_per_category=2", "data.pairs=6", "evaluation.bootstrap_samples=20")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_an_evaluation_on_a_terminal(tmp_path, columns):
    code, screen = run_in_terminal([*EVALUATE, "--output", "out"], columns=columns, folder=tmp_path)
    assert code == 0, screen
    bars, _, result = screen.partition("# text on synthetic")
    assert "6/6" in bars
    assert "loading" in bars
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", bars)) if not line.startswith("Feature maps")]
    assert max(map(len, lines)) <= columns
    assert not CONTROL.search(result)


@pytest.mark.slow
def test_an_evaluation_in_a_pipe(tmp_path):
    done = subprocess.run([*EVALUATE, "--output", "out"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout + done.stderr)
    assert "━" not in done.stderr
