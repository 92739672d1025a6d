"""How fast is a test set predicted, beside the trainer's `predict`, and how fast are many cells?

Part-of-speech tags, inference over pairs of sentences and sentiment, on a small pretrained backbone
(with adapters that were trained for a few steps) and on one of XLM-R base's shape. The trainer's
defaults are batches of eight in the order of the rows; all have the rows tokenized, and predict
the whole test set in turn. Labels are compared with the trainer's in fp32.

Then cells: six task adapters without adapters in the lower half of the layers, over one test set,
with what they share remembered and without; the first cell computes it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import keep
from setting import (
    BUDGET,
    Contestant,
    Gate,
    alternate,
    apart,
    arguments,
    base,
    head_of,
    our_backbone,
    our_stream,
    processor,
    quiet,
    quiet_share,
    rows_of,
    table,
)

SPEC = {"method": "seq_bn", "reduction_factor": 2.0, "non_linearity": "relu"}
TASKS = {"udpos": ("en", ("upos",)), "nli": ("en", ("premise", "hypothesis")),
         "sentiment": ("id", ("text",))}  # fmt: skip
ROWS, CELLS, STEPS = 500, 6, 60


@dataclass(frozen=True)
class Variant:
    """A way to predict."""

    name: str
    peer: bool = False
    precision: str = "fp32"


ALL = [
    Variant("AdapterTrainer fp32", peer=True),
    Variant("AdapterTrainer bf16_full_eval", peer=True, precision="bf16"),
    Variant("ours fp32"),
    Variant("ours bf16", precision="bf16"),
]


def prepare(folder: Path, task: str, rows: Sequence[dict[str, Any]], steps: int, out: Path) -> None:
    """Keep the weights of an adapter and a head that were trained for some steps."""
    import torch

    from adapterxlt.compute.training import train

    backbone = our_backbone(folder)
    backbone.add_adapter("a", SPEC, seed=1)
    stream = our_stream(backbone, task, rows, 32)
    if steps:
        budget = {**BUDGET, "steps": steps, "batch": 32, "lr": 2e-3}
        train(backbone, backbone.trainable(["a", "h"]), [stream], budget, seed=1)
    torch.save({"a": backbone.weights("a"), "h": backbone.weights("h")}, out)


def predict_one(
    gate: Gate, variant: Variant, folder: Path, task: str, rows: Sequence[dict[str, Any]],
    trained: Path, rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Predict the test set as often as asked for; the labels."""
    import torch

    from adapterxlt.core.tasks import TASKS as KNOWN

    weights, labels = torch.load(trained), list(KNOWN[task].labels)
    if variant.peer:
        import peers

        first = {**weights["a"], **weights["h"]}
        kind = "tagging" if task == "udpos" else "classification"
        model = peers.task_model(folder, labels, kind=kind, reduction_factor=2, first=first)
        tokenizer = peers.AutoTokenizer.from_pretrained(folder)
        columns = TASKS[task][1]
        encoded = (
            peers.encode(tokenizer, rows, labels, "upos")
            if task == "udpos"
            else peers.encode_texts(tokenizer, rows, labels, columns)
        )
        work = peers.predictor(model, tokenizer, encoded, variant.precision)
    else:
        from adapterxlt.compute.encoding import encode
        from adapterxlt.compute.evaluation import Composed, predict_labels

        backbone = our_backbone(folder)
        backbone.add_adapter("a", SPEC, weights=weights["a"])
        backbone.add_head("h", head_of(task), weights=weights["h"])
        data = encode(backbone.tokenizer, KNOWN[task], rows, 128)
        model = Composed(backbone, ("a",), "h", variant.precision)
        number = {label: i for i, label in enumerate(labels)}

        def work() -> list[list[int]]:
            said = predict_labels(model, data, labels)
            return [[number[row[item]] for item in sorted(row)] for row in said]

    for _ in range(rounds):
        gate.begin()
        found = work()
        gate.end()
    return {"labels": found}


