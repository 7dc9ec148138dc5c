"""`sd4match demo`: the main job, from nothing, on the packaged mini model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.evaluation.scores import PairScores
    from sd4match.interfaces import PairDataset, PromptProvider
    from sd4match.structures.pairs import PairRecord

_LABELS = {
    "random": "a random place in the box",
    "identity": "the same place in the photo",
    "empty": "empty prompt",
    "text": '"a photo of a {category}"',
    "part words": "hand-written, with the words of all parts",
    "single": "single: learned in this run",
}


def command(
    output: Annotated[Path, typer.Option(help="Folder for the report, the prompt, the curve and the picture.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the initial prompt, the order of pairs and the noise.")] = 0,
) -> None:
    """Learn a prompt on mini and compare it with text on pairs it has never seen. Two minutes, no network."""
    started = time.perf_counter()
    from sd4match.cli.common import check_output, console, quiet_libraries
    from sd4match.cli.train import learn
    from sd4match.config.experiment import build, build_dataset, load_preset
    from sd4match.evaluation.baselines import BASELINES
    from sd4match.evaluation.report import backbone_entry, make_report, result, write_report
    from sd4match.evaluation.run import compare_prompts, evaluate_baselines
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    check_output(output)
    quiet_libraries()
    config = load_preset("single", [f"seed={seed}"])
    parts = build(config)
    console.print("Learning one prompt for all categories on mini, a small diffusion model; its weights stay frozen.")
    run = learn(config, parts, output, prompt_file=output / "single.safetensors")

    data = build_dataset(config, "test")
    prompts: dict[str, PromptProvider] = {
        "empty": EmptyPrompt(backbone=parts.backbone),
        "text": TextPrompt(backbone=parts.backbone),
        "single": parts.prompt,
    }
    scores = _evaluate(config, parts, data, prompts | {"part words": part_word_prompt(parts)})
    floor = evaluate_baselines(config, data, list(BASELINES))
    comparisons = [
        compare_prompts(config, scores, a, b)
        for a, b in (("single", "text"), ("single", "empty"), ("text", "empty"), ("single", "part words"))
    ]
    report = make_report(
        config=config,
        data=data,
        results=[result(name, scores[name], config) for name in prompts],
        comparisons=comparisons,
        baselines=[
            *(result(name, one, config, matcher="none") for name, one in floor.items()),
            result("part words", scores["part words"], config),
        ],
        backbone=backbone_entry(config, parts.backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": "test", "best_step": run.best_step, "validation_pck@0.1": run.best_pck},
    )
    write_report(report, output, title="Demo: a learned prompt against text, on mini")
    record = _typical_pair(data, scores)
    _picture(config, parts, data, record, prompts).save(output / "pair.png")
    _tell(report, {**floor, **scores}, output)


def part_word_prompt(parts: Components) -> PromptProvider:
    """The strong text baseline: every part of the category named by hand."""
    from sd4match.data.synthetic.anatomy import ANATOMIES, part_words
    from sd4match.prompting.text import TextPrompt

    texts = {name: f"a photo of a {name} with {', '.join(part_words(name))}" for name in ANATOMIES}
    return TextPrompt(backbone=parts.backbone, by_category=texts)


def _evaluate(
    config: ExperimentConfig, parts: Components, data: PairDataset, prompts: Mapping[str, PromptProvider]
) -> dict[str, PairScores]:
    from sd4match.cli.common import evaluation_progress, progress_bar
    from sd4match.evaluation.run import evaluate_prompts

    with progress_bar() as bar:
        measured = evaluate_prompts(config, parts, data, prompts, progress=evaluation_progress(bar))
    return {one.prompt: one.scores for one in measured}


def _typical_pair(data: PairDataset, scores: Mapping[str, PairScores]) -> PairRecord:
    """The pair whose gain of single over text is nearest to the mean gain; of equal ones, the one with most points."""
    single, text = scores["single"], scores["text"]
    column = single.alphas.index(0.1)
    gain = (single.correct - text.correct)[:, column] / single.visible
    away = abs(gain - gain.mean())
    best = min(range(len(gain)), key=lambda i: (round(float(away[i]), 6), -int(single.visible[i]), i))
    return next(record for record in data if record.pair_id == single.pair_ids[best])


def _picture(
    config: ExperimentConfig,
    parts: Components,
    data: PairDataset,
    record: PairRecord,
    prompts: Mapping[str, PromptProvider],
) -> Image.Image:
    """The pair under text and under the learned prompt, hits at 0.1 green, misses red, truth crossed."""
    import torch

    from sd4match.pipeline import SemanticMatcher
    from sd4match.viz.matches import draw_matches, stack

    source, target = data.photo(record.source_id), data.photo(record.target_id)
    points, truth = record.source_points[record.visible], record.target_points[record.visible]
    rule = config.evaluation.measurement
    pictures = []
    for name in ("text", "single"):
        matcher = SemanticMatcher(
            backbone=parts.backbone,
            prompt=prompts[name],
            matcher=parts.matcher,
            sampling=config.evaluation.sampling.sampling(config.evaluation.seed),
            measurement=config.evaluation.measurement,
        )
        found = matcher.match(source, target, points, category=record.category).target_points
        correct = rule.correct(
            torch.from_numpy(found)[None].float(),
            torch.from_numpy(truth)[None].float(),
            torch.ones(1, len(truth), dtype=torch.bool),
            photo_sizes=[target.size],
            boxes=[record.target_box],
        )[0, :, rule.alphas.index(0.1)].tolist()
        title = (
            f"{_LABELS[name]}: {sum(correct)} of {len(correct)} points within 0.1 of the box (mini, {record.category})"
        )
        pictures.append(draw_matches(source, target, points, found, hits=correct, truth=truth, title=title, height=384))
    return stack(pictures)


def _tell(report: Mapping[str, Any], scores: Mapping[str, PairScores], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from sd4match.evaluation.tables import MINI_NOTE, percent

    rows = {row["prompt"]: row for row in [*report["results"], *report["baselines"]]}
    table = Table("prompt", "PCK@0.1 per image", "95 % interval", "per point", title="mini, held-out synthetic pairs")
    for name, label in _LABELS.items():
        low, high = rows[name]["ci95"]["image"]["0.1"]
        pck = rows[name]["pck"]
        table.add_row(
            label, percent(pck["image"]["0.1"]), f"{percent(low)} to {percent(high)}", percent(pck["point"]["0.1"])
        )
    Console(highlight=False).print(table)
    gain = next(c for c in report["comparisons"] if (c["a"], c["b"]) == ("single", "text"))
    low, high = (100 * side for side in gain["ci95"])
    verdict = "more" if low > 0 else "fewer" if high < 0 else "no surely different number"
    typer.echo(
        f"Of the key points that both photos show, the learned prompt finds {verdict} than the text template: "
        f"{100 * gain['difference']:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}], paired over "
        f"{rows['single']['pairs']} pairs.\n"
        f"The interval is over pairs; another --seed learns another prompt.\n{MINI_NOTE}"
    )
    typer.echo(f"\nWritten to {output}/: report.json, .md, .csv, .tex, single.safetensors, loss.png, pair.png")
    typer.echo(
        "\nTry next:\n"
        f"  sd4match match PHOTO_A PHOTO_B --prompt {output}/single.safetensors --output matches\n"
        f"  sd4match evaluate --prompt {output}/single.safetensors --against text --output runs/evaluate\n"
        "  sd4match train --preset single --set prompt.slots=60 --output runs/slots-60"
    )
