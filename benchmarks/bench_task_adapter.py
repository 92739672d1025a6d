"""How fast is a task adapter trained beside `adapters`' own trainer, and is it as good?

Part-of-speech tags of real English sentences, batches of 32, a bottleneck of half the hidden size:
512 sentences in four epochs on a small pretrained backbone, half as many on one of XLM-R base's
shape, two threads, all from the same weights. Ours also without adapters in the lower half of the
layers, whose states are then remembered: the first epoch, which computes them, and the others are
told apart; the trainer with the same adapter is beside it. Whether the numbers are the same is
asked of the first gradient of one batch, and of scores: six seeds on the small backbone, by one
judge.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import keep, kept, machine
from setting import (
    BUDGET,
    Contestant,
    Gate,
    Taken,
    alternate,
    apart,
    apartness,
    arguments,
    base,
    gradient,
    our_backbone,
    our_stream,
    quiet,
    quiet_share,
    rows_of,
    table,
)

BATCH, ROWS, EPOCHS, SCORE_STEPS, SCORED = 32, 512, 4, 150, 300
SEEDS = range(1, 7)
TASK = "udpos"
SPEC = {"method": "seq_bn", "reduction_factor": 2.0, "non_linearity": "relu"}
TARGETS = {"exact": 1.5, "bf16": 2.5, "lower half free": 4.0}


@dataclass(frozen=True)
class Variant:
    """A way to train. ``half``: no adapters in the lower half of the layers."""

    name: str
    peer: bool = False
    precision: str = "fp32"
    half: bool = False

    def leave_out(self, layers: int) -> list[int]:
        """The layers without adapters."""
        return list(range(layers // 2)) if self.half else []


PEER = Variant("AdapterTrainer fp32", peer=True)
EXACT, HALVED = Variant("ours fp32"), Variant("ours bf16", precision="bf16")
FASTEST = Variant("ours bf16, upper half", precision="bf16", half=True)
PEER_HALF = Variant("AdapterTrainer fp32, upper half", peer=True, half=True)
ALL = [
    PEER,
    Variant("AdapterTrainer bf16=True", peer=True, precision="bf16"),
    EXACT,
    HALVED,
    PEER_HALF,
    Variant("ours fp32, upper half", half=True),
    FASTEST,
]
#: What mixed precision makes of the trainer's own scores is not asked.
SCORED_VARIANTS = [v for v in ALL if not (v.peer and v.precision == "bf16")]


def prepare(folder: Path, variant: Variant, seed: int, out: Path) -> None:
    """Keep first weights of the adapter and its head."""
    import torch

    torch.save(_first(our_backbone(folder), variant, seed), out)


def _first(backbone: Any, variant: Variant, seed: int) -> dict[str, Any]:
    spec = {**SPEC, "leave_out": variant.leave_out(backbone.layers)}
    backbone.add_adapter("a", spec, seed=seed)
    our_stream(backbone, TASK, [], BATCH, seed)
    return {**backbone.weights("a"), **backbone.weights("h")}


def train_one(
    gate: Gate,
    variant: Variant,
    folder: Path,
    rows: Sequence[dict[str, Any]],
    budget: dict[str, Any],
    seed: int,
    first: Path,
    out: Path | None,
) -> dict[str, Any]:
    """Train a variant; its weights go to a file."""
    import torch

    tensors, held = torch.load(first), 0
    if variant.peer:
        import peers

        leave_out = variant.leave_out(peers.layers_of(folder))
        model, _, _ = peers.tagger(
            folder, rows, _labels(), budget, seed, precision=variant.precision, gate=gate,
            reduction_factor=2, leave_out=leave_out, first=tensors,
        )  # fmt: skip
        weights = peers.weights(model)
    else:
        from adapterxlt.compute.remembered import Memory
        from adapterxlt.compute.training import train

        backbone, memory = our_backbone(folder), Memory()
        stream = _stream(backbone, variant, rows, seed, tensors)
        gate.begin()
        train(
            backbone, backbone.trainable(["a", "h"]), [stream], budget, seed=seed,
            precision=variant.precision, memory=memory, progress=gate.progress,
        )  # fmt: skip
        weights, held = {**backbone.weights("a"), **backbone.weights("h")}, memory.held
    if out is not None:
        torch.save(weights, out)
    return {"held": held}


def _stream(
    backbone: Any, variant: Variant, rows: Sequence[dict[str, Any]], seed: int, first: Any
) -> Any:
    spec = {**SPEC, "leave_out": variant.leave_out(backbone.layers)}
    head = {n: tensor for n, tensor in first.items() if n.startswith("heads.")}
    mine = {n: tensor for n, tensor in first.items() if n not in head}
    backbone.add_adapter("a", spec, weights=mine)
    return our_stream(backbone, TASK, rows, BATCH, seed, head=head)


def _labels() -> list[str]:
    from adapterxlt.core.tasks import TASKS

    return list(TASKS[TASK].labels)


def compare_gradients(
    folder: Path, rows: Sequence[dict[str, Any]], variants: Sequence[Variant], first: Path
) -> dict[str, dict[str, float]]:
    """How far the loss and gradient of one batch are from those of the library."""
    import peers
    import torch
    from transformers import DataCollatorForTokenClassification

    found = {}
    for v in variants:
        if v.peer:
            continue
        tensors = torch.load(first.with_name(f"{v.half}.pt"))
        backbone = our_backbone(folder)
        stream = _stream(backbone, v, rows, 1, tensors)
        chosen = [rows[i] for i in stream.order.rows(0)]
        loss, mine = gradient(backbone, stream, ["a", "h"], v.precision)
        tokenizer = backbone.tokenizer
        leave_out = v.leave_out(backbone.layers)
        del backbone, stream
        model = peers.task_model(
            folder, _labels(), reduction_factor=2, leave_out=leave_out, first=tensors
        )
        model.train()
        encoded = peers.encode(tokenizer, chosen, _labels(), "upos")
        theirs = model(**DataCollatorForTokenClassification(tokenizer)(encoded)).loss
        theirs.backward()
        gradients = {n: p.grad for n, p in peers.own(model).items()}
        found[v.name] = {
            "loss": abs(loss - float(theirs.detach())),
            "gradient": apartness(mine, gradients),
        }
    return found


def matrix_share(
    variant: Variant, folder: Path, rows: Sequence[dict[str, Any]], first: Path
) -> float:
    """Share of the time of training steps that is matrix products; the last epoch's of three."""
    import torch

    batches = 4
    rows = rows[: batches * BATCH]
    budget = {**BUDGET, "steps": 3 * batches, "batch": BATCH, "lr": 1e-3}
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    class Watched(Gate):
        """Looks at the last epoch."""

        def end(self) -> None:
            super().end()
            if len(self.steps) == 2 * batches:
                profiler.start()
            if len(self.steps) == 3 * batches:
                profiler.stop()

    train_one(Watched(), variant, folder, rows, budget, 1, first, None)
    events = profiler.key_averages()
    names = ("addmm", "mm", "bmm", "baddbmm", "linear", "_linear_pointwise", "matmul")
    products = sum(e.self_cpu_time_total for e in events if e.key.rpartition("::")[2] in names)
    return products / sum(e.self_cpu_time_total for e in events)


