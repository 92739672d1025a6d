"""How long does a few-shot study take, beside two loops written with `adapters` and its trainer?

The study: six regimes, six targets, three numbers of shots, three draws, two seeds, on
part-of-speech tags, with MAD-X language adapters. Ours is `adapterxlt run` from its start to its
end, with its own number of workers: imports, planning and the report count. The loops, in one
process with torch's own number of threads, are

- *alone*: each run trains all that it needs, language adapters and source training among it;
- *by hand*: language adapters and source trainings are made once, saved, and loaded by each run,
  which trains what is left.

A run is a regime on a target with its shots, draw and seed; of `joint-multilingual`, whose adapter
serves all targets, one run is for all of them. Both loops take our plan's steps, batch sizes,
rates, schedules and shots, and predict the same test rows, in batches of eight; they read and
tokenize what a run reads once a run. Counted is all that one waits for but imports. They do a
little less than ours: longer rows are cut where ours are split, and the source is not scored.

A sample of the loops' runs is timed, as many of each regime, spread over the numbers of shots, and
added up: the mean of a regime's runs times their number, with its standard error. What is made
once by hand is timed whole. A run *alone* takes what the same run takes by hand, and what each
thing that it needs took to be made; with ``--alone`` such runs are timed by themselves.

Overhead is ``workers x wall - (training + evaluation)``, as a share of ``workers x wall``: training
is the seconds of all training loops (`training_seconds` of the records), evaluation those of bare
forward passes over the same batches with the lower layers' states at hand, in as many processes at
once. Start, imports, planning, waiting, reading, encoding, loading, scoring, writing and the report
are all overhead.

Where the machine is shared: beside times stand the share of the cores that others took, and the
same comparison in processor seconds, which suffers less from them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import keep
from setting import SHARED, table

from adapterxlt.core.plan import Plan, Stage
from adapterxlt.corpora.reading import selection
from adapterxlt.run.study import Study

# Without warm-up the rates of both are the same: the library's first step of one has the rate 0.
RECIPE: dict[str, Any] = {
    "name": "bench-study",
    "source": "en",
    "targets": ["fi", "zh", "uk", "id", "mr", "mt"],
    "tasks": ["udpos"],
    "regimes": [
        "zero-shot", "target-only", "sequential", "joint", "joint-multilingual", "multi-stage",
    ],
    "shots": [10, 50, 100],
    "draws": [1, 2, 3],
    "seeds": [1, 2],
    "language_adapters": {
        "adapter": {"method": "seq_bn_inv", "reduction_factor": 2},
        "texts": ["ntrex", "bible"],
        "budget": {"steps": 12, "batch": 32, "lr": 1e-3},
    },
    "task_adapter": {"method": "seq_bn", "reduction_factor": 2},
    "budget": {"steps": 40, "batch": 32, "lr": 4e-3, "warmup": 0.0},
    "budgets": {
        "shots": {"steps": 8},
        "joint": {"steps": 8},
        "multilingual": {"steps": 8},
        "bilingual": {"steps": 8},
    },
    "limits": {"train": 2000, "text": 2000, "test": 150},
}  # fmt: skip
QUICK: dict[str, Any] = {
    "name": "bench-study-quick",
    "targets": ["fi", "mt"],
    "shots": [10],
    "draws": [1],
    "seeds": [1],
    "language_adapters": {
        **RECIPE["language_adapters"],
        "budget": {"steps": 6, "batch": 32, "lr": 1e-3},
    },
    "budget": {"steps": 12, "batch": 32, "lr": 4e-3, "warmup": 0.0},
    "budgets": {name: {"steps": 4} for name in RECIPE["budgets"]},
    "limits": {"train": 400, "text": 400, "test": 50},
}
#: Of the sample.
SEED = 1
TARGETS = {"alone": 15.0, "by hand": 2.0, "overhead": 0.05}
METRICS = ("accuracy", "pos_f1")


@dataclass(frozen=True)
class Run:
    """One run of a loop: what is trained, by keys of our plan, last the one that is evaluated.

    Attributes:
        phases: keys of train stages, first the one that comes first.
        cells: target and key of each evaluation.
    """

    regime: str
    shots: int
    draw: int | None
    seed: int
    phases: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        targets = "+".join(target for target, _ in self.cells)
        return f"{self.regime} {targets}, {self.shots} shots, draw {self.draw}, seed {self.seed}"


def runs_of(plan: Plan) -> list[Run]:
    """All runs of a plan, in its order."""
    found: dict[tuple[Any, ...], list[tuple[str, str]]] = defaultdict(list)
    for cell, key in plan.cells.items():
        if cell.role == "target":
            own = "" if cell.regime == "joint-multilingual" else cell.target
            found[cell.regime, own, cell.shots, cell.draw, cell.seed].append((cell.target, key))
    return [
        Run(regime, shots, draw, seed, _phases(plan, cells[0][1]), tuple(cells))
        for (regime, _, shots, draw, seed), cells in found.items()
    ]


def _phases(plan: Plan, key: str) -> tuple[str, ...]:
    found, at = [], plan.stages[key].inputs.get("trained")
    while at is not None:
        found.insert(0, at)
        at = plan.stages[at].inputs.get("previous")
    return tuple(found)


def worn(stage: Stage) -> dict[str, str]:
    """The keys of the language adapters that a stage wears, by language."""
    roles = ((role.partition(":"), key) for role, key in stage.inputs.items())
    return {language: key for (role, _, language), key in roles if role == "language"}


def is_source(plan: Plan, key: str) -> bool:
    """Whether a train stage sees the source alone."""
    return [s["language"] for s in plan.stages[key].params["streams"]] == [RECIPE["source"]]


def sample(runs: Sequence[Run], number: int) -> list[Run]:
    """As many runs of each regime, spread over its numbers of shots, drawn by `SEED`."""
    by_regime: dict[str, list[Run]] = defaultdict(list)
    for run in random.Random(SEED).sample(runs, len(runs)):
        by_regime[run.regime].append(run)
    each = -(-number // len(by_regime))
    chosen: list[Run] = []
    for some in by_regime.values():
        turns: dict[int, int] = defaultdict(int)
        placed = []
        for run in some:
            turns[run.shots] += 1
            placed.append((turns[run.shots], run))
        chosen += [run for _, run in sorted(placed, key=lambda one: one[0])][:each]
    return random.Random(SEED).sample(chosen, len(chosen))


class Watch:
    """Wall time of something, and what else the machine did meanwhile."""

    def __init__(self) -> None:
        self.at, self.busy = time.perf_counter(), _busy()

    def end(self, cpu: float) -> dict[str, float]:
        """``seconds``, ``cpu_seconds`` as given, and the share of the cores that others took."""
        seconds = time.perf_counter() - self.at
        others = max(0.0, _busy() - self.busy - cpu) / seconds / (os.cpu_count() or 1)
        return {"seconds": seconds, "cpu_seconds": cpu, "others": others}


def _busy() -> float:
    """Seconds that all cores were not idle, since the machine was started."""
    try:
        numbers = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, *more = map(int, numbers)
    return (user + nice + system + sum(more[:3])) / os.sysconf("SC_CLK_TCK")


# --- ours ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    data: Path
    backbone: Path
    work: Path
    recipe: Mapping[str, Any]

    @property
    def file(self) -> Path:
        return self.work / "recipe.yaml"

    def study(self) -> Study:
        options = {"data": str(self.data), "backbone": str(self.backbone)}
        return Study.open(self.file, store=self.work / "store", **options)


def run_ours(place: Place) -> dict[str, float]:
    """`adapterxlt run` on an empty store."""
    place.file.write_text(json.dumps(place.recipe), encoding="utf-8")
    options = ["--data", place.data, "--backbone", place.backbone, "--store", place.work / "store"]
    main = "import sys; from adapterxlt.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "run", place.file, *options]
    watch, before = Watch(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (place.work / "run.log").open("w") as log:
        subprocess.run(command, cwd=place.work, stdout=log, stderr=log, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return watch.end(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def overhead(study: Study, wall: float, workers: int) -> dict[str, Any]:
    """Where ``workers x wall`` seconds went, and the share that was no training or evaluation."""
    facts = {key: study.store.read(key) for key in study.plan.stages}
    seconds: dict[str, float] = defaultdict(float)
    stages: dict[str, int] = defaultdict(int)
    bare = bare_evaluations(study, workers)
    for key, record in facts.items():
        assert record is not None, "a stage that was not run"
        stage, whole = study.plan.stages[key], float(record.facts["seconds"])
        stages[stage.kind] += 1
        if stage.kind == "train":
            seconds["training"] += record.facts["training_seconds"]
            seconds["train stages' rest"] += whole - record.facts["training_seconds"]
        else:
            passes = bare[stage.params["data"]["language"]]
            seconds["evaluation"] += passes
            seconds["evaluate stages' rest"] += whole - passes
    seconds["between stages"] = workers * wall - sum(seconds.values())
    own = seconds["training"] + seconds["evaluation"]
    share = 1 - own / (workers * wall)
    return {"workers": workers, "stages": dict(stages), "seconds": dict(seconds), "share": share}


def bare_evaluations(study: Study, workers: int) -> dict[str, float]:
    """Seconds of the forward passes of an evaluation, by language; as many processes at once."""
    keys: dict[str, str] = {}
    for key, stage in study.plan.stages.items():
        if stage.kind == "evaluate":
            keys.setdefault(stage.params["data"]["language"], key)
    stages = {language: study.plan.stages[key] for language, key in keys.items()}
    with get_context("spawn").Pool(workers) as pool:
        found = pool.starmap(_bare, [(study.places, stages)] * workers, chunksize=1)
    return {name: statistics.mean(one[name] for one in found) for name in stages}


def _bare(places: Any, stages: Mapping[str, Stage], times: int = 7) -> dict[str, float]:
    import torch

    from adapterxlt.run.desk import desk_for

    desk, found = desk_for(places), {}
    for language, stage in stages.items():
        model, _, _ = desk.compose(stage)
        batches: list[Any] = []

        def look(batch: Any, model: Any = model, batches: list[Any] = batches) -> Any:
            batches.append(batch)
            return model.outputs(batch)

        for _ in model.each(desk.encoded(model.backbone, stage, stage.params["data"]), look):
            pass
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            with torch.inference_mode():
                for batch in batches:
                    model.outputs(batch)
            taken.append(time.perf_counter() - start)
        found[language] = statistics.median(taken)
        desk.reset()
    return found


# --- the peer's ---------------------------------------------------------------------------------


@dataclass
class Timed:
    """Seconds of parts of a run, by name."""

    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, name: str) -> _Part:
        return _Part(self, name)


@dataclass
class _Part:
    timed: Timed
    name: str
    at: float = 0.0

    def __enter__(self) -> None:
        self.at = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.timed.parts[self.name] += time.perf_counter() - self.at


class Peer:
    """What a user of `adapters` writes for a study.

    Args:
        kept: where what is made once lies.
    """

    def __init__(self, place: Place, plan: Plan, labels: Sequence[str], kept: Path) -> None:
        self.place, self.plan, self.labels, self.kept = place, plan, labels, kept

    def rows(self, part: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a stream or of an evaluation."""
        names, at = part.get("texts") or [part["split"]], Path(part["task"], part["language"])
        if part["task"] == "text":
            at = Path("mono", part["language"])
        rows = []
        for path in (self.place.data / at / f"{name}.jsonl.gz" for name in names):
            if path.exists():
                with gzip.open(path, "rt", encoding="utf-8") as file:
                    rows += [json.loads(line) for line in file]
        return [rows[i] for i in selection(len(rows), part)]

    def language(self, key: str, folder: Path, timed: Timed) -> None:
        """Train and save a language adapter, as `run_mlm.py` does line by line."""
        import peers
        import torch
        from transformers import AutoTokenizer, DataCollatorForLanguageModeling

        params = self.plan.stages[key].params
        torch.manual_seed(params["seed"])
        with timed("load"):
            model = peers.language_model(self.place.backbone)
            tokenizer = AutoTokenizer.from_pretrained(self.place.backbone)
        with timed("read"):
            rows = encode_lines(
                tokenizer, [row["text"] for row in self.rows(params["streams"][0])], params
            )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=params["mask"])
        with timed("language adapters"):
            args = peers.arguments(params["budget"], params["seed"])
            peers.fit(model, args, rows, collator)
        with timed("load"):
            model.save_adapter(str(folder / key), peers.NAME, with_head=False)

    def source(self, key: str, timed: Timed) -> None:
        """Train and save a task adapter on the source, with the language adapter that is kept."""
        import peers

        model, tokenizer = self.model([key], self.kept, timed)
        self.train(model, tokenizer, key, timed)
        model.save_adapter(str(self.kept / key), peers.NAME)

    def model(
        self, keys: Iterable[str], folder: Path, timed: Timed, start: Path | None = None
    ) -> tuple[Any, Any]:
        """A model with the language adapters of stages, and a task adapter to train.

        Args:
            start: where the task adapter and its head lie; new ones without.
        """
        import peers
        from transformers import AutoTokenizer

        stages = [self.plan.stages[key] for key in keys]
        languages = {name: at for stage in stages for name, at in worn(stage).items()}
        spec = next(stage.params["adapter"] for stage in stages if stage.kind == "train")
        with timed("load"):
            tokenizer = AutoTokenizer.from_pretrained(self.place.backbone)
            if start is None:
                factor = spec["reduction_factor"]
                model = peers.task_model(self.place.backbone, self.labels, reduction_factor=factor)
            else:
                model = peers.AutoAdapterModel.from_pretrained(self.place.backbone)
                model.load_adapter(str(start), load_as=peers.NAME)
            for name, at in languages.items():
                model.load_adapter(str(folder / at), load_as=name, with_head=False)
            model.train_adapter(peers.NAME)
        return model, tokenizer

    def train(self, model: Any, tokenizer: Any, key: str, timed: Timed) -> None:
        """One phase with the trainer: its one language, or a batch of each language a step."""
        import peers
        import torch
        from adapters.composition import Stack

        params = self.plan.stages[key].params
        budget, streams = params["budget"], params["streams"]
        torch.manual_seed(params["seed"])
        with timed("read"):
            data = {
                stream["language"]: peers.encode(tokenizer, self.rows(stream), self.labels, "upos")
                for stream in streams
            }
        model.active_adapters = Stack(streams[0]["wear"], peers.NAME)
        kind = "multilingual" if len(streams) > 2 else "few-shot"
        kind = "source" if is_source(self.plan, key) else kind
        with timed(kind):
            args = peers.arguments(budget, params["seed"])
            collator = peers.DataCollatorForTokenClassification(tokenizer)
            if len(streams) == 1:
                peers.fit(model, args, data[streams[0]["language"]], collator)
            else:
                fit_together(model, args, data, collator)

    def run(self, run: Run, timed: Timed, *, by_hand: bool) -> dict[str, dict[str, float]]:
        """Do a run; scores by target and metric."""
        import peers
        from adapters.composition import Stack

        phases, start = list(run.phases), None
        keys = [*phases, *(key for _, key in run.cells)]
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.kept if by_hand else Path(scratch)
            if by_hand and is_source(self.plan, phases[0]):
                start = self.kept / phases.pop(0)
            if not by_hand:
                adapters = {at for key in keys for at in worn(self.plan.stages[key]).values()}
                for at in sorted(adapters):
                    self.language(at, folder, timed)
            model, tokenizer = self.model(keys, folder, timed, start)
            for key in phases:
                self.train(model, tokenizer, key, timed)
        scores = {}
        for target, key in run.cells:
            part = self.plan.stages[key].params["data"]
            with timed("read"):
                rows = self.rows(part)
                encoded = peers.encode(tokenizer, rows, self.labels, "upos")
            with timed("evaluate"):
                model.active_adapters = Stack(part["wear"], peers.NAME)
                said = peers.predict(model, tokenizer, encoded)
                scores[target] = score(rows, said, self.labels)
        return scores