def fitting(folder: Path, task: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one whole window: longer ones the library cuts, and ours splits."""
    from transformers import AutoTokenizer

    from adapterxlt.compute.encoding import encode
    from adapterxlt.core.tasks import TASKS as KNOWN

    encoded = encode(AutoTokenizer.from_pretrained(folder), KNOWN[task], rows, 128)
    pairs = enumerate(zip(rows, encoded.rows, strict=True))
    return [row for i, (row, windows) in pairs if len(windows) == 1 and i not in encoded.cut]


def compare(
    title: str, folder: Path, data: Path, count: int, steps: int, rounds: int
) -> list[dict[str, Any]]:
    """All test sets, each predicted by all in turn."""
    lines = []
    for task, (language, _) in TASKS.items():
        rows = apart(fitting, folder, task, rows_of(data, task, language, "test", count))
        with tempfile.TemporaryDirectory() as name:
            trained = Path(name) / "trained.pt"
            training = rows_of(data, task, language, "train", 2000)
            apart(prepare, folder, task, training, steps, trained)
            contestants = [
                Contestant(v.name, predict_one, v, folder, task, rows, trained, rounds) for v in ALL
            ]
            alternate(contestants, rounds - 1, 1)
            ends = [one.end() for one in contestants]
        theirs = [label for row in ends[0]["labels"] for label in row]
        for one, end in zip(contestants, ends, strict=True):
            mine = [label for row in end["labels"] for label in row]
            same = sum(a == b for a, b in zip(mine, theirs, strict=True))
            lines.append(
                {
                    "test set": f"{task}/{language}, {len(rows)} rows",
                    "variant": one.name,
                    "rows/s": len(rows) / one.seconds,
                    "x": contestants[0].seconds / one.seconds,
                    "x processor": processor(contestants[0].found) / processor(one.found),
                    "quiet": quiet_share(one.found),
                    "peak GB": end["peak"] / 1e9,
                    "other labels": len(theirs) - same,
                    "of": len(theirs),
                }
            )
    table(
        title,
        lines,
        {
            "test set": "", "variant": "", "rows/s": ".1f", "x": ".2f", "x processor": ".2f",
            "quiet": ".0%", "peak GB": ".2f", "other labels": "d", "of": "d",
        },
    )  # fmt: skip
    return lines


def predict_cells(
    gate: Gate, folder: Path, rows: Sequence[dict[str, Any]], remember: bool, rounds: int
) -> dict[str, Any]:
    """Predict one test set with each of six adapters; a step is a cell."""
    from adapterxlt.compute.encoding import encode
    from adapterxlt.compute.evaluation import Composed, predict_labels
    from adapterxlt.compute.remembered import Memory
    from adapterxlt.core.tasks import TASKS as KNOWN

    backbone = our_backbone(folder)
    task = KNOWN["udpos"]
    names = [f"cell{i}" for i in range(CELLS)]
    for i, name in enumerate(names):
        lower = list(range(backbone.layers // 2))
        backbone.add_adapter(name, {**SPEC, "leave_out": lower}, seed=i)
        backbone.add_head(f"h{name}", head_of("udpos"), seed=i)
    data = encode(backbone.tokenizer, task, rows, 128)
    said = []
    for _ in range(rounds):
        memory, said = Memory(), []
        for name in names:
            gate.begin()
            cell = Composed(
                backbone, (name,), f"h{name}", memory=memory if remember else None,
                own=frozenset({name}),
            )  # fmt: skip
            said.append(predict_labels(cell, data, task.labels))
            gate.end()
    return {"labels": said, "held": memory.held}


def cells(title: str, folder: Path, data: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """Six cells over a test set, with and without memory."""
    rows = rows_of(data, "udpos", "en", "test", count)
    # The first cell of all is not counted, so there is one round more.
    contestants = [
        Contestant(str(remember), predict_cells, folder, rows, remember, rounds + 1)
        for remember in (False, True)
    ]
    for one in contestants:
        one.steps(CELLS - 1)
        one.found.clear()
    alternate(contestants, rounds * CELLS, CELLS)
    ends = [one.end() for one in contestants]
    lines = []
    for remember, one, end in zip((False, True), contestants, ends, strict=True):
        first = statistics.median(quiet(one.found[::CELLS]))
        later = [taken for i, taken in enumerate(one.found) if i % CELLS]
        six = first + (CELLS - 1) * statistics.median(quiet(later))
        lines.append(
            {
                "cells": "remembered" if remember else "each alone",
                "1 cell s": first,
                f"{CELLS} cells s": six,
                "a cell more s": statistics.median(quiet(later)),
                "quiet": quiet_share(one.found),
                "held MB": end["held"] / 1e6,
                "other labels": sum(
                    a != b
                    for mine, theirs in zip(end["labels"], ends[0]["labels"], strict=True)
                    for row, other in zip(mine, theirs, strict=True)
                    for a, b in zip(row.values(), other.values(), strict=True)
                ),
            }
        )
    for line in lines:
        line["x"] = lines[0][f"{CELLS} cells s"] / line[f"{CELLS} cells s"]
    table(
        f"{title}: {CELLS} task adapters in the upper half of the layers, {len(rows)} rows",
        lines,
        {
            "cells": "", "1 cell s": ".2f", f"{CELLS} cells s": ".2f", "x": ".2f",
            "a cell more s": ".2f", "quiet": ".0%", "held MB": ".0f", "other labels": "d",
        },
    )  # fmt: skip
    return lines


def main() -> None:
    given = arguments(__doc__)
    large, name = base(given.backbone), given.backbone.name
    count, steps, rounds = (64, 5, 2) if given.quick else (ROWS, STEPS, 6)
    big = count if given.quick else 256
    result = {
        "small": compare(name, given.backbone, given.data, count, steps, rounds),
        "xlmr_base": compare("XLM-R base", large, given.data, big, 0, max(2, rounds // 2)),
        "cells": {
            "small": cells(name, given.backbone, given.data, count, rounds // 2),
            "xlmr_base": cells("XLM-R base", large, given.data, big, max(1, rounds // 3)),
        },
    }
    if not given.quick:
        keep("evaluate", result)


if __name__ == "__main__":
    main()