def compare(
    title: str, folder: Path, data: Path, variants: Sequence[Variant], count: int
) -> dict[str, Any]:
    """Train all variants in turn, four epochs of so many sentences."""
    rows = rows_of(data, TASK, "en", "train", count)
    epoch, steps = count // BATCH, EPOCHS * count // BATCH
    budget = {**BUDGET, "steps": steps, "batch": BATCH, "lr": 1e-3}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for v in (PEER, PEER_HALF):
            apart(prepare, folder, v, 1, scratch / f"{v.half}.pt")
        contestants = [
            Contestant(
                v.name, train_one, v, folder, rows, budget, 1, scratch / f"{v.half}.pt", None
            )
            for v in variants
        ]
        alternate(contestants, steps - 1, 3)
        ended = [one.end() for one in contestants]
        differences = apart(compare_gradients, folder, rows, variants, scratch / "x.pt")
        parts = [apart(matrix_share, v, folder, rows, scratch / f"{v.half}.pt") for v in variants]
    lines = []
    for v, one, end, share in zip(variants, contestants, ended, parts, strict=True):
        first, steady = _mean(one.found[: epoch - 1]), _mean(one.found[epoch - 1 :])
        whole = (first + (EPOCHS - 1) * steady) / EPOCHS
        lines.append(
            {
                "variant": v.name,
                "quiet": quiet_share(one.found),
                "x processor": _processor(contestants[0].found) / _processor(one.found),
                "whole/s": BATCH / whole,
                "steady/s": BATCH / steady,
                "peak GB": end["peak"] / 1e9,
                "held MB": end["held"] / 1e6,
                "products": share,
                "first": end["losses"][0],
                "last": statistics.mean(end["losses"][-epoch:]),
                "loss": differences.get(v.name, {}).get("loss"),
                "gradient": differences.get(v.name, {}).get("gradient"),
            }
        )
    half = next(line for line in lines if line["variant"] == PEER_HALF.name)
    for v, line in zip(variants, lines, strict=True):
        line["x"] = line["whole/s"] / lines[0]["whole/s"]
        line["x steady"] = line["steady/s"] / lines[0]["steady/s"]
        line["x same adapter"] = line["steady/s"] / half["steady/s"] if v.half else None
    table(
        f"{title}: {count} sentences, {EPOCHS} epochs of batches of {BATCH}",
        lines,
        {
            "variant": "", "whole/s": ".1f", "x": ".2f", "steady/s": ".1f", "x steady": ".2f",
            "x same adapter": ".2f", "x processor": ".2f", "quiet": ".0%",
            "peak GB": ".2f", "held MB": ".0f",
            "products": ".0%", "first": ".4f", "last": ".4f", "loss": ".1e", "gradient": ".1e",
        },
    )  # fmt: skip
    return {"rows": lines, "sentences": count, "epochs": EPOCHS}


