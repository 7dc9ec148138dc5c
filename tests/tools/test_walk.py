"""The walk through the documents finds every command and program, and says which it cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from walk import LEFT_OUT, SHORTENED, Step, documents, run, shorten, steps_of  # noqa: E402

DOCUMENT = """
Text with `sd4match doctor` in it.

```
sd4match train --preset single \\
    --output runs/a     # a remark
photo --prepare--> View
make test  # the suite
```

```python
print(1)
```

```yaml
sd4match: no command
```
"""


def test_commands_and_programs_are_found_in_order():
    found = [(step.text.split(), step.is_python) for step in steps_of("a.md", DOCUMENT)]
    assert found == [
        (["sd4match", "train", "--preset", "single", "--output", "runs/a"], False),
        (["make", "test"], False),
        (["print(1)"], True),
    ]


def test_documents_come_in_the_order_of_the_readme():
    names = documents(ROOT)
    assert names[0] == "README.md"
    assert names[-1] == "CONTRIBUTING.md"
    assert {
        str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md") if "decisions" not in file.parts
    } < set(names)


@pytest.mark.parametrize("text", [*SHORTENED, *LEFT_OUT])
def test_what_is_shortened_or_left_out_is_in_a_document(text):
    """So that neither list outlives a document."""
    steps = [step.text for name in documents(ROOT) for step in steps_of(name, (ROOT / name).read_text())]
    assert any(text in step for step in steps)


def test_a_shortened_command_says_so():
    step = shorten(Step("a.md", "make test-slow"))
    assert (step.text, step.remark) == ("make -n test-slow", "shortened, takes half an hour")


@pytest.mark.parametrize(("text", "code"), [("echo walked", 0), ("exit 3", 3), ("sleep 5", 124)])
def test_a_step_keeps_its_output_and_its_exit_code(text, code, tmp_path):
    (tmp_path / "a.md").write_text("")
    (tmp_path / "files").mkdir()
    step, log = Step("a.md", text), tmp_path / "walk.log"
    run(step, tmp_path, tmp_path, log, timeout=0.5)
    assert step.code == code
    assert f"$ {text}" in log.read_text()
    assert ("walked" in log.read_text().replace("echo walked", "")) == (text == "echo walked")


def test_a_step_that_cannot_run_is_left_out(tmp_path):
    (tmp_path / "a.md").write_text("")
    step = Step("a.md", "accelerate launch --num_machines 2")
    run(step, tmp_path, tmp_path, tmp_path / "log", timeout=1)
    assert step.code is None
    assert step.remark == "left out: needs two machines"
