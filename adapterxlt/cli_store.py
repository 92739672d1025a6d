"""Verbs about the store: checking, collecting and moving it; parse, call one function, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from adapterxlt.core.errors import UsageError
from adapterxlt.options import open_study, say

STORE = click.option("--store", help="Folder of finished stages. [default: .adapterxlt]")
RECIPES = click.argument("recipes", nargs=-1, metavar="[RECIPE]... [KEY=VALUE]...")


@click.command()
@STORE
@click.option("--mend", is_flag=True, help="Put damaged files aside, to be made again by `run`.")
def fsck(store: str | None, mend: bool) -> None:
    """Check every file of a store against its digest."""
    from adapterxlt.store import formats
    from adapterxlt.store.maintenance import fsck as check
    from adapterxlt.store.store import Store

    root = _root(store)
    if mend and formats.mend(root):
        click.echo(f"{root / formats.MARKER}: did not say the format of the store")
    health = check(Store(root), mend=mend)
    for finding in health.findings:
        click.echo(finding)
    click.echo(
        f"{health.records} records and {health.objects} objects read; damaged: "
        f"{len(health.findings)}" + (", put aside" if mend and health.findings else ""),
        err=True,
    )
    if health.findings and not mend:
        sys.exit(3)


def _given(function: Any) -> Any:
    """Recipes whose studies are meant, and where they are."""
    for option in (
        click.option("--backbone", help=_AS_GIVEN),
        click.option("--data", help=_AS_GIVEN),
        click.option("--lock", help=_AS_GIVEN),
        STORE,
    ):
        function = option(function)
    return RECIPES(function)


_AS_GIVEN = "As given to `run`."


@click.command()
@_given
@click.option("--dry-run", is_flag=True, help="Show what would go; remove nothing.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    help="Hours; what was used or written later stays.",
)
def gc(
    recipes: tuple[str, ...], store: str | None, dry_run: bool, grace: float, **given: Any
) -> None:
    """Remove what no study needs, also while others run.

    Without RECIPE the stages of every study stay that was ever run against the store; with one or
    more, theirs alone, and those of studies that run.
    """
    from adapterxlt import console
    from adapterxlt.run.keeping import roots_of
    from adapterxlt.store.collecting import collect
    from adapterxlt.store.store import Store

    root = _root(store)
    roots = roots_of(_opened(recipes, root, given)) if recipes else None
    items = collect(Store(root), roots, grace=grace, dry=dry_run)
    kinds = list(dict.fromkeys(item.kind for item in items))
    rows = [
        {
            "what": kind,
            "count": sum(item.kind == kind for item in items),
            "bytes": sum(item.size for item in items if item.kind == kind),
        }
        for kind in kinds
    ]
    console.show_rows(rows, as_json=False)
    total, word = sum(item.size for item in items), "would go" if dry_run else "went"
    say(f"{len(items):,} files and folders of {total:,} bytes {word}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_given
def bundle(file: Path, recipes: tuple[str, ...], store: str | None, **given: Any) -> None:
    """Write what is finished of studies to the new FILE, for `unbundle` at another store.

    Without RECIPE of every study that was run against the store. Data and a backbone's folder are
    not in it: they are named by their digests.
    """
    from adapterxlt.run.keeping import note_name, noted_roots, roots_of
    from adapterxlt.store import bundles
    from adapterxlt.store.store import Store

    root = _root(store)
    if recipes:
        studies = _opened(recipes, root, given)
        roots = roots_of(studies)
        names = [note_name(one.loaded.resolved_text(), one.plan.stages) for one in studies]
    else:
        roots, names = noted_roots(Store(root))
    count = bundles.write(Store(root), file, roots.keys, roots.reads, names)
    size = file.stat().st_size
    say(f"{count.records} stages with {count.objects} files, {size:,} bytes: {file}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE
def unbundle(file: Path, store: str | None) -> None:
    """Take over into the store what `bundle` wrote to FILE; what is there already stays.

    Every part is checked against its digest; a refusal has exit code 5. What results mean is
    up to who made them: take bundles from people you trust.
    """
    from adapterxlt.run.study import store_root
    from adapterxlt.store import bundles
    from adapterxlt.store.store import Store

    count = bundles.read(Store(store_root(store)), file)
    say(
        f"{count.new_records} of {count.records} stages and {count.new_objects} of "
        f"{count.objects} files were new"
    )


def _opened(words: tuple[str, ...], root: Path, given: dict[str, Any]) -> list[Any]:
    """The studies of recipes, with the overrides among them, which are for all of them."""
    recipes = [word for word in words if "=" not in word or Path(word).is_file()]
    overrides = tuple(word for word in words if word not in recipes)
    if not recipes:
        raise UsageError("overrides of no recipe", hint="name the recipe that was run with them")
    return [open_study(recipe, str(root), overrides=overrides, **given) for recipe in recipes]


def _root(store: str | None) -> Path:
    """The folder of a store that is there."""
    from adapterxlt.run.study import store_root

    root = store_root(store)
    if not root.is_dir():
        raise UsageError("no store", where=str(root), hint="see --store")
    return root


VERBS = (fsck, gc, bundle, unbundle)
