"""A study while it runs: what `status` shows from another terminal, and the progress of `run`.

Presentation only; what is known is from `run.watching`, and so is the time left of both. Called by
`cli`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from adapterxlt.console import aligned, duration, put, show_json, si
from adapterxlt.core.forecast import COVERAGE, Forecast
from adapterxlt.core.showing import json_text, visible
from adapterxlt.run import watching
from adapterxlt.run.events import Event
from adapterxlt.run.scheduler import Silent
from adapterxlt.run.study import Study

#: Seconds between two looks of `status --watch`.
EVERY = 2.0
#: Of the time of `run`, about the share that is spent on how much is left.
SHARE = 0.05


def show_status(study: Study, *, as_json: bool, watch: bool = False) -> None:
    """How far a study is; with ``watch`` again and again until no run goes on, or Ctrl-C, as JSON
    then a line each time."""
    watcher = watching.Watcher(study)
    if not watch and as_json:
        show_json(asdict(watcher.look()))
    elif not watch:
        put(status_text(watcher.look()))
    elif sys.stdout.isatty() and not as_json:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False) as live:
            for sight in _looks(watcher):
                text = visible(status_text(sight), keep="\n")
                live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
    else:
        for place, sight in enumerate(_looks(watcher)):
            if as_json:
                click.echo(json_text(asdict(sight)))
            else:
                put(("\n" if place else "") + status_text(sight))
            sys.stdout.flush()


def _looks(watcher: watching.Watcher) -> Iterator[watching.Sight]:
    """What is seen every two seconds, at last that no run goes on."""
    try:
        while True:
            sight = watcher.look()
            yield sight
            if not sight.going:
                return
            time.sleep(EVERY)
    except KeyboardInterrupt:
        # This is how one stops looking; what is looked at goes on.
        return


def status_text(sight: watching.Sight) -> str:
    """Counts, runs with the time left, and what runs, has finished and has failed."""
    have, every = sight.cells
    lines = [f"cells     {have} of {every}"]
    lines += [f"{kind:9} {done} of {count}" for kind, (done, count) in sight.stages.items()]
    lines += [_run_line(run) for run in sight.runs]
    if sight.left is not None:
        known = {name: sight.left[name] for name in ("seconds", "low", "high", "samples")}
        lines.append(left_text(Forecast(**known), whole=True))
    if sight.running:
        lines += ["", running_text(sight.running)]
    if sight.finished:
        rows = [
            {
                "took": f"{row['seconds']:.1f} s"
                if row["seconds"] < 10
                else duration(row["seconds"]),
                "result": result_text(row),
                "finished": row["label"],
            }
            for row in sight.finished
        ]
        lines += ["", aligned(rows)]
    if sight.failed:
        lines.append("")
    lines += [f"failed: {row['label']} ({row['key']}): {row['reason']}" for row in sight.failed]
    return "\n".join(lines)


def _run_line(run: Mapping[str, Any]) -> str:
    """Who runs and how far that is, or how it ended."""
    now, since, last = time.time(), run["since"], run["last"]
    said = {
        "running": f"running for {duration(now - since)} with {run['workers'] or 1} at once",
        "ended": f"ended {duration(now - last)} ago",
        "interrupted": f"was interrupted {duration(now - last)} ago",
        "gone": "was killed, run again to go on",
        "silent": f"on {run['host']} has told nothing for {duration(now - last)}",
    }[run["state"]]
    counts = [f"{run['finished']} of {run['needed']} stages finished"]
    counts += [f"{run[what]} {what}" for what in ("failed", "blocked") if run[what]]
    return f"run {run['run']}  {said}: {', '.join(counts)}"


def running_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Running stages as a table."""
    return aligned(
        [
            {
                "step": f"{row['step']} of {row['steps']}" if row["step"] else None,
                "loss": f"{row['loss']:.3f}" if row["loss"] is not None else None,
                "tokens/s": si(row["tokens_per_second"]) if row["tokens_per_second"] else None,
                "for": duration(row["seconds"]) if row["seconds"] is not None else None,
                "note": f"{duration(row['age'])} ago" if row["age"] is not None else None,
                "running": row["label"] + (" (stopped)" if row["state"] == "stopped" else ""),
            }
            for row in rows
        ]
    )