def _mean(found: Sequence[Taken]) -> float:
    """Batches differ in how much they have to do."""
    return statistics.mean(quiet(found))


def _processor(found: Sequence[Taken]) -> float:
    return statistics.mean(one.processor for one in found)


def score(
    variant: Variant, folder: Path, data: Path, seed: int, steps: int, scratch: Path
) -> float:
    """Accuracy on test sentences after training, in the library's model whoever trained it."""
    import peers
    import torch

    rows = rows_of(data, TASK, "en", "train", 5000)
    budget = {
        **BUDGET, "steps": steps, "batch": BATCH, "lr": 2e-3, "schedule": "linear", "warmup": 0.1,
    }  # fmt: skip
    first, out = scratch / f"{variant.half}-{seed}.pt", scratch / "trained.pt"
    train_one(Gate(), variant, folder, rows, budget, seed, first, out)
    leave_out = variant.leave_out(peers.layers_of(folder))
    model = peers.task_model(
        folder, _labels(), reduction_factor=2, leave_out=leave_out, first=torch.load(out)
    )
    tokenizer = peers.AutoTokenizer.from_pretrained(folder)
    test = rows_of(data, TASK, "en", "test", SCORED)
    encoded = peers.encode(tokenizer, test, _labels(), "upos")
    return peers.accuracy(peers.predict(model, tokenizer, encoded), encoded)


def scores(folder: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Six seeds of each variant on the small backbone."""
    steps, seeds = (10, (1,)) if quick else (SCORE_STEPS, SEEDS)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for seed in seeds:
            for v in (PEER, PEER_HALF):
                apart(prepare, folder, v, seed, scratch / f"{v.half}-{seed}.pt")
            for v in SCORED_VARIANTS:
                said = apart(score, v, folder, data, seed, steps, scratch)
                found.setdefault(v.name, []).append(100 * said)
    lines = [
        {
            "variant": name,
            "mean": statistics.mean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "seeds": values,
        }
        for name, values in found.items()
    ]
    about = f"accuracy on {SCORED} test sentences after {steps} steps, {len(seeds)} seeds"
    table(about, lines, {"variant": "", "mean": ".2f", "sd": ".2f"})
    return {"rows": lines, "steps": steps}


def main() -> None:
    given = arguments(__doc__, only=("small", "xlmr_base", "scores"))
    few, more = (128, 128) if given.quick else (ROWS // 2, ROWS)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "small": lambda: compare(given.backbone.name, given.backbone, given.data, ALL, more),
        "xlmr_base": lambda: compare("XLM-R base", base(given.backbone), given.data, ALL, few),
        "scores": lambda: scores(given.backbone, given.data, given.quick),
    }
    result = kept("task_adapter") if given.only else {}
    for name in given.only or parts:
        # A part that is kept may be from another machine.
        result[name] = {"machine": machine(), **parts[name]()}
        if name != "scores":
            rows = {row["variant"]: row for row in result[name]["rows"]}
            reached = {
                "exact": rows[EXACT.name]["x"],
                "bf16": rows[HALVED.name]["x"],
                "lower half free": rows[FASTEST.name]["x steady"],
            }
            result[name] |= {"targets": TARGETS, "reached": reached}
            print()
            for what, wanted in TARGETS.items():
                print(f"{name}, {what}: {reached[what]:.2f}, wanted {wanted}")
        if not given.quick:
            keep("task_adapter", result)


if __name__ == "__main__":
    main()
