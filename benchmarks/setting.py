"""What the benchmarks of training and prediction share: data, backbones, and taking turns.

What is compared runs in processes of their own, so that memory is told apart, and does some steps
in turn with the others, so that all meet the same noise. Imports torch in those processes alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.data import Encoded
    from adapterxlt.compute.steps import Stream

    Tensors = dict[str, Any]

SHARED = Path(__file__).parents[2] / "shared"
THREADS = 2
#: Share of the cores that others may take of a step that counts, where enough steps are so quiet.
QUIET = 0.1
#: Seconds that all waiting for quiet may take.
PATIENCE = 300.0
BUDGET = {"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "clip": 1.0}


def arguments(about: str | None, only: Sequence[str] = ()) -> argparse.Namespace:
    """The command line that all of them have; says what is missing and ends."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="as adapterxlt's --data")
    parser.add_argument("--backbone", type=Path, default=SHARED / "models" / "mini")
    if only:
        parser.add_argument("--only", choices=only, nargs="+", help="parts; others are kept")
    parser.add_argument("--quick", action="store_true", help="few steps: does it run at all")
    given = parser.parse_args()
    for name in ("data", "backbone"):
        if not getattr(given, name).is_dir():
            sys.exit(f"no folder {getattr(given, name)}; give one with --{name}")
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    return given


def rows_of(data: Path, task: str, language: str, split: str, first: int) -> list[dict[str, Any]]:
    """The first rows of a split."""
    with gzip.open(data / task / language / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(first), file, strict=False)]


def base(mini: Path, dropout: float = 0.0) -> Path:
    """A random backbone of XLM-R base's shape, made once on this machine (1.1 GB)."""
    from shapes import with_changes, xlmr_base

    home = Path(tempfile.gettempdir()) / "adapterxlt-benchmarks"
    changes = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    plain = apart(xlmr_base, home / "xlmr-base", mini)
    return with_changes(plain, home / f"xlmr-base-dropout-{dropout}", **changes)


def blocks_of(tokenizer: Any, lines: Sequence[str], length: int) -> Encoded:
    """Running text as blocks that are full, as `run_mlm.py` makes them."""
    from adapterxlt.compute.data import Encoded, Window

    texts = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
    flat = [piece for text in texts for piece in text]
    first, last, room = tokenizer.cls_token_id, tokenizer.sep_token_id, length - 2
    starts = range(0, len(flat) - room, room)
    return Encoded([(Window([first, *flat[i : i + room], last], [], [], []),) for i in starts])


class Taken(NamedTuple):
    """What a step took: seconds, processor seconds, and the share of the cores others took."""

    seconds: float
    processor: float
    others: float


class Clock:
    """What is taken since it was made."""

    def __init__(self) -> None:
        self.at, self.busy, self.own = time.perf_counter(), _busy(), time.process_time()

    def read(self) -> Taken:
        """The kernel counts what others take in hundredths of a second."""
        seconds, own = time.perf_counter() - self.at, time.process_time() - self.own
        others = _busy() - self.busy - own
        return Taken(seconds, own, max(0.0, others / seconds / (os.cpu_count() or 1)))


def _busy(*, polite: bool = True) -> float:
    """Processor seconds that everybody has used, or all but what has given way (`nice`)."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, *more = map(int, file.readline().split()[1:9])
    return (user + system + sum(more) + (nice if polite else 0)) / os.sysconf("SC_CLK_TCK")


_waited = 0.0


def wait_for_quiet() -> None:
    """Wait while others use the machine, as long as there is patience."""
    global _waited
    while _waited < PATIENCE:
        before = _busy(polite=False)
        time.sleep(0.3)
        if (_busy(polite=False) - before) / 0.3 / (os.cpu_count() or 1) < QUIET:
            return
        _waited += 0.3


def quiet(found: Sequence[Taken]) -> list[float]:
    """Seconds of the steps that others let alone, or of all where those are less than a third."""
    calm = [one.seconds for one in found if one.others < QUIET]
    return calm if len(calm) * 3 >= len(found) else [one.seconds for one in found]


def quiet_share(found: Sequence[Taken]) -> float:
    """Share of the steps that others let alone."""
    return sum(one.others < QUIET for one in found) / len(found)


def processor(found: Sequence[Taken]) -> float:
    """Median processor seconds, which others lengthen less than they do seconds."""
    return statistics.median(one.processor for one in found)


@dataclass
class Gate:
    """Where a training waits for its turn. Without a pipe it does not wait, and only measures.

    Attributes:
        steps: what each took.
        losses: whatever the training says of its steps.
    """

    pipe: Any = None
    steps: list[Taken] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    left: int = 0
    clock: Clock | None = None

    def begin(self) -> None:
        """A step begins."""
        if self.left == 0:
            self._wait()
        self.clock = Clock()

    def end(self) -> None:
        """A step has ended; returns when the training may go on."""
        assert self.clock is not None
        self.steps.append(self.clock.read())
        if self.pipe is None:
            return
        self.left -= 1
        if self.left == 0:
            self.pipe.send(self.steps)
            self.steps = []
            self._wait()

    def progress(self, step: int, steps: int, loss: float) -> None:
        """As `progress` of our training: a step has ended, and the next begins."""
        self.losses.append(loss)
        self.end()
        self.clock = Clock()

    def _wait(self) -> None:
        if self.pipe is not None:
            self.left = self.pipe.recv()


class Contestant:
    """A training in a process of its own, that has done its first step, which is not counted.

    Args:
        work: called with a `Gate` and ``args``; what it returns is sent here at the end.
    """

    def __init__(self, name: str, work: Callable[..., dict[str, Any]], *args: Any) -> None:
        context = get_context("spawn")
        self.name, self.found = name, list[Taken]()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_contend, args=(theirs, work, args), daemon=True)
        self.process.start()
        theirs.close()
        self.steps(1)
        self.found.clear()

    def steps(self, number: int) -> None:
        """Let it do some steps."""
        self.pipe.send(number)
        self.found += self._receive()

    @property
    def seconds(self) -> float:
        """Median of a step."""
        return statistics.median(quiet(self.found))

    def end(self) -> dict[str, Any]:
        """What it returned, with ``peak``, the most memory its process held in bytes."""
        self.pipe.send(0)
        result: dict[str, Any] = self._receive()
        self.process.join()
        return result

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            raise SystemExit(f"{self.name} ended with {self.process.exitcode}") from None


def _contend(pipe: Any, work: Callable[..., dict[str, Any]], args: Sequence[Any]) -> None:
    ready()
    gate = Gate(pipe)
    result = work(gate, *args)
    pipe.send({"losses": gate.losses, "peak": held("VmHWM"), **result})


def alternate(contestants: Sequence[Contestant], steps: int, at_once: int) -> None:
    """Let all do so many steps more, a few at a time in turn."""
    done = 0
    while done < steps:
        number = min(at_once, steps - done)
        for one in contestants:
            wait_for_quiet()
            one.steps(number)
        done += number
        print(f"{done} of {steps} steps", file=sys.stderr, flush=True)


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """What a function returns that is called in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_apart, args=(theirs, work, args), daemon=True)
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _apart(pipe: Any, work: Callable[..., Any], args: Sequence[Any]) -> None:
    ready()
    pipe.send(work(*args))