def result_text(result: Mapping[str, Any]) -> str:
    """What `watching.result_of` says, in words."""
    if "score" in result:
        return f"{result['metric']} {100 * result['score']:.1f}"
    if "chosen" in result:
        return f"snapshot {result['chosen']} of {result['of']}"
    return f"loss {result['loss']:.3f}" if result.get("loss") is not None else ""


def left_text(known: Forecast | None, *, whole: bool = False) -> str:
    """``left about 12 min, 9 to 17``; ``whole`` says what the range is, or why there is none."""
    if known is None:
        return "time left not known"
    about = duration(known.seconds)
    if known.low is None or known.high is None:
        why = " (no range yet: too few stages have finished)" if whole else ""
        return f"left about {about}{why}"
    low, high = duration(known.low), duration(known.high)
    if low == about == high:
        return f"left about {about}"
    if low.split()[1] == about.split()[1] == high.split()[1]:
        low, high = low.split()[0], high.split()[0]
    what = f" ({10 * COVERAGE:.0f} times in 10 or more)" if whole else ""
    return f"left about {about}, {low} to {high}{what}"


@contextmanager
def progress(
    study: Study, workers: int, needed: Sequence[str], *, quiet: bool = False
) -> Iterator[Silent]:
    """A listener that shows stages done, steps, loss and time left, on a terminal or in a log."""
    if quiet:
        yield Silent()
        return
    if not needed:
        click.echo("nothing to run: every stage is in the store", err=True)
        yield Silent()
        return
    click.echo(
        f"{study.recipe.name}: {len(needed)} of {len(study.plan.stages)} stages to run, "
        f"{workers or 1} at once",
        err=True,
    )
    display = _Display(study, needed)
    if not sys.stderr.isatty():
        yield display
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        display.live = live
        yield display


class _Display(Silent):
    """Tells what it hears; in a log one line a stage, on a terminal a live block."""

    def __init__(self, study: Study, needed: Sequence[str]) -> None:
        self.study, self.needed = study, needed
        self.live: Any = None
        self.story = watching.Story()
        self.over: set[str] = set()
        self._known: Forecast | None = None
        self._at = self._next = 0.0

    def told(self, event: Event) -> None:
        self.story.take(event)
        if event["event"] == "retried":
            self._say(f"again: {self.study.plan.labels[event['key']]}: {event['reason']}")

    def finished(self, key: str, error: Exception | None) -> None:
        self.over.add(key)
        done = [run.finished[key][1] for run in self._runs if key in run.finished]
        text = result_text(watching.result_of(self.study, key))
        if error is not None:
            text = f"FAILED: {error}"
        seconds = f"{done[0]:.1f} s" if done else ""
        total = len(self.needed)
        line = "  ".join(
            [
                f"[{len(self.over):{len(str(total))}}/{total}] {self.study.plan.labels[key]}",
                *(part for part in (text, seconds) if part),
                left_text(self.left()),
            ]
        )
        self._say(line)

    def _say(self, line: str) -> None:
        if self.live is not None:
            self.live.console.print(visible(line), markup=False, highlight=False)
        else:
            click.echo(visible(line), err=True)

    @property
    def _runs(self) -> list[watching.RunState]:
        return list(self.story.runs.values())

    def left(self) -> Forecast | None:
        """The time left; of a large plan it is found anew now and then only."""
        begun = time.monotonic()
        if begun >= self._next:
            missing = [key for key in self.needed if key not in self.over]
            notes = watching.notes_of(self.study, watching.since_of(self._runs))
            self._known = watching.left(self.study, self._runs, missing, notes, time.time())
            self._at = time.monotonic()
            self._next = self._at + (self._at - begun) / SHARE
        return self._known and self._known.after(time.monotonic() - self._at)

    def tick(self, running: list[str]) -> None:
        if self.live is None:
            return
        from rich.text import Text

        text = f"{len(self.over)} of {len(self.needed)} stages done, {left_text(self.left())}"
        notes = watching.notes_of(self.study, running)
        since = watching.since_of(self._runs)
        rows = watching.running_rows(self.study, since, notes, time.time())
        text += "\n" + running_text(rows) if rows else ""
        shown = visible(text, keep="\n")
        self.live.update(Text(shown, no_wrap=True, overflow="ellipsis"))
