"""Count the files and functions of the package that one use of it enters, as a measure of what a reader must follow.

`python tools/count_entered.py` prints a line for each of: one match of two photos, one training step, one evaluated
pair, one loaded prompt. Everything runs on mini, and once before it is counted, so that imports are left out. Functions
are counted by qualified name; comprehensions and lambdas belong to the function that contains them.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import sd4match

_ROOT = str(Path(sd4match.__file__).parent)


@contextmanager
def entered() -> Iterator[set[tuple[str, str]]]:
    """Collect (file, function) of every function of the package that is called inside the block, on any thread."""
    found: set[tuple[str, str]] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_ROOT):
            found.add((code.co_filename, code.co_qualname.split(".<locals>.<")[0].split(".<")[0]))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def count(use: Callable[[], object]) -> tuple[int, int]:
    """Return the number of files and functions that the second of two calls enters."""
    use()
    with entered() as found:
        use()
    return len({file for file, _ in found}), len(found)


def counts() -> Iterator[tuple[str, int, int]]:
    """Yield what was used, its files and its functions."""
    from sd4match import SemanticMatcher, load_preset, load_prompt, save_prompt
    from sd4match.config import build_components, build_dataset
    from sd4match.data import first
    from sd4match.evaluation import Evaluator
    from sd4match.prompting import EmptyPrompt
    from sd4match.testing import random_photo
    from sd4match.training import Trainer, TrainerCallbacks

    matcher = SemanticMatcher.from_preset("mini-empty")
    photos = random_photo((80, 120)), random_photo((60, 50), seed=1)
    yield "one match", *count(lambda: matcher.match(*photos, [(3.0, 4.0)]))

    small = ["data.photos_per_category=3", "data.pairs=8", "training.batch_size=2", "training.steps=3"]
    config = load_preset("single", small)
    components = build_components(config)
    trainer = Trainer(
        backbone=components.backbone, prompt=components.prompt, loss=components.loss, config=config.training,
        train_data=build_dataset(config, "train"), validation_data=build_dataset(config, "validation"),
        validation_matcher=config.training.validation_matcher.build(), protocol=config.evaluation.protocol,
    )  # fmt: skip
    yield "one training step", *_training_step(trainer, TrainerCallbacks)

    evaluator = Evaluator(
        backbone=components.backbone, protocol=config.evaluation.protocol, matchers={"it": components.matcher},
        sampling=config.evaluation.sampling.sampling(),
    )  # fmt: skip
    pair, prompt = first(build_dataset(config, "test"), 1), EmptyPrompt(backbone=components.backbone)
    yield "one evaluated pair", *count(lambda: evaluator.evaluate(pair, prompt))

    with tempfile.TemporaryDirectory() as folder:
        path = save_prompt(components.prompt, Path(folder) / "prompt.safetensors", backbone=components.backbone)
        yield "one load_prompt", *count(lambda: load_prompt(path, backbone=components.backbone))


def _training_step(trainer: object, callbacks: type) -> tuple[int, int]:
    """Count between the end of the first step and the end of the second."""
    steps: list[set[tuple[str, str]]] = []
    blocks = []

    def on_step(run: object) -> None:
        if blocks:
            blocks.pop().__exit__(None, None, None)
        elif not steps:
            block = entered()
            steps.append(block.__enter__())
            blocks.append(block)

    trainer.fit(callbacks=callbacks(on_step=on_step))  # type: ignore[attr-defined]
    return len({file for file, _ in steps[0]}), len(steps[0])


def main() -> None:
    """Print the counts."""
    warnings.simplefilter("ignore")
    for name, files, functions in counts():
        print(f"{name:<20} {files:>3} files  {functions:>4} functions", flush=True)


if __name__ == "__main__":
    main()
