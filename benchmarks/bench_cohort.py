"""Do runs that share the passes over a backbone train faster than one after the other?

Few-shot runs of part-of-speech tagging over one frozen language adapter, each with its own rows,
adapter, head and seed: one after the other, and together. On a GPU at XLM-R base's shape with 16
runs; on a CPU on the small backbone with eight, at batches of several sizes, since there it is the
batch that decides. Beside the ratio stand the largest difference of a final weight and, on a GPU,
the share of the measured rate of bf16 products.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import keep
from setting import BUDGET, apart, arguments, base, head_of, our_backbone, rows_of, table

LANGUAGE = {"method": "seq_bn_inv", "reduction_factor": 2.0, "non_linearity": "relu"}
TASK_SPEC = {"method": "seq_bn", "reduction_factor": 16.0, "non_linearity": "relu"}
TASK, SHOTS, ROUNDS = "udpos", 100, 3
TARGET = 6.0


def compare(
    folder: Path, data: Path, count: int, batch: int, steps: int, precision: str, rounds: int
) -> dict[str, Any]:
    """Seconds of both ways, and how far apart their weights are."""
    import torch

    from adapterxlt.compute.cohort import train_together
    from adapterxlt.compute.data import Order
    from adapterxlt.compute.encoding import encode
    from adapterxlt.compute.steps import Stream
    from adapterxlt.compute.training import Run, finish
    from adapterxlt.core.tasks import TASKS

    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = our_backbone(folder, device)
    rows = rows_of(data, TASK, "fi", "train", SHOTS * count)
    budget = {**BUDGET, "steps": steps, "batch": batch, "lr": 1e-3}
    encoded = [
        encode(backbone.tokenizer, TASKS[TASK], rows[i * SHOTS : (i + 1) * SHOTS], 128)
        for i in range(count)
    ]

    def runs() -> list[Run]:
        backbone.reset()
        backbone.add_adapter("language", LANGUAGE, seed=0)
        made = []
        for i in range(count):
            backbone.add_adapter(f"a{i}", TASK_SPEC, seed=i)
            backbone.add_head(f"h{i}", head_of(TASK), seed=i)
        backbone.read(encoded)
        for i, own in enumerate(encoded):
            head = partial(backbone.head_logits, f"h{i}")
            order = Order(len(own.rows), batch, i, TASK)
            stream = Stream(TASK, own, order, (("language", f"a{i}"),), head)
            trained = backbone.trainable([f"a{i}", f"h{i}"])
            made.append(Run(backbone, trained, [stream], budget, seed=i, precision=precision))
        backbone.trainable(name for run in made for name in run.trained)
        return made

    def weights() -> dict[str, Any]:
        names = [f"{kind}{i}" for kind in "ah" for i in range(count)]
        return {f"{name}:{n}": w for name in names for n, w in backbone.weights(name).items()}

    def timed(way: Callable[[list[Run]], Any]) -> tuple[float, dict[str, Any]]:
        made = runs()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        way(made)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, weights()

    def together(made: list[Run]) -> None:
        found = train_together(backbone, made, 1 << 16 if device == "cuda" else 1200)
        assert all(outcome is run.outcome for outcome, run in zip(found, made, strict=True))

    ways: dict[str, Callable[[list[Run]], Any]] = {
        "alone": lambda made: [finish(run) for run in made],
        "together": together,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, dict[str, Any]] = {}
    peaks: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            took, last[name] = timed(way)
            # The first round warms up.
            seconds[name] += [took] if number else []
            if device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated()
    apart_by = max(
        float((last["alone"][n] - value).abs().max()) for n, value in last["together"].items()
    )
    alone, joint = (statistics.median(seconds[name]) for name in ways)
    windows = [window for own in encoded for row in own.rows for window in row]
    sub_words = sum(len(w.ids) for w in windows) / (count * SHOTS) * batch * steps * count
    found = {
        "device": device,
        "runs": count,
        "batch": batch,
        "precision": precision,
        "alone": round(alone, 3),
        "together": round(joint, 3),
        "ratio": round(alone / joint, 2),
        "difference": apart_by,
        "peak": peaks.get("together"),
    }
    if device == "cuda":
        config = backbone.model.config
        wide, inner = config.hidden_size, config.intermediate_size
        layer = 2 * (4 * wide * wide + 2 * wide * inner)
        # Forward, and back to the activations.
        work = 2 * layer * config.num_hidden_layers * sub_words
        found["share_of_products"] = round(work / joint / _rate(wide, inner), 3)
    return found


def _rate(wide: int, inner: int) -> float:
    """Operations a second of one large bf16 product, as measured here."""
    import torch

    left = torch.randn(8192, wide, device="cuda", dtype=torch.bfloat16)
    right = torch.randn(wide, inner, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        left @ right
    torch.cuda.synchronize()
    return 50 * 2 * 8192 * wide * inner / (time.perf_counter() - start)


def has_gpu() -> bool:
    """Whether there is an accelerator; asked in a process of its own."""
    import torch

    return bool(torch.cuda.is_available())


def main() -> None:
    given = arguments(__doc__)
    steps, rounds = (3, 1) if given.quick else (20, ROUNDS)
    if apart(has_gpu):
        folder = base(given.backbone)
        cases = [(16, 10, precision) for precision in ("bf16", "fp32")]
    else:
        folder = given.backbone
        cases = [(8, batch, precision) for precision in ("fp32", "bf16") for batch in (2, 4, 10)]
    found = []
    for count, batch, precision in cases:
        how = (count, batch, steps, precision, rounds)
        found.append(apart(compare, folder, given.data, *how))
    columns = {
        "device": "", "runs": "d", "batch": "d", "precision": "", "alone": ".2f", "together": ".2f",
        "ratio": ".2f", "difference": ".1e", "peak": ",d", "share_of_products": ".1%",
    }  # fmt: skip
    title = f"few-shot runs of {steps} steps: seconds one after the other, and together"
    table(title, found, columns)
    if not given.quick:
        keep("cohort", {"steps": steps, "target_on_a_gpu": TARGET, "cases": found})


if __name__ == "__main__":
    main()
