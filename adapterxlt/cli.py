"""The command line: parses, calls one function, prints, maps errors to exit codes.

Results go to stdout, talk to stderr. Heavy imports stand inside the verbs, so that `--help` and the
reading verbs answer at once; no verb but `run` and `predict` imports torch, and those in workers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import click

from adapterxlt import __version__, cli_adapters, cli_results, cli_store
from adapterxlt.core.errors import AdapterXLTError, UsageError
from adapterxlt.core.showing import visible
from adapterxlt.options import (
    RECIPE,
    cell_options,
    open_cell,
    open_study,
    run_options,
    say,
    study_options,
)


class _Verbs(click.Group):
    """Shows verbs in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="adapterxlt")
def cli() -> None:
    """Few-shot and zero-shot cross-lingual transfer with adapters.

    RECIPE is a YAML file or the name of a shipped one (`adapterxlt ls recipes`).
    """


@cli.command()
@RECIPE
@click.argument("destination", required=False, type=click.Path(path_type=Path))
def new(recipe: str, destination: Path | None) -> None:
    """Copy a shipped recipe to start from."""
    from adapterxlt.shipped import find

    source = find(recipe)
    target = destination or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError("already exists", where=str(target), hint="give another name")
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    click.echo(target)


@cli.command()
@click.argument(
    "what",
    type=click.Choice(
        ["recipes", "tasks", "languages", "methods", "regimes", "claims", "adapters", "stages"]
    ),
)
@click.option("--store", help="Store whose stages are listed.")
@click.option("--backbone", help="Name of the backbone whose adapters are listed.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def ls(what: str, store: str | None, backbone: str | None, as_json: bool) -> None:
    """List what there is."""
    from adapterxlt import console, shipped

    console.show_rows(shipped.listing(what, store, backbone), as_json=as_json)


@cli.command()
@click.argument("name")
@click.option("--store", help="Store in which a stage is looked up.")
def show(name: str, store: str | None) -> None:
    """Show a regime, a task, a recipe, or a stage by the beginning of its key."""
    from adapterxlt import shipped

    click.echo(shipped.show(name, store), nl=False)


@cli.command()
@study_options
@click.option("--resolved", is_flag=True, help="Print the recipe with every default filled in.")
def validate(resolved: bool, **given: Any) -> None:
    """Check a recipe and the data it needs."""
    study = open_study(**given)
    study.check_backbone()
    study.check_fetched()
    if resolved:
        click.echo(visible(study.loaded.resolved_text(), keep="\n"), nl=False)
    plan = study.plan
    click.echo(f"valid: {len(plan.cells)} cells, {len(plan.stages)} stages", err=True)


@cli.command()
@study_options
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--all", "every", is_flag=True, help="List every stage, however many.")
@click.option("--keys", is_flag=True, help="Only WAVE KEY LABEL of each missing stage.")
def plan(as_json: bool, every: bool, keys: bool, **given: Any) -> None:
    """Show what would run, what is there already, why, and the cost.

    With --keys one line a missing stage, for `run --only`: those of a wave can run at once, when
    the waves before it are done.
    """
    from adapterxlt import console

    if keys and (as_json or every):
        raise UsageError("--keys stands alone", hint="without --json and --all")
    study = open_study(**given)
    if keys:
        console.show_keys(study)
    else:
        console.show_plan(study, as_json=as_json, every=every)


@cli.command()
@study_options
@run_options
def run(
    workers: int | None,
    threads: int,
    device: str,
    micro_batch: int | None,
    no_preflight: bool,
    snapshot_every: float,
    num_proc: int,
    cohort: int | None,
    kind: str,
    address: str | None,
    only: tuple[str, ...],
    track: tuple[str, ...],
    out: Path | None,
    **given: Any,
) -> None:
    """Run a recipe. Running again is resuming; a finished study ends at once."""
    from adapterxlt import console, watch
    from adapterxlt.run import preflight, tracking
    from adapterxlt.run.cohorts import cohort_size
    from adapterxlt.run.pools import cores
    from adapterxlt.run.scheduler import Several

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ended)
    # Of the processes of `accelerate launch`: which one it is, and how many there are.
    rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if address is not None and kind != "ray":
        raise UsageError("--address is of a Ray cluster", hint="give --pool ray")
    if kind == "ray" and (workers == 0 or ranks > 1):
        raise UsageError("stages of --pool ray do not run in this process")
    places = [tracking.place_of(text) for text in track]
    study = open_study(**given, num_proc=num_proc)
    needed = study.needed(only)
    most = 1 if device == "cuda" else max(1, cores() // threads)
    count = workers if workers is not None else most
    if ranks > 1:
        count, cohort = 0, 1
    if needed and not no_preflight and address is None:
        flight = preflight.look(
            study,
            needed,
            workers=min(count, len(needed)),
            device=device,
            micro_batch=micro_batch,
            cohort=cohort_size(cohort, device),
        )
        preflight.check(flight, study.recipe.name)
    study.fetch(num_proc=num_proc, only=only, listener=say)
    if address is None and count * threads > cores():
        say(f"{count} workers of {threads} threads share {cores()} cores: give fewer")
    with ExitStack() as stack:
        pool = None
        if kind == "ray" and needed:
            from adapterxlt.run.ray_pool import RayPool

            pool = RayPool(
                workers if address else count,
                threads=threads,
                device=device,
                memory=study.memory(only),
                address=address,
            )
            stack.callback(pool.close)
            count = pool.workers
        shown = stack.enter_context(watch.progress(study, count, needed, quiet=rank > 0))
        trackers = [tracking.Tracker(place, study, say) for place in places if needed and not rank]
        for tracker in trackers:
            stack.callback(tracker.close)
        outcome = study.run(
            workers=count,
            threads=threads,
            device=device,
            micro_batch=micro_batch,
            snapshot_every=snapshot_every,
            num_proc=num_proc,
            cohort=cohort,
            only=only,
            listener=Several([shown, *trackers]),
            pool=pool,
        )
    if rank == 0 and not only:
        _deliver(study, out, outcome)
    if outcome.failed:
        console.show_failures(study, outcome)
        sys.exit(outcome.exit_code)


@cli.command()
@study_options
@click.option("--num-proc", type=click.IntRange(1), default=1, show_default=True)
def fetch(num_proc: int, **given: Any) -> None:
    """Fetch what a recipe reads from hubs, so that it runs without a network."""
    study = open_study(**given, num_proc=num_proc)
    fetched = study.fetch(num_proc=num_proc, listener=say)
    counts = [(len(fetched), "split"), (study.brought, "adapter")]
    said = " and ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in counts if n)
    say(f"{said} fetched" if said else "nothing to fetch")


@cli.command()
@study_options
@click.option("--watch", is_flag=True, help="Every two seconds, until no run goes on or Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text; a line with --watch.")
def status(as_json: bool, watch: bool, **given: Any) -> None:
    """Show how far a study is and how long it will take, also while it runs elsewhere."""
    from adapterxlt.watch import show_status

    show_status(open_study(**given), as_json=as_json, watch=watch)


@cli.command()
@study_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder of results. [results/NAME]")
def report(out: Path | None, **given: Any) -> None:
    """Write the report, the rows and the recipe from what the store has."""
    _deliver(open_study(**given), out)


for verb in cli_results.VERBS:
    cli.add_command(verb)


@cli.command()
@RECIPE
@click.argument("text", nargs=-1)
@cell_options
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def predict(text: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Label TEXT, or lines of stdin, through a finished cell.

    Words of a tagging task are separated by spaces, the columns of other tasks (two texts, context
    and question, premise and alternatives) by tabs.
    """
    from adapterxlt.run.prediction import predict_lines

    study, cell = open_cell(**given)
    key = study.plan.cells[cell]
    lines = list(text) or [line.rstrip("\n") for line in sys.stdin]
    # A file or a pipe gets what was predicted as it is.
    escaped = sys.stdout.isatty() and not as_json
    for line in predict_lines(study, key, lines, as_json=as_json):
        click.echo(visible(line, keep="\t") if escaped else line)


for verb in cli_adapters.VERBS:
    cli.add_command(verb)


for verb in cli_store.VERBS:
    cli.add_command(verb)


@cli.command()
@click.option("--store", help="[default: .adapterxlt]")
def doctor(store: str | None) -> None:
    """Show versions, cores, memory, the store and whether hubs may be asked."""
    from adapterxlt import console

    console.show_doctor(store)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of recipes."""
    import json

    from adapterxlt.core.loading import json_schema

    click.echo(json.dumps(json_schema(), indent=1, sort_keys=True))


def _deliver(study: Any, out: Path | None, outcome: Any = None) -> None:
    """Print the tables and write the folder of results."""
    from adapterxlt import console
    from adapterxlt.report import folder
    from adapterxlt.report.results import collect, missing

    rows = collect(study)
    regimes = [regime.name for regime in study.recipe.regime_list]
    console.show_tables(rows, missing=missing(study, outcome), regimes=regimes)
    written = folder.write(study, rows, out or Path("results") / study.recipe.name, outcome)
    click.echo(f"report: {written / 'report.html'}", err=True)


def _ended(number: int, frame: Any) -> None:
    """End the run in order; a second signal ends the process at once, and its workers with it."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _with_exit_codes(function: Callable[[], None]) -> Callable[[], None]:
    @wraps(function)
    def wrapped() -> None:
        try:
            function()
        except AdapterXLTError as error:
            click.echo(f"adapterxlt: {error}".replace("\n", "\nadapterxlt: "), err=True)
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("adapterxlt: interrupted; run the same command to go on", err=True)
            sys.exit(130)
        except SystemExit as error:
            if error.code == 128 + signal.SIGTERM:
                click.echo("adapterxlt: terminated; run the same command to go on", err=True)
            raise
        except BrokenPipeError:
            # The reader of stdout left (head, less): not an error of ours.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            sys.exit(0)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(visible(f"adapterxlt: {where}{error.strerror or error}"), err=True)
            sys.exit(2)
        except click.ClickException as error:
            error.show()
            sys.exit(2)

    return wrapped


@_with_exit_codes
def main() -> None:
    """Entry point of the console script."""
    cli(standalone_mode=False, prog_name="adapterxlt")
