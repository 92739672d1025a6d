"""What does remembering the states of the lowest layers save, by how many of them are free?

A task adapter for part-of-speech tags with no adapters in the lowest quarter, half, three quarters
of the layers, or in all of them (a head alone), three epochs with and without memory in turn. The
first epoch computes the states, the others read them. Losses are compared step by step.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import keep
from setting import (
    BUDGET,
    Contestant,
    Gate,
    Taken,
    alternate,
    arguments,
    base,
    our_backbone,
    our_stream,
    processor,
    quiet,
    quiet_share,
    rows_of,
    table,
)

BATCH, EPOCHS = 32, 3
SPEC = {"method": "seq_bn", "reduction_factor": 2.0, "non_linearity": "relu"}
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def train_one(
    gate: Gate, folder: Path, rows: Sequence[dict[str, Any]], depth: float, remember: bool
) -> dict[str, Any]:
    """Train without adapters in the lowest part of the layers."""
    from adapterxlt.compute.remembered import Memory
    from adapterxlt.compute.training import train

    backbone, memory = our_backbone(folder), Memory()
    free = int(depth * backbone.layers)
    stack: tuple[str, ...] = ()
    if free < backbone.layers:
        backbone.add_adapter("a", {**SPEC, "leave_out": list(range(free))}, seed=1)
        stack = ("a",)
    stream = our_stream(backbone, "udpos", rows, BATCH, stack=stack)
    budget = {**BUDGET, "steps": EPOCHS * stream.order.per_epoch, "batch": BATCH, "lr": 1e-3}
    gate.begin()
    train(
        backbone, backbone.trainable([*stack, "h"]), [stream], budget, seed=1,
        memory=memory if remember else None, progress=gate.progress,
    )  # fmt: skip
    return {"held": memory.held, "free": free}


def compare(title: str, folder: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both ways in turn, for each depth."""
    epoch, lines = len(rows) // BATCH, []
    for depth in DEPTHS:
        plain, kept = (
            Contestant(str(remember), train_one, folder, rows, depth, remember)
            for remember in (False, True)
        )
        alternate([plain, kept], EPOCHS * epoch - 1, 2)
        ends = [plain.end(), kept.end()]
        # The first step is not counted.
        first, later = kept.found[: epoch - 1], kept.found[epoch - 1 :]
        again = plain.found[epoch - 1 :]
        losses = zip(ends[0]["losses"], ends[1]["losses"], strict=True)
        lines.append(
            {
                "free layers": ends[0]["free"],
                "without ms": _ms(again),
                "first epoch ms": _ms(first),
                "then ms": _ms(later),
                "x": _ms(again) / _ms(later),
                "x processor": processor(again) / processor(later),
                "quiet": min(quiet_share(one.found) for one in (plain, kept)),
                "held MB": ends[1]["held"] / 1e6,
                "loss apart": max(abs(a - b) for a, b in losses),
            }
        )
    table(
        f"{title}: {len(rows)} sentences, batches of {BATCH}, a step",
        lines,
        {
            "free layers": "d", "without ms": ".0f", "first epoch ms": ".0f", "then ms": ".0f",
            "x": ".2f", "x processor": ".2f", "quiet": ".0%", "held MB": ".1f",
            "loss apart": ".1e",
        },
    )  # fmt: skip
    return lines


def _ms(found: Sequence[Taken]) -> float:
    return 1000 * statistics.mean(quiet(found))


def main() -> None:
    given = arguments(__doc__)
    rows = rows_of(given.data, "udpos", "en", "train", 96 if given.quick else 512)
    result = {
        "small": compare(given.backbone.name, given.backbone, rows),
        "xlmr_base": compare("XLM-R base", base(given.backbone), rows[: len(rows) // 3 // 32 * 32]),
    }
    if not given.quick:
        keep("prefix_cache", result)


if __name__ == "__main__":
    main()
