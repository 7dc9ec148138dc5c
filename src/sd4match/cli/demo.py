"""`sd4match demo`: train a prompt on the packaged mini model and compare it with text prompts."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.evaluation.report import Report
    from sd4match.interfaces import Backbone, PairDataset, Prompt
    from sd4match.structures.pairs import PairRecord

_LABELS = {
    "random": "a random place in the box",
    "identity": "the same place in the photo",
    "empty": "empty prompt",
    "text": '"a photo of a {category}"',
    "part words": "hand-written, with the words of all parts",
    "single": "single: learned in this run",
}
"""Rows of the table, by the names of prompts and baselines."""
_RESULTS = ("empty", "text", "single")
_COMPARISONS = (("single", "text"), ("single", "empty"), ("text", "empty"), ("single", "part words"))


def command(
    output: Annotated[Path, typer.Option(help="Folder for the report, the prompt, the curve and the picture.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial prompt, order of pairs and noise.")] = 0,
) -> None:
    """Train a prompt on mini and compare it with text on held-out pairs. Two minutes, no network."""
    from sd4match.cli.common import check_output
    from sd4match.cli.run_folder import held
    from sd4match.evaluation.run_folders import check_run_folder, earlier_report

    check_output(output)
    with held(output):
        check_run_folder(output, "demo")
        replaced = earlier_report(output)
        _run(output, seed)
    if replaced:
        typer.echo(replaced)


def _run(output: Path, seed: int) -> None:
    """Train, measure, and write the files of the demo."""
    started = time.perf_counter()
    from sd4match.cli.common import quiet_libraries
    from sd4match.cli.progress import console, evaluation_progress, progress_bar, training_progress
    from sd4match.config import presets
    from sd4match.config.experiment import build_components, build_dataset
    from sd4match.evaluation.baselines import BASELINES
    from sd4match.evaluation.report import backbone_entry, make_report, make_row, write_report
    from sd4match.evaluation.run import compare_prompts, evaluate_baselines, evaluate_prompts
    from sd4match.evaluation.run_folders import DEMO_PICTURE, DEMO_PROMPT_FILE
    from sd4match.training.run import train_in_folder

    quiet_libraries()
    config = presets.load_preset("single", [f"seed={seed}"])
    components = build_components(config)
    console.print("Learning one prompt for all categories on mini, a small diffusion model; its weights stay frozen.")
    with training_progress(config.training.steps) as callbacks:
        run = train_in_folder(config, components, output, prompt_file=output / DEMO_PROMPT_FILE, callbacks=callbacks)

    data = build_dataset(config, "test")
    prompts = {**hand_written_prompts(components.backbone), "single": components.prompt}
    with progress_bar() as bar:
        measured = evaluate_prompts(config, components, data, prompts, progress=evaluation_progress(bar))
    scores = {result.prompt: result.scores for result in measured}
    baselines = evaluate_baselines(config, data, list(BASELINES))
    report = make_report(
        config=config,
        data=data,
        results=[make_row(name, scores[name], config) for name in _RESULTS],
        comparisons=[compare_prompts(config, scores, a, b) for a, b in _COMPARISONS],
        baselines=[
            *(make_row(name, baseline, config, matcher="none") for name, baseline in baselines.items()),
            make_row("part words", scores["part words"], config),
        ],
        backbone=backbone_entry(config, components.backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": "test", "best_step": run.best_step, "validation_pck@0.1": run.best_pck},
    )
    picture = io.BytesIO()
    shown = max(data, key=lambda record: int(record.visible.sum()))  # whatever was found in it
    _draw(config, components, data, shown, prompts).save(picture, format="png")
    title = "Demo: a learned prompt against text, on mini"
    write_report(report, output, title=title, figures={DEMO_PICTURE: picture.getvalue()})
    _print(report, output)


def hand_written_prompts(backbone: Backbone) -> dict[str, Prompt]:
    """Return the prompts that nothing was learned for; "part words" names every part of each category."""
    from sd4match.data.synthetic.anatomy import ANATOMIES, part_words
    from sd4match.prompting.config import TextPromptConfig
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    texts = {name: f"a photo of a {name} with {', '.join(part_words(name))}" for name in ANATOMIES}
    return {
        "empty": EmptyPrompt(backbone=backbone),
        "text": TextPrompt(backbone=backbone),
        "part words": TextPrompt(TextPromptConfig(by_category=texts), backbone=backbone),
    }


def _draw(
    config: ExperimentConfig,
    components: Components,
    data: PairDataset,
    record: PairRecord,
    prompts: Mapping[str, Prompt],
) -> Image.Image:
    """Draw a pair under text and under the learned prompt: hits at 0.1 green, misses red, true points as crosses."""
    from dataclasses import replace

    import torch

    from sd4match.pipeline import SemanticMatcher
    from sd4match.viz.matches import draw_matches, stack

    source, target = data.photo(record.source_id), data.photo(record.target_id)
    points, truth = record.source_points[record.visible], record.target_points[record.visible]
    protocol = config.evaluation.protocol
    pictures = []
    for name in ("text", "single"):
        matcher = SemanticMatcher.from_components(replace(components, prompt=prompts[name]), config)
        predicted = matcher.match(source, target, points, category=record.category).target_points
        correct = protocol.correct(
            torch.from_numpy(predicted)[None].float(),
            torch.from_numpy(truth)[None].float(),
            torch.ones(1, len(truth), dtype=torch.bool),
            photo_sizes=[target.size],
            boxes=[record.target_box],
        )[0, :, protocol.alphas.index(0.1)].tolist()
        hits = f"{sum(correct)} of {len(correct)} points within 0.1 of the box"
        title = f"{_LABELS[name]}: {hits} (mini, {record.category})"
        picture = draw_matches(source, target, points, predicted, hits=correct, truth=truth, title=title, height=384)
        pictures.append(picture)
    return stack(pictures)


def _print(report: Report, output: Path) -> None:
    """Print the table of all prompts and baselines, the gain over text, and commands to try next."""
    from rich.console import Console
    from rich.table import Table

    from sd4match.evaluation.tables import MINI_NOTE, percent

    table = Table("prompt", "PCK@0.1 per image", "95 % interval", "per point", title="mini, held-out synthetic pairs")
    for name, label in _LABELS.items():
        row = report.row(name)
        low, high = row.ci95["image"]["0.1"]
        interval = f"{percent(low)} to {percent(high)}"
        table.add_row(label, percent(row.pck["image"]["0.1"]), interval, percent(row.pck["point"]["0.1"]))
    Console(highlight=False).print(table)
    gain = next(comparison for comparison in report.comparisons if (comparison.a, comparison.b) == ("single", "text"))
    low, high = (100 * bound for bound in gain.ci95)
    verdict = "more" if low > 0 else "fewer" if high < 0 else "no surely different number"
    typer.echo(
        f"Of the keypoints that both photos show, the learned prompt finds {verdict} than the text template: "
        f"{100 * gain.difference:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}], paired over "
        f"{report.row('single').pairs} pairs.\n"
        f"The interval is over pairs; another --seed learns another prompt.\n{MINI_NOTE}"
    )
    typer.echo(
        f"\nWritten to {output}/: report.json, .md, .csv, .tex, single.safetensors, loss.png, "
        "and pair.png, the first of the pairs with most points"
    )
    typer.echo(
        "\nTry next:\n"
        f"  sd4match match PHOTO_A PHOTO_B --prompt {output}/single.safetensors --output matches\n"
        f"  sd4match evaluate --prompt {output}/single.safetensors --against text --output runs/evaluate\n"
        "  sd4match train --preset single --set prompt.num_tokens=60 --output runs/tokens-60"
    )
