"""Verbs about adapters from and to elsewhere: parse, call one function, print; as `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adapterxlt.core.showing import json_text
from adapterxlt.options import RECIPE, cell_options, default_lock, open_cell, say, study_options


@click.command()
@study_options
def lock(
    recipe: str,
    store: str | None,
    lock: str | None,
    data: str | None,
    backbone: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Write down what a recipe's adapters on hubs are now, and fetch them.

    Branches become commits and files their digests, in RECIPE.lock.json; `run` reads that file and
    never asks what a branch is.
    """
    from adapterxlt import console
    from adapterxlt.run.study import lock_study
    from adapterxlt.shipped import find

    path = lock or default_lock(recipe)
    written = lock_study(
        find(recipe), store=store, backbone=backbone, overrides=overrides, lock=path, listener=say
    )
    rows = [
        {
            "adapter": name,
            "commit": (one.commit or "")[:7],
            "method": one.adapter["method"],
            "format": one.format,
            "pickle": "yes" if one.pickles else "",
            "bytes": sum(file.size for file in one.files.values()),
        }
        for name, one in sorted(written.entries.items())
    ]
    console.show_rows(rows, as_json=False)
    say(f"{len(rows)} adapters locked in {written.path}")


@click.command()
@click.argument("reference")
@click.option("--backbone", required=True, help="Backbone folder, or lab.")
@click.option("--store", help="Folder of finished stages. [default: .adapterxlt]")
@click.option("--task", help="A task adapter, with its head for this task.")
@click.option("--labels", help="Labels of the head in its order, separated by commas.")
@click.option("--base", help="What the adapter calls this backbone.")
@click.option("--allow-pickle", is_flag=True, help="Open weights that are a pickle, once.")
def adopt(reference: str, backbone: str, labels: str | None, **given: Any) -> None:
    """Check an adapter and take it over into the store, without a recipe.

    REFERENCE is hub:organization/name@revision, peft:organization/name@revision or a folder that
    begins with ./ or /. Prints what it is; a refusal has exit code 5 and says which check failed.
    """
    from adapterxlt.run.adopting import adopt_one

    found = adopt_one(
        reference,
        backbone,
        labels=tuple(labels.split(",")) if labels else None,
        base_folder=Path.cwd(),
        listener=say,
        **given,
    )
    click.echo(json_text(found, indent=1, sort_keys=True))


@click.command()
@RECIPE
@click.argument("folder", metavar="DEST", type=click.Path(path_type=Path))
@cell_options
@click.option(
    "--part",
    type=click.Choice(["composition", "language", "task"]),
    default="composition",
    show_default=True,
    help="All that the cell wears, or its language or task adapter.",
)
def export(folder: Path, part: Any, **given: Any) -> None:
    """Write a finished cell to the new folder DEST, which plain `adapters` or `peft` loads.

    With weights as safetensors, a model card, and `load.py`, which shows how it is loaded. Prints
    the folder.
    """
    from adapterxlt.report.handing import hand_over

    study, cell = open_cell(**given)
    click.echo(hand_over(study, cell, part, folder))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("target", metavar="ORGANIZATION/NAME")
@click.option("--yes", is_flag=True, help="Upload; without it, what would be is shown.")
@click.option("--private", is_flag=True, help="Make the repository a private one.")
@click.option("--message", default="", help="What the commit says of itself.")
def push(folder: Path, target: str, yes: bool, private: bool, message: str) -> None:
    """Upload a folder that `export` wrote to a hub, as one commit.

    Without --yes nothing is sent. With it the repository is made if there is none, and the commit
    is printed; what is there as it is in the folder is not sent again. HF_TOKEN is needed.
    """
    from adapterxlt import console
    from adapterxlt.run.hub import pushing

    files = pushing.check_folder(folder)
    if yes:
        done = pushing.push(files, target, private=private, message=message, tell=say)
        if not done.new:
            say("nothing has changed, so there is no new commit")
        click.echo(done.url)
        return
    there = pushing.look(files, target, private=private, tell=say)
    rows = [{"file": f.name, "bytes": f.size, "change": there and there.change(f)} for f in files]
    console.show_rows(rows, as_json=False)
    say(f"to {target} at {pushing.endpoint()}: {_state(there, private)}")
    if there is not None and there.more:
        say(f"{there.more} more there would stay as they are")
    say("nothing was sent; --yes uploads it")


def _state(there: Any, private: bool) -> str:
    """What a push would meet, in words."""
    if there is None:
        return "not looked up, for HF_HUB_OFFLINE is set"
    if there.commit is None:
        kind = "private" if private else "public"
        return f"there is none that the token may see; it would be made, {kind}"
    return f"{'private' if there.private else 'public'}, at commit {there.commit[:7]}"


VERBS = (lock, adopt, export, push)
