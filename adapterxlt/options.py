"""What verbs about a study share: their options, and the study that these open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adapterxlt.core.showing import visible

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
RECIPE = click.argument("recipe", metavar="RECIPE")


def study_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Recipe, overrides and where things are, for `open_study`."""
    for option in (
        click.option("--store", help="Folder of finished stages. [default: .adapterxlt]"),
        click.option("--lock", help="What adapters on hubs are. [default: RECIPE.lock.json]"),
        click.option("--data", help="Data folder, lab or hub; in place of the recipe's."),
        click.option("--backbone", help="Backbone folder, or lab; in place of the recipe's."),
    ):
        function = option(function)
    return RECIPE(OVERRIDES(function))


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how `run` computes."""
    for option in (
        click.option(
            "--out", type=click.Path(path_type=Path), help="Folder of results. [results/NAME]"
        ),
        click.option(
            "--track",
            multiple=True,
            metavar="WHERE",
            help="Losses and scores also to tensorboard[:FOLDER] or wandb[:PROJECT].",
        ),
        click.option(
            "--only",
            multiple=True,
            metavar="KEY",
            help="Just this stage (see `plan --keys`), no report.",
        ),
        click.option(
            "--address", metavar="HOST:PORT", help="A Ray cluster. [default: one made here]"
        ),
        click.option(
            "--pool",
            "kind",
            type=click.Choice(["processes", "ray"]),
            default="processes",
            show_default=True,
            help="Where workers are: processes here, or actors on a Ray cluster.",
        ),
        click.option(
            "--cohort",
            type=click.IntRange(1),
            help="Trainings that share the passes over the backbone. [default: 1, or 16 on a GPU]",
        ),
        click.option(
            "--num-proc",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Threads a process that tokenize, and processes that prepare fetched data.",
        ),
        click.option(
            "--snapshot-every",
            type=click.FloatRange(0),
            default=20.0,
            show_default=True,
            help="Seconds between two snapshots of a stage.",
        ),
        click.option(
            "--no-preflight",
            is_flag=True,
            help="Start also what disk or memory may not be enough for.",
        ),
        click.option("--micro-batch", type=click.IntRange(1), help="Rows at once, to save memory."),
        click.option(
            "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Threads a process; results are exactly repeatable for a fixed number.",
        ),
        click.option(
            "--workers", type=click.IntRange(0), help="Processes. [default: one a core, or one GPU]"
        ),
    ):
        function = option(function)
    return function


def cell_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Recipe, a finished cell of it and where things are, for `open_cell`."""
    for option in (
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=_AS_GIVEN),
        click.option("--backbone", help=_AS_GIVEN),
        click.option("--data", help=_AS_GIVEN),
        click.option("--lock", help=_AS_GIVEN),
        click.option("--store", help="Folder of finished stages. [default: .adapterxlt]"),
        click.option("--seed", type=int, help="[default: the first]"),
        click.option("--draw", type=int, help="[default: the first]"),
        click.option("--shots", type=int, help="[default: the most]"),
        click.option("--regime", help="[default: the recipe's last]"),
        click.option("--task", help="[default: the recipe's first]"),
        click.option("--language", required=True, help="A target, or the source."),
    ):
        function = option(function)
    return function


_AS_GIVEN = "As given to `run`."


def open_cell(
    language: str,
    task: str | None,
    regime: str | None,
    shots: int | None,
    draw: int | None,
    seed: int | None,
    **given: Any,
) -> tuple[Any, Any]:
    """A study and the finished cell of it that was asked for; says which it is."""
    from adapterxlt.run.prediction import choose

    study = open_study(**given)
    cell, _ = choose(study, language, task=task, regime=regime, shots=shots, draw=draw, seed=seed)
    say(f"with {cell.label()}")
    return study, cell


def open_study(
    recipe: str,
    store: str | None,
    data: str | None,
    backbone: str | None,
    overrides: tuple[str, ...],
    lock: str | None = None,
    num_proc: int | None = None,
) -> Any:
    """A study; with ``num_proc``, what tells labels is fetched first where it has to be."""
    from adapterxlt.run.study import Study
    from adapterxlt.shipped import find

    return Study.open(
        find(recipe),
        store=store,
        data=data,
        backbone=backbone,
        overrides=overrides,
        lock=lock or default_lock(recipe),
        fetch=num_proc is not None,
        num_proc=num_proc or 1,
        listener=say,
    )


def default_lock(recipe: str) -> Path | None:
    """Where the lock file of a shipped recipe is: here; of others it is beside them."""
    return None if Path(recipe).is_file() else Path(f"{recipe.rpartition('/')[2]}.lock.json")


def say(line: str) -> None:
    """Talk goes to stderr; stdout carries results."""
    click.echo(visible(line, keep="\n"), err=True)
