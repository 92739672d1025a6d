"""How fast is a language adapter trained, and in how much memory, beside `adapters`' own trainer?

A MAD-X adapter on a backbone of XLM-R base's shape (250,002 words), batches of 8 blocks of 128
sub-words of Finnish text, two threads. All start from the same weights and, but for those that
predict among the pieces of the text alone, see the same masked batches, so that losses are
compared step by step. A judge that is none of them, the plain model with torch's cross-entropy
over the whole vocabulary, says the loss of every adapter on the same held-out blocks; the same on
a small backbone that knows languages: what an approximation costs is another question on a random
one.

Of each: sub-words a second (median of the steps done in turn that others on the machine let alone,
and which share of the steps that is), the ratio of processor seconds, the most memory of the
process, operations of matrix products a step and a second, and what share of its time its products
alone would take at their fastest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import keep, kept, machine
from setting import (
    BUDGET,
    Contestant,
    Gate,
    alternate,
    apart,
    apartness,
    arguments,
    base,
    blocks_of,
    gradient,
    our_backbone,
    processor,
    quiet_share,
    rows_of,
    table,
    wait_for_quiet,
)

BATCH, LENGTH, SHARE = 8, 128, 0.15
SPEC = {"method": "seq_bn_inv", "reduction_factor": 2.0, "non_linearity": "relu"}
HELD_OUT = 32
TARGETS = {"speed exact": 2.7, "speed with shortcuts": 8.0, "memory": 0.4}


@dataclass(frozen=True)
class Variant:
    """A way to train. ``corpus``: predictions are among the pieces of the text."""

    name: str
    peer: bool = False
    precision: str = "fp32"
    micro_batch: int | None = None
    corpus: bool = False


PEER = Variant("AdapterTrainer fp32", peer=True)
WHOLE = Variant("ours fp32")
EXACT = Variant("ours fp32, micro-batch 2", micro_batch=2)
FASTEST = Variant("ours bf16, corpus_softmax", precision="bf16", corpus=True)
ALL = [
    PEER,
    WHOLE,
    EXACT,
    Variant("ours bf16", precision="bf16"),
    FASTEST,
]


def stream_of(backbone: Any, lines: Sequence[str], precision: str, corpus: bool) -> Any:
    """The stream that ours are trained on."""
    from adapterxlt.compute.data import Order, pieces_of
    from adapterxlt.compute.masking import masked_lm
    from adapterxlt.compute.steps import Stream

    data = _training(backbone, lines)
    pieces = pieces_of([data]) if corpus else None
    masking, criterion = masked_lm(backbone, SHARE, precision, pieces)
    order = Order(len(data.rows), BATCH, 1, "text")
    return Stream("text", data, order, (("a",),), backbone.lm_states, masking, criterion=criterion)


def _training(backbone: Any, lines: Sequence[str]) -> Any:
    data = blocks_of(backbone.tokenizer, lines, LENGTH)
    return data.choose(range(len(data.rows) - HELD_OUT))


def prepare(folder: Path, lines: Sequence[str], steps: int, out: Path) -> dict[str, int]:
    """Keep first weights, masked batches and held-out blocks; what the text is like."""
    import torch

    from adapterxlt.compute.data import pieces_of

    backbone = our_backbone(folder)
    backbone.add_adapter("a", SPEC, seed=1)
    stream = stream_of(backbone, lines, "fp32", False)
    batches = [_tensors(stream.turn(step, 1).rows) for step in range(steps)]
    every = blocks_of(backbone.tokenizer, lines, LENGTH)
    windows = [row[0] for row in every.rows[-HELD_OUT:]]
    held = [(window,) for window in stream.masking.apply(windows, 99)]
    parts = [_tensors(held[i : i + BATCH]) for i in range(0, HELD_OUT, BATCH)]
    pieces = pieces_of([stream.data])
    kept = {"first": backbone.weights("a"), "batches": batches, "held": parts, "pieces": pieces}
    torch.save(kept, out)
    scored = statistics.mean(int((batch["labels"] != -100).sum()) for batch in batches)
    return {"scored": round(scored), "pieces": len(pieces), "vocabulary": len(backbone.tokenizer)}


def _tensors(rows: Sequence[Any]) -> dict[str, Any]:
    import torch

    ids = torch.tensor([window.ids for row in rows for window in row])
    labels = torch.full_like(ids, -100)
    for i, (window,) in enumerate(rows):
        labels[i, torch.tensor(window.positions)] = torch.tensor(window.labels)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def train_one(
    gate: Gate, variant: Variant, folder: Path, lines: Sequence[str], steps: int, prepared: Path
) -> dict[str, Any]:
    """Train a variant; its weights go to a file."""
    import torch

    kept = torch.load(prepared, weights_only=True, mmap=True)
    budget = {**BUDGET, "steps": steps, "batch": BATCH, "lr": 1e-3}
    if variant.peer:
        import peers

        blocks = [[0] * LENGTH] * (steps * BATCH)
        model, _ = peers.language_adapter(
            folder, blocks, budget, precision=variant.precision, first=kept["first"],
            batches=kept["batches"], gate=gate,
        )  # fmt: skip
        weights = peers.weights(model)
    else:
        from adapterxlt.compute.training import train

        backbone = our_backbone(folder)
        backbone.add_adapter("a", SPEC, weights=kept["first"])
        stream = stream_of(backbone, lines, variant.precision, variant.corpus)
        gate.begin()
        train(
            backbone, backbone.trainable(["a"]), [stream], budget, seed=1,
            precision=variant.precision, micro_batch=variant.micro_batch, progress=gate.progress,
        )  # fmt: skip
        weights = backbone.weights("a")
    torch.save(weights, prepared.with_name(f"{variant.name}.pt"))
    return {}


def judge(
    folder: Path, lines: Sequence[str], variants: Sequence[Variant], prepared: Path
) -> dict[str, dict[str, float]]:
    """Held-out losses of all variants, and how far their first gradient is from the peer's."""
    import peers
    import torch

    kept = torch.load(prepared, weights_only=True)
    model = peers.language_model(folder, kept["first"])
    model.train()
    first = model(**kept["batches"][0]).loss
    first.backward()
    theirs = {n: p.grad.clone() for n, p in peers.own(model).items()}
    draws = model.config.hidden_dropout_prob > 0
    found = {}
    model.eval()
    pieces = kept["pieces"]
    number = torch.full((model.config.vocab_size,), -100)
    number[pieces] = torch.arange(len(pieces))
    weights = {v.name: torch.load(prepared.with_name(f"{v.name}.pt")) for v in variants}
    for name, tensors in {"before training": kept["first"], **weights}.items():
        peers.start(model, tensors)
        whole, among, n = 0.0, 0.0, 0
        for batch in kept["held"]:
            gold = batch["labels"]
            with torch.no_grad():
                ids, mask = batch["input_ids"], batch["attention_mask"]
                logits = model(input_ids=ids, attention_mask=mask).logits[gold != -100]
            gold = gold[gold != -100]
            kind = torch.nn.functional.cross_entropy
            whole += float(kind(logits, gold, reduction="sum"))
            # A piece of the held-out blocks may be in none of the others.
            among += float(kind(logits[:, pieces], number[gold], reduction="sum"))
            n += len(gold)
        found[name] = {"held_out": whole / n, "held_out_among_pieces": among / n}
    del model, logits
    backbone = our_backbone(folder)
    backbone.add_adapter("a", SPEC, weights=kept["first"])
    for v in variants:
        if not v.peer and not v.corpus and not draws:
            stream = stream_of(backbone, lines, v.precision, False)
            loss, mine = gradient(backbone, stream, ["a"], v.precision, v.micro_batch)
            found[v.name]["first_loss_difference"] = abs(loss - float(first.detach()))
            found[v.name]["gradient_difference"] = apartness(mine, theirs)
    return found


