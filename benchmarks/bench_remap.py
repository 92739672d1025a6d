"""What does it save to read of the embeddings only the pieces that a text has?

A language adapter on a backbone of XLM-R base's shape, 250,002 pieces, in three ways: torch's
cross-entropy over the logits of all scored positions at once, ours over the whole vocabulary a few
positions at a time, and ours among the pieces of the text (`corpus_softmax`). Of each: a step's
time, in turn; how much of the mapped embeddings came into memory, and the most that the process
held; loss and gradient of the first batch beside torch's, and whether the hidden states before the
softmax are the same to the bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_language_adapter import BATCH, LENGTH, SPEC, stream_of
from common import keep
from setting import (
    BUDGET,
    Contestant,
    Gate,
    alternate,
    apart,
    apartness,
    arguments,
    base,
    our_backbone,
    processor,
    quiet_share,
    rows_of,
    table,
)

#: torch's own, ours whole, ours among the text's pieces; precision.
WAYS = [
    ("torch fp32", "torch", "fp32"),
    ("whole vocabulary fp32", "whole", "fp32"),
    ("corpus_softmax fp32", "corpus", "fp32"),
    ("whole vocabulary bf16", "whole", "bf16"),
    ("corpus_softmax bf16", "corpus", "bf16"),
]


def _stream(backbone: Any, lines: Sequence[str], way: str, precision: str) -> Any:
    from dataclasses import replace

    from adapterxlt.compute.criteria import ITEMS

    backbone.add_adapter("a", SPEC, seed=1)
    stream = stream_of(backbone, lines, precision, way == "corpus")
    if way == "torch":
        stream = replace(stream, logits=backbone.lm_logits, criterion=ITEMS)
    return stream


def touched(tensor: Any) -> int:
    """Bytes of a tensor's pages that are in this process's memory."""
    page, begin = 4096, tensor.data_ptr()
    first, last = begin // page, (begin + tensor.nbytes - 1) // page
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(8 * first)
        entries = file.read(8 * (last - first + 1))
    # The highest bit of an entry says whether the page is there.
    return page * sum(byte >> 7 for byte in entries[7::8])


def train_one(
    gate: Gate, folder: Path, lines: Sequence[str], way: str, precision: str, steps: int
) -> dict[str, Any]:
    """Train, and look at what came into memory."""
    from adapterxlt.compute.training import train

    backbone = our_backbone(folder)
    stream = _stream(backbone, lines, way, precision)
    budget = {**BUDGET, "steps": steps, "batch": BATCH, "lr": 1e-3}
    gate.begin()
    train(
        backbone, backbone.trainable(["a"]), [stream], budget, seed=1, precision=precision,
        progress=gate.progress,
    )  # fmt: skip
    embeddings = backbone.model.get_input_embeddings().weight
    return {"touched": touched(embeddings), "whole": embeddings.nbytes}


def exactness(folder: Path, lines: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Loss, gradient and hidden states of one batch, the same one for all."""
    import torch

    from adapterxlt.compute.steps import amp

    found: dict[str, dict[str, Any]] = {}
    reference: dict[str, Any] = {}
    windows: Any = None
    for name, way, precision in WAYS:
        backbone = our_backbone(folder)
        stream = _stream(backbone, lines, way, precision)
        # Which pieces stand in for others depends on what there is: all take the first's.
        windows = windows or stream.turn(0, 1).rows
        backbone.compute_in(precision)
        backbone.activate(("a",))
        parameters = backbone.trainable(["a"])
        with amp(precision, backbone.device):
            batch = backbone.batch([window for row in windows for window in row])
            states = backbone.lm_states(backbone.scored(batch))
            outputs = states if way != "torch" else backbone.lm_logits(backbone.scored(batch))
            loss = stream.criterion.loss(outputs.float(), batch.labels, windows) / len(batch.labels)
        loss.backward()
        gradient = {n: p.grad.clone() for n, p in parameters.items()}
        digest = hashlib.sha256(states.detach().float().numpy().tobytes()).hexdigest()
        found[name] = {"loss": float(loss.detach()), "states": digest}
        if way == "torch":
            # Among the text's pieces, by torch as well.
            from adapterxlt.compute.data import pieces_of

            pieces = pieces_of([stream.data])
            number = torch.full((outputs.shape[1],), -1)
            number[pieces] = torch.arange(len(pieces))
            backbone.model.zero_grad()
            logits = backbone.lm_logits(backbone.scored(batch))[:, pieces].float()
            among = torch.nn.functional.cross_entropy(logits, number[batch.labels])
            among.backward()
            fewer = {n: p.grad.clone() for n, p in parameters.items()}
            reference = {
                "corpus": (float(among.detach()), fewer),
                "whole": (float(loss.detach()), gradient),
                "torch": (float(loss.detach()), gradient),
            }
        theirs = reference[way]
        found[name]["loss apart"] = abs(found[name]["loss"] - theirs[0])
        found[name]["gradient"] = apartness(gradient, theirs[1])
        del backbone, stream
    for name, _, precision in WAYS:
        first = next(n for n, _, p in WAYS if p == precision)
        found[name]["same states"] = found[name]["states"] == found[first]["states"]
    return found


def main() -> None:
    given = arguments(__doc__)
    folder = base(given.backbone)
    lines = [row["text"] for row in rows_of(given.data, "mono", "fi", "bible", 8000)]
    steps = 4 if given.quick else 16
    contestants = [
        Contestant(name, train_one, folder, lines, way, precision, steps)
        for name, way, precision in WAYS
    ]
    alternate(contestants, steps - 1, 2)
    ends = [one.end() for one in contestants]
    exact = apart(exactness, folder, lines)
    rows = []
    for one, end in zip(contestants, ends, strict=True):
        rows.append(
            {
                "softmax": one.name,
                "s": one.seconds,
                "tokens/s": BATCH * LENGTH / one.seconds,
                "x": contestants[0].seconds / one.seconds,
                "x processor": processor(contestants[0].found) / processor(one.found),
                "quiet": quiet_share(one.found),
                "embeddings MB": end["touched"] / 1e6,
                "of": end["touched"] / end["whole"],
                "peak GB": end["peak"] / 1e9,
                **{name: exact[one.name][name] for name in ("loss", "loss apart", "gradient")},
                "same states": str(exact[one.name]["same states"]),
            }
        )
    table(
        f"{steps} steps of {BATCH} x {LENGTH}; apart: from torch over the same pieces in fp32",
        rows,
        {
            "softmax": "", "s": ".2f", "tokens/s": ".0f", "x": ".2f", "x processor": ".2f",
            "quiet": ".0%", "embeddings MB": ".0f", "of": ".0%", "peak GB": ".2f",
            "loss": ".4f", "loss apart": ".1e", "gradient": ".1e", "same states": "",
        },
    )  # fmt: skip
    if not given.quick:
        keep("remap", {"rows": rows, "steps": steps})


if __name__ == "__main__":
    main()
