"""`sd4match evaluate`: PCK of prompts and baselines on the pairs of a data set."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import (
    BackboneName,
    CacheLimit,
    ConfigFile,
    Dataset,
    Device,
    Dtype,
    Fallback,
    Preset,
    Root,
    Set,
    ShowConfig,
)

if TYPE_CHECKING:
    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.evaluation.run import Measured
    from sd4match.interfaces import PromptProvider


def command(
    output: Annotated[Path, typer.Option(help="Folder for report.json, .md, .csv and .tex.")] = Path("runs/evaluate"),
    dataset: Dataset = None,
    root: Root = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    category: Annotated[list[str] | None, typer.Option(help="Only pairs of this category; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="The file of a learned prompt.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    against: Annotated[
        str | None,
        typer.Option(help='Also measure "empty", "text" or another prompt file, and compare on the same pairs.'),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help='"identity" or "random", which need no model; may be repeated. Alone: nothing else is measured.'
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How to count: sd4match, dift, sd-dino or geoaware, with its own matcher.")
    ] = None,
    matcher: Annotated[
        list[str] | None, typer.Option(help="One more matcher on the same features; may be repeated.")
    ] = None,
    fallback: Fallback = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pairs that cannot be read, and say so in the report.")
    ] = False,
    maps: Annotated[
        Path | None,
        typer.Option(help="Keep feature maps in this folder, and use those in it: for another protocol or matcher."),
    ] = None,
    cache_limit: CacheLimit = None,
    backbone: BackboneName = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Measure prompts on a data set: PCK per image, point, category and difficulty, with bootstrap intervals."""
    from sd4match.cli.common import cache_changes, check_output, data_changes, read_config, show_config

    changes = data_changes(dataset, root) + cache_changes(cache_limit) + _protocol_changes(protocol)
    changes += _list_change("evaluation.matchers", matcher) + _list_change("evaluation.categories", category)
    changes += [f"evaluation.limit={limit}"] if limit is not None else []
    changes += ["evaluation.skip_bad=true"] if skip_bad else []
    settings = read_config(
        preset=preset,
        config=config,
        overrides=[*changes, *(overrides or ())],
        default="single" if prompt else "text",
        backbone=backbone,
        dtype=dtype,
    )
    if show:
        show_config(settings)

    from sd4match.errors import ConfigError, choose_from
    from sd4match.evaluation.baselines import BASELINES

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split must be train, validation or test, not {split!r}")
    for name in baseline or ():
        if name not in BASELINES:
            raise ConfigError(f"unknown baseline {name!r}; {choose_from(name, BASELINES)}")
    beside = check_output(output)
    without_model = bool(baseline) and not (prompt or preset or config or against or backbone or matcher)
    _run(
        settings, output, split=split, prompt=prompt, against=against, baselines=list(baseline or ()),
        without_model=without_model, fallback=fallback, maps=maps, scratch=beside, device=device,
    )  # fmt: skip


def _protocol_changes(name: str | None) -> list[str]:
    """What a protocol means for the experiment: its way to count, its matcher, its view of photos."""
    if name is None:
        return []
    from sd4match.config.protocols import measurement

    rule = measurement(name)
    frame = [f"backbone.frame={rule.view}"] if rule.view != "squash" else []
    return [f"evaluation.measurement={name}", f"matcher={rule.matcher.model_dump_json()}", *frame]


def _list_change(field: str, values: list[str] | None) -> list[str]:
    import json

    return [f"{field}={json.dumps(values)}"] if values else []


def _run(
    settings: ExperimentConfig,
    output: Path,
    *,
    split: str,
    prompt: Path | None,
    against: str | None,
    baselines: list[str],
    without_model: bool,
    fallback: str | None,
    maps: Path | None,
    scratch: Path,
    device: str,
) -> None:
    started = time.perf_counter()
    from sd4match.cli.common import evaluation_progress, pick_device, progress_bar, prompt_settings, quiet_libraries
    from sd4match.config.experiment import build_dataset
    from sd4match.distributed import Processes
    from sd4match.evaluation.report import backbone_entry, make_report, result, write_report
    from sd4match.evaluation.run import chosen_pairs, compare_prompts, evaluate_baselines, evaluate_prompts
    from sd4match.evaluation.tables import to_summary
    from sd4match.pipeline import build_for_matching

    where = pick_device(device)
    quiet_libraries()
    data = chosen_pairs(settings, build_dataset(settings, split))  # type: ignore[arg-type]
    main = Processes().is_main
    parts: Components | None = None
    measured: list[Measured] = []
    providers = {}
    if not without_model:
        parts = build_for_matching(
            settings,
            prompt=prompt,
            prompt_settings=prompt_settings(fallback, prompt),
            device=where,
            cache=settings.cache.open(),
        )
        providers = _providers(settings, parts, prompt, against)
    with progress_bar(visible=main) as bar:
        tell = evaluation_progress(bar)
        if parts is not None:
            measured = evaluate_prompts(settings, parts, data, providers, maps=maps, scratch=scratch, progress=tell)
        floor = evaluate_baselines(settings, data, baselines, progress=partial(tell, "baselines"))
    if not main:
        return
    named = {one.named(settings.matcher.kind): one for one in measured}
    results = [result(name, one.scores, settings, matcher=one.matcher) for name, one in named.items()]
    results += [result(name, scores, settings, matcher="none") for name, scores in floor.items()]
    scores = {name: one.scores for name, one in named.items()} | floor
    names = list(scores)
    report = make_report(
        config=settings,
        data=data,
        results=results,
        comparisons=[compare_prompts(settings, scores, names[0], other) for other in names[1:]],
        backbone=backbone_entry(settings, parts.backbone) if parts is not None else None,
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "prompt_file": str(prompt) if prompt else None},
    )
    title = f"{', '.join(names)} on {data.name}, {split} split"
    files = write_report(report, output, title=title)
    typer.echo(to_summary(report, title=title))
    _remark(report, output)
    typer.echo(f"Written: {', '.join(map(str, files))}")


def _providers(
    settings: ExperimentConfig, parts: Components, prompt: Path | None, against: str | None
) -> dict[str, PromptProvider]:
    """The prompts to measure, by the names that the report gives them."""
    from sd4match import registry
    from sd4match.prompting.serialization import load_prompt

    providers = {prompt.stem if prompt else settings.prompt.kind: parts.prompt}
    if against is not None:
        other = (
            registry.prompts.build(registry.prompts.parse(against), backbone=parts.backbone)
            if against in ("empty", "text")
            else load_prompt(against, backbone=parts.backbone)
        )
        name = Path(against).stem
        providers[name if name not in providers else f"{name} (against)"] = other
    return providers


def _remark(report: dict[str, object], output: Path) -> None:
    skipped = report["results"][0]["pairs_skipped"]  # type: ignore[index]
    if skipped:
        typer.echo(
            f"{skipped} pairs were left out because they could not be read; {output / 'report.json'} names them.",
            err=True,
        )
