"""Command `sd4match demo`, which trains a prompt on the packaged mini model and compares it with text prompts."""

from __future__ import annotations

import io
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
) -> Document:
    """Train a prompt on mini and compare it with text on held-out pairs. Three minutes, no network."""
    from sd4match.cli.common import check_output
    from sd4match.cli.run_folder import held
    from sd4match.evaluation.run_folders import check_run_folder, earlier_report

    check_output(output)
    with held(output):
        check_run_folder(output, "demo")
        replaced = earlier_report(output)
        report = _run(output, seed)
    if replaced:
        typer.echo(replaced)
    return {**report.to_json(), "files": _files(output), "try_next": _commands(output)}


def _run(output: Path, seed: int) -> Report:
    """Train, measure, and write the files of the demo."""
    started = time.perf_counter()
    from sd4match.cli.common import quiet_libraries
    from sd4match.cli.demo_picture import chosen_pairs
    from sd4match.cli.progress import evaluation_progress, progress_bar, tell, training_progress, waiting
    from sd4match.config import presets
    from sd4match.config.experiment import build_components, build_dataset
    from sd4match.evaluation.baselines import BASELINES
    from sd4match.evaluation.report import backbone_entry, make_report, make_row, write_report
    from sd4match.evaluation.run import compare_prompts, evaluate_baselines, evaluate_prompts
    from sd4match.evaluation.run_folders import DEMO_PHOTOS, DEMO_PICTURE, DEMO_PROMPT_FILE
    from sd4match.training.run import train_in_folder

    config = presets.load_preset("single", [f"seed={seed}"])
    with waiting("loading mini"):
        quiet_libraries()
        components = build_components(config)
    tell("Learning one prompt for all categories on mini, a small diffusion model; its weights stay frozen.")
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
    shown = chosen_pairs(list(data))
    pictures = {DEMO_PICTURE: _draw(config, components, data, shown, prompts)}
    pictures |= {
        name: data.photo(key).to_image()
        for name, key in zip(DEMO_PHOTOS, (shown[0].source_id, shown[0].target_id), strict=True)
    }
    title = "Demo: a learned prompt against text, on mini"
    write_report(report, output, title=title, figures={name: _png(picture) for name, picture in pictures.items()})
    _print(report, output)
    return report


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, format="png")
    return content.getvalue()


def hand_written_prompts(backbone: Backbone) -> dict[str, Prompt]:
    """Return the prompts that are not learned; "part words" names all parts of each category."""
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
    records: Sequence[PairRecord],
    prompts: Mapping[str, Prompt],
) -> Image.Image:
    """Draw pairs under text and under the learned prompt, with hits at 0.1, misses and true points."""
    from dataclasses import replace

    import torch

    from sd4match.cli.demo_picture import Matched, draw_columns
    from sd4match.pipeline import SemanticMatcher

    protocol = config.evaluation.protocol
    columns = []
    for name in ("text", "single"):
        matcher = SemanticMatcher.from_components(replace(components, prompt=prompts[name]), config)
        column = []
        for record in records:
            source, target = data.photo(record.source_id), data.photo(record.target_id)
            points, truth = record.source_points[record.visible], record.target_points[record.visible]
            predicted = matcher.match(source, target, points, category=record.category).target_points
            correct = protocol.correct(
                torch.from_numpy(predicted)[None].float(),
                torch.from_numpy(truth)[None].float(),
                torch.ones(1, len(truth), dtype=torch.bool),
                photo_sizes=[target.size],
                boxes=[record.target_box],
            )[0, :, protocol.alphas.index(0.1)].tolist()
            column.append(Matched(source, target, points, predicted, truth, correct, record.category))
        columns.append(column)
    return draw_columns([f"text: {_LABELS['text']}", "one prompt for all, learned in this run"], columns)


def _print(report: Report, output: Path) -> None:
    """Print the table of all prompts and baselines, the gain over text, and commands to try next."""
    from rich.console import Console
    from rich.table import Table

    from sd4match.cli.demo_picture import RULE
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
        f"\nWritten to {output}/: report.json, .md, .csv, .tex, single.safetensors, loss.png, pair.png with {RULE}, "
        "and the photos of the first one, source.png and target.png"
    )
    typer.echo("\n".join(["\nTry next:", *(f"  {command}" for command in _commands(output))]))


def _files(output: Path) -> list[Path]:
    from sd4match.evaluation.run_folders import DEMO_PHOTOS, DEMO_PICTURE, DEMO_PROMPT_FILE, REPORT_FILES

    return [output / name for name in (*REPORT_FILES, DEMO_PROMPT_FILE, DEMO_PICTURE, *DEMO_PHOTOS)]


def _commands(output: Path) -> list[str]:
    """Return commands that can be run in the folder in which the demo was called."""
    from sd4match.cli.common import program

    source, target, prompt = (
        shlex.quote(str(output / name)) for name in ("source.png", "target.png", "single.safetensors")
    )
    return [
        f"{program()} {words}"
        for words in (
            f"match {source} {target} --prompt {prompt} --output matches",
            f"evaluate --prompt {prompt} --against text --limit 100 --output runs/evaluate",
            "train --preset single --set prompt.num_tokens=60 --steps 100 --output runs/tokens-60",
        )
    ]