def ready() -> None:
    """As many threads as all have, and no advice of the libraries."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    transformers.logging.set_verbosity_error()
    logging.getLogger("adapters").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def held(what: str, of: str = "/proc/self/status") -> int:
    """Bytes that a line of the process's status says: ``VmHWM`` the most held, ``VmRSS`` now."""
    lines = Path(of).read_text().splitlines()
    line = next((line for line in lines if line.startswith(f"{what}:")), f"{what}: 0")
    return int(line.split()[1]) * 1024


def our_backbone(folder: Path, device: str = "cpu") -> Backbone:
    """A backbone in a process that works as a worker of ours does."""
    import torch

    from adapterxlt.compute.backbone import Backbone

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    return Backbone(folder, device)


def our_stream(
    backbone: Backbone,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    batch: int,
    seed: int = 1,
    *,
    stack: tuple[str, ...] = ("a",),
    head: Tensors | None = None,
) -> Stream:
    """Rows of a task for a head ``h``, which is added here; ``stack`` is worn."""
    from adapterxlt.compute.data import Order
    from adapterxlt.compute.encoding import encode
    from adapterxlt.compute.training import Stream
    from adapterxlt.core.tasks import TASKS

    backbone.add_head("h", head_of(task), seed=seed, weights=head)
    data = encode(backbone.tokenizer, TASKS[task], rows, 128)
    order = Order(len(data.rows), batch, seed, task)
    logits = partial(backbone.head_logits, "h")
    return Stream(task, data, order, (stack,), logits)


def head_of(task: str) -> dict[str, Any]:
    """A task's head, as `Backbone.add_head` wants it."""
    from adapterxlt.core.tasks import TASKS

    return {"kind": TASKS[task].kind, "labels": list(TASKS[task].labels)}


def gradient(
    backbone: Backbone,
    stream: Stream,
    names: Sequence[str],
    precision: str,
    micro_batch: int | None = None,
) -> tuple[float, Tensors]:
    """Mean loss and gradient of the first batch of a stream, as the training loop makes them.

    Args:
        names: of what is looked at, which wants gradients.
    """
    from adapterxlt.compute.steps import amp

    backbone.model.train()
    backbone.compute_in(precision)
    backbone.activate(stream.stacks[0])
    parameters = backbone.trainable(names)
    turn, total = stream.turn(0, 1), 0.0
    size = micro_batch or len(turn.rows)
    for start in range(0, len(turn.rows), size):
        rows = turn.rows[start : start + size]
        with amp(precision, backbone.device):
            batch = backbone.batch([window for row in rows for window in row])
            logits = stream.logits(backbone.scored(batch)).float()
            loss = stream.criterion.loss(logits, batch.labels, rows) / turn.scored
        loss.backward()
        total += float(loss.detach())
    found = {n.partition(":")[2]: p.grad.clone() for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return total, found


def apartness(one: Tensors, other: Tensors) -> float:
    """Length of the difference of two gradients, relative to the second one's length."""
    assert one.keys() == other.keys()
    square = sum(float((one[n].double() - other[n].double()).pow(2).sum()) for n in one)
    return float((square / sum(float(g.double().pow(2).sum()) for g in other.values())) ** 0.5)


def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print some columns of rows, each with its format; what a row lacks is a dash."""
    lines = [list(columns)]
    for row in rows:
        values = ((row.get(name), form) for name, form in columns.items())
        lines.append([format(value, form) if value is not None else "–" for value, form in values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        first, *others = zip(line, widths, strict=True)
        cells = [f"{first[0]:{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
        print("  ".join(cells), flush=True)