def encode_lines(
    tokenizer: Any, lines: Sequence[str], params: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Lines as `run_mlm.py --line_by_line` encodes them."""
    batch = tokenizer(
        list(lines),
        truncation=True,
        max_length=params["max_length"],
        return_special_tokens_mask=True,
    )
    names = ("input_ids", "special_tokens_mask")
    return [{name: batch[name][i] for name in names} for i in range(len(lines))]


def fit_together(model: Any, args: Any, data: Mapping[str, Any], collator: Any) -> None:
    """Train on a batch of each language a step, each under its language's adapter; the loss is
    the mean of theirs. The first language's data are the trainer's own."""
    import peers
    import torch
    from adapters.composition import Stack
    from torch.utils.data import DataLoader

    first, *others = data
    size = args.per_device_train_batch_size

    def cycle(language: str) -> Iterator[Any]:
        loader = DataLoader(data[language], size, shuffle=True, collate_fn=collator)
        while True:
            yield from loader

    class Together(peers.AdapterTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
        ) -> torch.Tensor:
            batches = {first: inputs, **{name: next(more[name]) for name in others}}
            losses = []
            for language, batch in batches.items():
                model.active_adapters = Stack(language, peers.NAME)
                losses.append(model(**batch).loss)
            return torch.stack(losses).mean()

    more = {name: cycle(name) for name in others}
    Together(model=model, args=args, train_dataset=data[first], data_collator=collator).train()


def score(
    rows: Sequence[Mapping[str, Any]], said: Sequence[Sequence[int]], labels: Sequence[str]
) -> dict[str, float]:
    """Our metrics of the peer's predictions; words that were cut off have none."""
    from adapterxlt.compute import metrics

    gold = [list(row["upos"]) for row in rows]
    found = [[labels[n] for n in row] for row in said]
    found = [row + [""] * (len(g) - len(row)) for row, g in zip(found, gold, strict=True)]
    return {name: getattr(metrics, name)(gold, found) for name in METRICS}


Job = tuple[str, Any]


def loops(place: Place, plan: Plan, labels: Sequence[str], jobs: Sequence[Job], out: Path) -> None:
    """Do jobs one after the other in this process; a line of JSON for each that has ended.

    A job is a kind and what it is for: ``language`` or ``source`` and a key, or a loop and a run.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    # Of models that are called before adapters are active.
    logging.getLogger("adapters").setLevel(logging.ERROR)
    peer = Peer(place, plan, labels, place.work / "kept")
    peer.kept.mkdir(exist_ok=True)
    with redirect_stdout(StringIO()):  # the trainer prints a summary
        _warm_up(peer)
    for n, (kind, what) in enumerate(jobs):
        timed, scores = Timed(), None
        watch, cpu = Watch(), time.process_time()
        with redirect_stdout(StringIO()):
            if kind == "language":
                peer.language(what, peer.kept, timed)
            elif kind == "source":
                peer.source(what, timed)
            else:
                scores = peer.run(what, timed, by_hand=kind == "by hand")
        found = watch.end(time.process_time() - cpu)
        name = what.name if isinstance(what, Run) else plan.labels[what]
        line = {"kind": kind, "name": name, **found, "parts": timed.parts, "scores": scores}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{n + 1}/{len(jobs)} {kind}: {name}: {found['seconds']:.1f} s", flush=True)


def _warm_up(peer: Peer) -> None:
    """A step of everything, so that what is imported late counts as the other imports do."""
    import peers
    from adapters.composition import Stack

    from adapterxlt.compute import metrics  # noqa: F401

    budget = {"steps": 1, "batch": 2, "lr": 1e-4, "warmup": 0.0, "schedule": "constant"}
    args = peers.arguments({**budget, "weight_decay": 0.0, "clip": 1.0}, 1)
    tokenizer = peers.AutoTokenizer.from_pretrained(peer.place.backbone)
    lines = [{"input_ids": tokenizer("Good morning .")["input_ids"]}] * 2
    collator = peers.DataCollatorForLanguageModeling(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model = peers.language_model(peer.place.backbone)
        peers.fit(model, args, lines, collator)
        model.save_adapter(folder, peers.NAME, with_head=False)
        model = peers.task_model(peer.place.backbone, peer.labels, reduction_factor=2)
        names = ("en", "xx")
        for name in names:
            model.load_adapter(folder, load_as=name, with_head=False)
        model.train_adapter(peers.NAME)
        model.save_adapter(folder, peers.NAME)
        model.load_adapter(folder, load_as="task")
        model.train_adapter(peers.NAME)
    encoder = model.base_model.named_parameters()
    trained = [name for name, parameter in encoder if parameter.requires_grad]
    assert all(peers.NAME in name.split(".") for name in trained), trained
    model.active_adapters = Stack("en", peers.NAME)
    rows = [{"tokens": ["Good", "morning"], "upos": list(peer.labels[:2])}] * 2
    encoded = peers.encode(tokenizer, rows, peer.labels, "upos")
    collator = peers.DataCollatorForTokenClassification(tokenizer)
    peers.fit(model, args, encoded, collator)
    fit_together(model, args, dict.fromkeys(names, encoded), collator)
    peers.predict(model, tokenizer, encoded)


# --- the comparison -----------------------------------------------------------------------------


def check_rows(study: Study, peer: Peer) -> None:
    """That the loops read the rows that ours do."""
    for stage in study.plan.stages.values():
        for part in [*stage.params.get("streams", ()), stage.params.get("data")]:
            if part is None:
                continue
            mine = peer.rows(part)
            if part["task"] == "text":
                theirs = study.corpus.text(part["language"], tuple(part["texts"]))
                same = [row["text"] for row in mine]
            else:
                theirs = [
                    (row["tokens"], row["upos"])
                    for row in study.corpus.rows(part["task"], part["language"], part["split"])
                ]
                same = [(row["tokens"], row["upos"]) for row in mine]
            assert same == [theirs[i] for i in selection(len(theirs), part)], part


def added_up(
    runs: Sequence[Run], timed: Mapping[str, Mapping[str, Any]], what: str = "seconds"
) -> dict[str, Any]:
    """The seconds of a whole loop from those of a sample, with the standard error, by regime."""
    regimes: list[dict[str, Any]] = []
    variance: float | None = 0.0
    for regime in dict.fromkeys(run.regime for run in runs):
        mine = [run for run in runs if run.regime == regime]
        seconds = [timed[run.name][what] for run in mine if run.name in timed]
        mean, n = statistics.mean(seconds), len(seconds)
        if n < 2:  # of one nothing is known
            variance = None
        elif variance is not None:
            left = 1 - n / len(mine)
            variance += len(mine) ** 2 * statistics.variance(seconds) / n * left
        regimes.append(
            {"regime": regime, "runs": len(mine), "timed": n, "mean": mean,
             "total": mean * len(mine)}
        )  # fmt: skip
    total = sum(row["total"] for row in regimes)
    return {"regimes": regimes, "seconds": total, "error": variance and variance**0.5}


def equal(
    runs: Sequence[Run], study: Study, timed: Mapping[str, Mapping[str, Any]], metric: str
) -> list[dict[str, Any]]:
    """Mean scores of ours and of a loop on the runs that were timed, and their paired differences;
    a run's score is the mean over its targets."""
    rows = []
    regimes = dict.fromkeys(run.regime for run in runs)
    for regime in (*regimes, None):
        pairs = []
        for run in runs:
            if run.name in timed and regime in (run.regime, None):
                records = [study.store.read(key) for _, key in run.cells]
                mine = [record.facts["metrics"][metric]["score"] for record in records if record]
                theirs = [one[metric] for one in timed[run.name]["scores"].values()]
                pairs.append((statistics.mean(mine), statistics.mean(theirs)))
        differences = [a - b for a, b in pairs]
        error = statistics.stdev(differences) / len(pairs) ** 0.5 if len(pairs) > 1 else None
        rows.append(
            {
                "regime": regime or "all",
                "timed": len(pairs),
                "ours": statistics.mean(a for a, _ in pairs),
                "theirs": statistics.mean(b for _, b in pairs),
                "difference": statistics.mean(differences),
                "error": error,
            }
        )
    return rows


def measure(place: Place, number: int, *, alone: bool) -> dict[str, Any]:
    """Everything. What an earlier call has left in the folder of work is not measured again."""
    ours_file, lines_file = place.work / "ours.json", place.work / "loops.jsonl"
    if not ours_file.exists():
        found = {"load": os.getloadavg()[0], **run_ours(place)}
        study = place.study()
        found["overhead"] = overhead(study, found["seconds"], os.cpu_count() or 1)
        ours_file.write_text(json.dumps(found), encoding="utf-8")
    ours, study = json.loads(ours_file.read_text(encoding="utf-8")), place.study()
    print(f"ours: {ours['seconds']:.1f} s", flush=True)

    plan, labels = study.plan, list(study.corpus.task("udpos").labels)
    check_rows(study, Peer(place, plan, labels, place.work / "kept"))
    runs = runs_of(plan)
    once = {
        key: "language" if stage.params["objective"] == "mlm" else "source"
        for key, stage in plan.stages.items()
        if stage.kind == "train" and is_source_or_text(plan, key)
    }
    chosen = sample(runs, number)
    jobs: list[Job] = [(kind, key) for key, kind in once.items()]
    jobs += [(loop, run) for loop in ("by hand", "alone")[: 1 + alone] for run in chosen]
    done = {(line["kind"], line["name"]) for line in _lines(lines_file)}
    left = [
        (kind, what)
        for kind, what in jobs
        if (kind, what.name if isinstance(what, Run) else plan.labels[what]) not in done
    ]
    if left:
        arguments = (place, plan, labels, left, lines_file)
        process = get_context("spawn").Process(target=loops, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"the loops ended with {process.exitcode}")

    lines = _lines(lines_file)
    timed = {
        loop: {line["name"]: line for line in lines if line["kind"] == loop}
        for loop in ("alone", "by hand")
    }
    single = [line for line in lines if line["kind"] in ("language", "source")]
    if not alone:
        made = {line["name"]: line for line in single}
        for run in chosen:
            needed = [made[plan.labels[key]] for key in needs(plan, run) if key in once]
            timed["alone"][run.name] = together([timed["by hand"][run.name], *needed])
    made_once = sum(line["seconds"] for line in single)
    result: dict[str, Any] = {
        "recipe": dict(place.recipe), "sample_seed": SEED, "cells": len(plan.cells),
        "runs": len(runs), "ours": ours, "targets": TARGETS, "timed": lines,
    }  # fmt: skip
    for loop, of in timed.items():
        whole = added_up(runs, of)
        whole["once"] = made_once if loop == "by hand" else 0.0
        whole["seconds"] += whole["once"]
        whole["x"] = whole["seconds"] / ours["seconds"]
        whole["x_error"] = whole["error"] and whole["error"] / ours["seconds"]
        cpu = added_up(runs, of, "cpu_seconds")["seconds"]
        cpu += sum(line["cpu_seconds"] for line in single) if loop == "by hand" else 0.0
        whole["x_cpu"] = cpu / ours["cpu_seconds"]
        whole["others"] = statistics.mean(line["others"] for line in of.values())
        for row in whole["regimes"]:
            row["share"] = row["total"] / whole["seconds"]
        whole["parts"] = _parts(runs, of)
        # What a still more careful user saves: the multilingual phase is that of other runs.
        multi_stage = [run for run in runs if run.regime == "multi-stage"]
        spared = _parts(multi_stage, of).get("multilingual", 0.0)
        whole["multilingual_spared"] = (whole["seconds"] - spared) / ours["seconds"]
        whole["equal"] = {metric: equal(runs, study, of, metric) for metric in METRICS}
        result[loop] = whole
    return result


def needs(plan: Plan, run: Run) -> set[str]:
    """Keys of all that a run needs trained: language adapters, and its phases."""
    keys = [*run.phases, *(key for _, key in run.cells)]
    return {at for key in keys for at in worn(plan.stages[key]).values()} | set(run.phases)


def together(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A run that does what several lines were timed for; its scores are the first's."""
    parts: dict[str, float] = defaultdict(float)
    for line in lines:
        for name, seconds in line["parts"].items():
            parts[name] += seconds
    sums = {name: sum(line[name] for line in lines) for name in ("seconds", "cpu_seconds")}
    others = statistics.mean(line["others"] for line in lines)
    return {**lines[0], "kind": "alone", **sums, "others": others, "parts": dict(parts)}


def is_source_or_text(plan: Plan, key: str) -> bool:
    """Whether a train stage is one that is made once by hand."""
    return plan.stages[key].params["objective"] == "mlm" or is_source(plan, key)


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _parts(runs: Sequence[Run], timed: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a whole loop by what they were for."""
    found: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    sampled: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.regime] += 1
        sampled[run.regime] += run.name in timed
    for run in runs:
        for name, seconds in timed.get(run.name, {}).get("parts", {}).items():
            found[name] += seconds * counts[run.regime] / sampled[run.regime]
    return dict(found)


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    ours = result["ours"]
    print(
        f"\nours: {ours['seconds']:.0f} s, {ours['cpu_seconds']:.0f} s of processors; others took "
        f"{ours['others']:.0%} of the cores; {result['cells']} cells, {result['runs']} runs"
    )
    for loop in ("alone", "by hand"):
        found = result[loop]
        error = "unknown" if found["error"] is None else f"{found['error']:.0f}"
        rows = list(found["regimes"])
        if found["once"]:
            share = found["once"] / found["seconds"]
            rows.append({"regime": "made once", "total": found["once"], "share": share})
        timed = sum(row["timed"] for row in found["regimes"])
        every = {"total": found["seconds"], "share": 1.0}
        rows.append({"regime": "all", "runs": result["runs"], "timed": timed, **every})
        table(
            f"{loop}: a sample of the runs was timed and added up to {found['seconds']:.0f} "
            f"(standard error {error}) s, {found['x']:.1f} times ours; others took "
            f"{found['others']:.0%} of the cores",
            rows,
            {"regime": "", "runs": "d", "timed": "d", "mean": ".2f", "total": ".0f",
             "share": ".1%"},
        )  # fmt: skip
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in found["parts"].items())
        print(f"seconds of the runs: {parts}; {found['x_cpu']:.1f} times our processor seconds")
        if loop == "by hand":
            more = found["multilingual_spared"]
            print(f"multi-stage's multilingual phases re-used by hand, too: {more:.1f} times ours")
        for metric in METRICS:
            table(
                f"{metric} on the runs timed, ours and {loop}: paired differences",
                found["equal"][metric],
                {"regime": "", "timed": "d", "ours": ".4f", "theirs": ".4f",
                 "difference": "+.4f", "error": ".4f"},
            )  # fmt: skip
    of = ours["overhead"]
    whole = of["workers"] * ours["seconds"]
    rows = [{"seconds of": n, "seconds": s, "share": s / whole} for n, s in of["seconds"].items()]
    table(
        f"ours: overhead {of['share']:.1%} of {of['workers']} workers' {whole:.0f} s",
        rows,
        {"seconds of": "", "seconds": ".1f", "share": ".1%"},
    )
    reached = {loop: result[loop]["x"] for loop in ("alone", "by hand")}
    reached["overhead"] = of["share"]
    print()
    for name, wanted in TARGETS.items():
        print(f"{name}: {reached[name]:.2f}, wanted {wanted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="as adapterxlt's --data")
    parser.add_argument("--backbone", type=Path, default=SHARED / "models" / "mini")
    parser.add_argument("--sample", type=int, default=30, help="runs of each loop that are timed")
    parser.add_argument(
        "--alone", action="store_true", help="time that loop too, not what it is made of"
    )
    parser.add_argument("--quick", action="store_true", help="a small study: does it run at all")
    parser.add_argument(
        "--work", type=Path, help="folder to work in; with the same again, what is there is kept"
    )
    given = parser.parse_args()
    if given.sample < 30 and not given.quick:
        parser.error("--sample: at least 30")
    for name in ("data", "backbone"):
        if not getattr(given, name).is_dir():
            sys.exit(f"no folder {getattr(given, name)}; give one with --{name}")
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    recipe = {**RECIPE, **QUICK} if given.quick else RECIPE
    number = len(RECIPE["regimes"]) if given.quick else given.sample
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        place = Place(given.data.absolute(), given.backbone.absolute(), work, recipe)
        result = measure(place, number, alone=given.alone)
        show(result)
        if not given.quick:
            keep("study", result)


if __name__ == "__main__":
    main()