def products(config: Any, scored: int, words: int, exact: bool) -> Counter[tuple[int, ...]]:
    """Matrix products of a step: how many of each (batch, m, k, n), forward and backward.

    Backward is to the activations, and to the weights of adapters alone. Of ``exact`` rows all
    positions are computed in the last layer and before the softmax, as the library does; otherwise
    only what is scored.
    """
    d, f, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    positions, bottleneck, half = BATCH * LENGTH, config.hidden_size // 2, config.hidden_size // 2
    found: Counter[tuple[int, ...]] = Counter()

    def frozen(m: int, k: int, n: int) -> None:
        """A product with a frozen matrix, and its gradient to the input."""
        found[1, m, k, n] += 1
        found[1, m, n, k] += 1

    def trained(m: int, k: int, n: int) -> None:
        frozen(m, k, n)
        found[1, n, m, k] += 1

    for layer in range(config.num_hidden_layers):
        last = layer == config.num_hidden_layers - 1 and not exact
        wanted = scored if last else positions
        queries = scored // BATCH if last else LENGTH
        frozen(positions, d, d), frozen(positions, d, d)
        frozen(wanted, d, d), frozen(wanted, d, d)
        frozen(wanted, d, f), frozen(wanted, f, d)
        size = d // heads
        found[BATCH * heads, queries, size, LENGTH] += 2
        found[BATCH * heads, queries, LENGTH, size] += 2
        found[BATCH * heads, LENGTH, queries, size] += 2
        trained(wanted, d, bottleneck), trained(wanted, bottleneck, d)
    ends = positions if exact else scored
    for m in (positions, ends):
        for _ in range(2):
            trained(m, half, half // 2), trained(m, half // 2, half)
    frozen(ends, d, d), frozen(ends, d, words)
    return found


def ceiling(shapes: Counter[tuple[int, ...]], precision: str) -> tuple[float, float]:
    """Operations of products (2 m k n each), and the seconds they take by themselves.

    Each shape is measured, as fast as torch or oneDNN does it, without anything between.
    """
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    operations = seconds = 0.0
    for (batch, m, k, n), times in shapes.items():
        operations += 2.0 * batch * m * k * n * times
        left, right = torch.randn(batch, m, k, dtype=dtype), torch.randn(batch, n, k, dtype=dtype)
        if batch == 1:
            ways = [torch.nn.functional.linear]
            if torch.backends.mkldnn.is_available():
                ways.append(_onednn)
            best = min(_seconds(way, left[0], right[0]) for way in ways)
        else:
            best = _seconds(torch.bmm, left, right.transpose(1, 2))
        seconds += best * times
    return operations, seconds


def _onednn(states: Any, weight: Any) -> Any:
    """torch asks another library for fp32 products, on some processors a slower one."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(states, weight, None, "none", [], "")


def _seconds(way: Any, *operands: Any, times: int = 7) -> float:
    """The least seconds of a product: nobody is faster than when alone."""
    wait_for_quiet()
    way(*operands)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        way(*operands)
        found.append(time.perf_counter() - start)
    return min(found)


def ceilings(
    folder: Path, variants: Sequence[Variant], text: dict[str, int]
) -> dict[str, tuple[float, float]]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    found = {}
    for v in variants:
        words = text["pieces"] if v.corpus else text["vocabulary"]
        found[v.name] = ceiling(products(config, text["scored"], words, v.peer), v.precision)
    return found


def _alone(variant: Variant, folder: Path, lines: Sequence[str], prepared: Path) -> int:
    """The most memory of the process of a training that is not held up."""
    steps = 5
    again = prepared.parent / "alone" / prepared.name
    again.parent.mkdir(exist_ok=True)
    if not again.exists():
        again.symlink_to(prepared)
    one = Contestant(variant.name, train_one, variant, folder, lines, steps, again)
    one.steps(steps - 1)
    return int(one.end()["peak"])


def compare(
    title: str, folder: Path, lines: Sequence[str], variants: Sequence[Variant], steps: int,
    at_once: int,
) -> dict[str, Any]:  # fmt: skip
    """Train all variants in turn, and judge them."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.pt"
        text = apart(prepare, folder, lines, steps, prepared)
        contestants = [
            Contestant(v.name, train_one, v, folder, lines, steps, prepared) for v in variants
        ]
        alternate(contestants, steps - 1, at_once)
        ended = {one.name: one.end() for one in contestants}
        peaks = {v.name: _alone(v, folder, lines, prepared) for v in variants}
        judged = apart(judge, folder, lines, variants, prepared)
        limits = apart(ceilings, folder, variants, text)
    rows = []
    theirs = contestants[0]
    for v, one in zip(variants, contestants, strict=True):
        end, seconds = ended[v.name], one.seconds
        operations, least = limits[v.name]
        losses, base_losses = end["losses"], ended[PEER.name]["losses"]
        same = [abs(a - b) for a, b in zip(losses, base_losses, strict=True)]
        rows.append(
            {
                "variant": v.name,
                **asdict(v),
                "seconds": seconds,
                "processor s": processor(one.found),
                "x processor": processor(theirs.found) / processor(one.found),
                "quiet": quiet_share(one.found),
                "tokens/s": BATCH * LENGTH / seconds,
                "x": theirs.seconds / seconds,
                "peak GB": peaks[v.name] / 1e9,
                "of peer's": peaks[v.name] / peaks[PEER.name],
                "GFLOP": operations / 1e9,
                "GFLOP/s": operations / seconds / 1e9,
                "ceiling": operations / least / 1e9,
                "reached": least / seconds,
                "first": losses[0],
                "last": losses[-1],
                "apart": None if v.corpus or v == PEER else max(same),
                "held-out": judged[v.name]["held_out"],
                "among": judged[v.name]["held_out_among_pieces"],
                "gradient": judged[v.name].get("gradient_difference"),
                "losses": [round(loss, 6) for loss in losses],
            }
        )
    before = judged["before training"]
    about = (
        f"{title}: {steps} steps of {BATCH} x {LENGTH}, {text['scored']} scored, "
        f"{text['pieces']} of {text['vocabulary']} pieces; held-out loss before training "
        f"{before['held_out']:.4f}, among the pieces {before['held_out_among_pieces']:.4f}"
    )
    table(
        about,
        rows,
        {
            "variant": "", "tokens/s": ".0f", "x": ".2f", "x processor": ".2f", "quiet": ".0%",
            "peak GB": ".2f",
            "of peer's": ".0%", "GFLOP": ".0f", "GFLOP/s": ".0f", "ceiling": ".0f",
            "reached": ".0%", "first": ".4f", "last": ".4f", "apart": ".1e", "held-out": ".4f",
            "among": ".4f", "gradient": ".1e",
        },
    )  # fmt: skip
    return {"text": text, "before": before, "steps": steps, "rows": rows}


def main() -> None:
    given = arguments(__doc__, only=("xlmr_base", "xlmr_base_dropout", "small"))
    lines = [row["text"] for row in rows_of(given.data, "mono", "fi", "bible", 8000)]
    steps, small = (6, 12) if given.quick else (20, 100)
    among = Variant("ours fp32, corpus_softmax", corpus=True)
    parts = {
        "xlmr_base": ("XLM-R base", 0.0, ALL, steps, 1),
        "xlmr_base_dropout": (
            "XLM-R base with its own dropout 0.1", 0.1, [PEER, EXACT, FASTEST],
            max(4, steps // 3), 1,
        ),
        "small": (
            f"a pretrained backbone, {given.backbone.name}", None, [PEER, EXACT, among, FASTEST],
            small, 10,
        ),
    }  # fmt: skip
    result = kept("language_adapter") if given.only else {}
    for name in given.only or parts:
        title, dropout, *how = parts[name]
        folder = given.backbone if dropout is None else base(given.backbone, dropout)
        # A part that is kept may be from another machine.
        result[name] = {"machine": machine(), **compare(title, folder, lines, *how)}
        if not given.quick:
            keep("language_adapter", result)
    rows = {row["variant"]: row for row in result["xlmr_base"]["rows"]}
    reached = {
        "speed exact": rows[EXACT.name]["x"],
        "speed with shortcuts": rows[FASTEST.name]["x"],
        "memory": max(rows[v.name]["of peer's"] for v in (EXACT, FASTEST)),
    }
    print()
    for name, wanted in TARGETS.items():
        print(f"{name}: {reached[name]:.2f}, wanted {wanted}")
    if not given.quick:
        keep("language_adapter", {**result, "targets": TARGETS, "reached": reached})


if __name__ == "__main__":
    main()
