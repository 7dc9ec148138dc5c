"""Command `sd4match reproduce`, which reproduces tables and figures of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import Device, Set

if TYPE_CHECKING:
    from sd4match.cli.progress import Bars
    from sd4match.reproduction.run import PlannedRow, Reproduction
    from sd4match.training.measuring import SweepCallbacks


def command(
    *,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET...", help="table1 to image-size, or all; see --list.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List what can be reproduced, and exit.")] = False,
    on: Annotated[str, typer.Option(help="mini, sd2-1, sd1-5, or a folder with a Stable Diffusion.")] = "mini",
    dataset: Annotated[
        list[str] | None, typer.Option(help="spair, pf_pascal or pf_willow; repeat it with --root for several.")
    ] = None,
    root: Annotated[list[Path] | None, typer.Option(help="Folder of the data set before it.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of all targets; trainings are shared in it.")] = Path(
        "runs/reproduce"
    ),
    reduced: Annotated[
        bool | None,
        typer.Option("--reduced/--full", help="Less of everything, or the paper's; default: reduced on mini."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Number of test pairs, from the first.")] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Seeds of what is learned.")] = "0,1,2",
    device: Device = "auto",
    overrides: Set = None,
) -> Document | None:
    """Train, measure and draw what the paper shows, and say which of its claims hold.

    sd4match reproduce all

    sd4match reproduce table2 fig3a --on sd2-1 --dataset spair --root SPair-71k

    Started again with the same output, it continues where it stopped.
    """
    from sd4match.errors import InputError
    from sd4match.reproduction.settings import ReproductionSettings
    from sd4match.reproduction.targets import make_target, target_names

    if listed:
        settings, answer = ReproductionSettings(), []
        for name in target_names():
            target = make_target(name, settings)
            typer.echo(f"{name:<11} {target.where:<20} {target.title}")
            answer.append({"target": name, "where": target.where, "title": target.title})
        return answer
    if not targets:
        raise InputError(f"name what to reproduce: {', '.join(target_names())}, or all")
    settings = ReproductionSettings(
        on=on, roots=_roots(dataset or [], root or []), reduced=reduced, steps=steps, pairs=pairs, seeds=_seeds(seeds),
        overrides=tuple(overrides or ()),
    )  # fmt: skip

    from contextlib import nullcontext

    from sd4match.cli.common import check_output, prepare_device
    from sd4match.cli.progress import progress_bar
    from sd4match.distributed import Processes
    from sd4match.io.locks import locked_folder
    from sd4match.reproduction.pages import to_json
    from sd4match.reproduction.run import check_output_of, chosen_targets, plan, reproduce_planned
    from sd4match.training.measuring import Bench

    made = [make_target(name, settings) for name in chosen_targets(targets)]
    check_output(output)
    planned = {target.name: plan(target, settings, output) for target in made}
    processes = Processes()
    results = []
    with locked_folder(output) if processes.is_main else nullcontext():
        for target in made:
            processes.on_main(lambda target=target: check_output_of(target, planned[target.name], output))  # type: ignore[misc]
        device = prepare_device(device)
        with progress_bar(visible=processes.is_main) as bar:
            bench = Bench("test", device, _callbacks(bar, [row for rows in planned.values() for row in rows]))
            for target in made:
                results.append(reproduce_planned(target, settings, planned[target.name], output, bench))
            bar.update(bar.task_ids[0], completed=bar.tasks[0].total)
    if not processes.is_main:
        return None
    _print(results, output)
    return [to_json(result) for result in results]


def _roots(kinds: Sequence[str], roots: Sequence[Path]) -> dict[str, str]:
    """Return the folders of data sets by kind.

    Raises:
        InputError: there are not as many folders as data sets.
    """
    from sd4match.errors import InputError

    if len(kinds) != len(roots):
        raise InputError(f"each --dataset KIND needs its --root FOLDER: there are {len(kinds)} and {len(roots)}")
    return {kind: str(root) for kind, root in zip(kinds, roots, strict=True)}


def _seeds(text: str) -> tuple[int, ...]:
    from sd4match.errors import InputError, shown

    items = [item.strip() for item in text.split(",")]
    if not all(item.isascii() and item.isdigit() for item in items):
        raise InputError(f"--seeds are whole numbers such as 0,1,2, not {shown(text)}")
    return tuple(map(int, items))


def _callbacks(bar: Bars, rows: Sequence[PlannedRow]) -> SweepCallbacks:
    """Return callbacks that show the whole work as one task of a bar, and the current row as another."""
    from sd4match.reproduction.run import work_of
    from sd4match.training.measuring import SweepCallbacks

    trainings: list[Path] = []
    work = []
    for row in rows:
        work.append(work_of(row, done=trainings))
        trainings.append(row.job.own_training[1])
    number = -1
    everything = bar.add_task("everything", total=sum(work))
    current = bar.add_task("")

    def on_start(name: str) -> None:
        nonlocal number
        number += 1
        row = rows[number]
        bar.update(everything, completed=sum(work[:number]))
        bar.reset(current, description=name[:40], total=row.job.own_training[0].training.steps)

    def on_evaluation_progress(name: str, done: int, total: int) -> None:
        bar.update(current, description=f"evaluating {name}"[:40], completed=done, total=total)

    return SweepCallbacks(
        on_start=on_start,
        on_step=lambda name, step: bar.update(current, completed=step),
        on_evaluation_progress=on_evaluation_progress,
    )


def _print(results: Sequence[Reproduction], output: Path) -> None:
    """Print the claims of each target, and the paths of its files."""
    from sd4match.reproduction.pages import extent_line

    said = ""
    for result in results:
        if (extent := extent_line(result)) != said:
            typer.echo(f"\n{extent}" if said else extent)
            said = extent
        typer.echo(f"\n{result.target.name}, {result.target.where}: {result.target.title}")
        for judged in result.judged:
            low, high = (100 * bound for bound in judged.difference.ci95)
            theirs = "" if judged.claim.published is None else f"; the paper's {judged.claim.published:+.1f}"
            ours = f"{100 * judged.difference.mean:+.1f} [{low:+.1f}, {high:+.1f}]"
            typer.echo(f"  {judged.verdict:<15} {judged.claim.text}: {ours}{theirs}")
    names = ", ".join(result.target.name for result in results)
    typer.echo(f"\nWritten: reproduction.md, reproduction.json and figure.png in {output}/ for each of {names}")
