"""Makes the lab's own backbone: a tokenizer and a small masked LM of XLM-R's architecture.

The only place where the weights of a whole model are trained; never touches a downloaded one.
Called by the worker for a `pretrain` stage.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

from adapterxlt import lab
from adapterxlt.compute.snapshots import Outcome, Snapshots, restore, snapshot

# XLM-R's ids: the position in this tuple is the id.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BOS, PAD, EOS, UNK, MASK = range(5)

# How many batches' worth of lines are drawn and sorted by length to cut one batch from.
_BUCKET = 8


def pretrain(
    folder: Path,
    *,
    spec: Mapping[str, Any],
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
    snapshots: Snapshots | None = None,
) -> dict[str, Any]:
    """Train a tokenizer and a masked LM on the lab's text and write both into `folder`.

    `spec` has every field of `lab.DEFAULT_SPEC`; KeyError for a missing, ValueError for an unknown
    one. `pair_share` of the batches are translation pairs, source and target sentence in one
    sequence (TLM, Conneau and Lample 2019, section 3.3); the others are monolingual lines.
    Languages the backbone is not to have seen give neither. `on_step(step, steps, loss)` is called
    after each step (steps from 1, loss in nats per masked token). Writes config.json,
    model.safetensors and the tokenizer's JSON files. Equal for equal arguments and thread count;
    PyTorch's global generator is left as it was. A run that goes on from one of its `snapshots`
    ends in the same bits.

    Returns {"loss": mean of the last tenth of the steps, "steps": int, "tokens": int read, padding
    apart}.
    """
    unknown = sorted(set(spec) - set(lab.DEFAULT_SPEC))
    if unknown:
        known = sorted(lab.DEFAULT_SPEC)
        raise ValueError(f"pretrain: unknown spec fields {unknown}; known: {known}")
    missing = sorted(set(lab.DEFAULT_SPEC) - set(spec))
    if missing:
        raise KeyError(f"pretrain: spec lacks {missing}")
    lines, pairs = corpus()
    tokenizer = make_tokenizer(lines, pairs, int(spec["vocab"]))
    limit = int(spec["max_length"])
    mono = _encode(tokenizer, lines, limit)
    both = _encode(tokenizer, pairs, limit)
    model = make_model(spec, tokenizer.get_vocab_size(), seed)
    start_embeddings(model, both, float(spec["static"]))
    start_attention(model, float(spec["static"]), seed)
    result = _train(model, mono, both, spec, seed, on_step, snapshots or Snapshots())
    folder.mkdir(parents=True, exist_ok=True)
    wrap(tokenizer, limit).save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    return result


def corpus() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """What the backbone reads: lines (tuples of one or two sentences) and translation pairs.

    A language gives as many pairs as it has lines; a language of resource `unseen` gives nothing.
    """
    lines: list[tuple[str, ...]] = []
    pairs: list[tuple[str, ...]] = []
    for code, language in lab.LANGUAGES.items():
        if language.resource == "unseen":
            continue
        lines.extend(tuple(line.split(f" {lab.STOP} ")) for line in lab.text(code))
        if code != lab.SOURCE:
            pairs.extend(lab.parallel(code, language.text_lines))
    return lines, pairs


def make_tokenizer(
    lines: Sequence[tuple[str, ...]], pairs: Sequence[tuple[str, ...]], size: int
) -> Tokenizer:
    """Byte-pair encoding with XLM-R's special ids and pair template, of at most `size` pieces.

    BPE because its trainer breaks ties in a fixed order; the Unigram trainer does not promise to.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    # Letters of the unseen language are known all the same, as XLM-R knows those of most scripts.
    letters = sorted(set("".join(line for code in lab.LANGUAGES for line in lab.text(code))))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=[letter for letter in letters if letter != " "],
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (sentence for group in (lines, pairs) for line in group for sentence in line), trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s>:0 $B:0 </s>:0",
        special_tokens=[("<s>", BOS), ("</s>", EOS)],
    )
    return tokenizer


def wrap(tokenizer: Tokenizer, limit: int) -> PreTrainedTokenizerFast:
    """The tokenizer as `transformers` knows it, for sequences of at most `limit` pieces."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=limit,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(spec: Mapping[str, Any], vocab: int, seed: int) -> XLMRobertaForMaskedLM:
    """An untrained masked LM of the spec's shape; its weights come from shape and seed alone."""
    config = XLMRobertaConfig(
        vocab_size=vocab,
        hidden_size=int(spec["hidden"]),
        num_hidden_layers=int(spec["layers"]),
        num_attention_heads=int(spec["heads"]),
        intermediate_size=int(spec["ffn"]),
        # XLM-R counts positions from the padding id + 1.
        max_position_embeddings=int(spec["max_length"]) + PAD + 1,
        type_vocab_size=1,
        initializer_range=float(spec["init"]),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(seed, "init", 0))
        return XLMRobertaForMaskedLM(config)


def start_embeddings(
    model: XLMRobertaForMaskedLM, sequences: Sequence[Sequence[int]], scale: float
) -> None:
    """Start the piece embeddings, in place, from what occurs together in a sequence.

    The leading eigenvectors of the positive pointwise mutual information of all pieces (Levy and
    Goldberg 2014, section 3), rows scaled to standard deviation `scale`. Pieces that never occur
    keep their random vector. Without it most of a minute goes into learning what this gives in a
    second: that the words of a translation pair belong together.
    """
    vocab, hidden = model.config.vocab_size, model.config.hidden_size
    presence = torch.zeros(len(sequences), vocab)
    for row, ids in enumerate(sequences):
        presence[row, list(ids)] = 1.0
    presence[:, : len(SPECIAL)] = 0.0
    # A long sequence has many chance neighbours: each sequence weighs the same per piece.
    presence = presence / presence.sum(1, keepdim=True).sqrt()
    counts = presence.T @ presence
    single = counts.sum(1)
    expected = single[:, None] * single[None, :] / counts.sum()
    association = torch.log((counts / expected.clamp_min(1e-9)).clamp_min(1.0))
    values, vectors = torch.linalg.eigh(association)
    rows = vectors[:, -hidden:] * values[-hidden:].clamp_min(0.0).sqrt()
    rows = rows / rows.std(1, keepdim=True).clamp_min(1e-9) * scale
    known = single > 0
    with torch.no_grad():
        model.roberta.embeddings.word_embeddings.weight[known] = rows[known]


def start_attention(model: XLMRobertaForMaskedLM, scale: float, seed: int) -> None:
    """Start each layer so that a position looks at what is like it and takes that over, in place.

    Query and key weights are equal, output weights the transpose of the value weights, and
    positions sinusoidal (after mimetic initialization, Trockman and Kolter 2023). Reading a word
    off the other sentence is then there from the start; small random weights learn it too late.
    """
    generator = torch.Generator().manual_seed(_seed(seed, "attention", 0))
    hidden = model.config.hidden_size
    positions = model.roberta.embeddings.position_embeddings.weight
    with torch.no_grad():
        count = torch.arange(len(positions))[:, None]
        rates = torch.exp(torch.arange(0, hidden, 2) * (-math.log(100.0) / hidden))
        positions[:, 0::2] = torch.sin(count * rates) * scale
        positions[:, 1::2] = torch.cos(count * rates) * scale
        for layer in model.roberta.encoder.layer:
            own, out = layer.attention.self, layer.attention.output.dense
            alike = torch.randn(hidden, hidden, generator=generator) * (0.7 / math.sqrt(hidden))
            own.query.weight.copy_(alike)
            own.key.weight.copy_(alike)
            value = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))[0]
            own.value.weight.copy_(value * 0.7)
            out.weight.copy_(value.T * 0.7)


def _train(
    model: XLMRobertaForMaskedLM,
    mono: list[list[int]],
    both: list[list[int]],
    spec: Mapping[str, Any],
    seed: int,
    on_step: Callable[[int, int, float], None] | None,
    snapshots: Snapshots,
) -> dict[str, Any]:
    steps, batch = int(spec["steps"]), int(spec["batch"])
    warmup = max(1, round(steps * float(spec["warmup"])))
    vocab = model.config.vocab_size
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": float(spec["weight_decay"])},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=float(spec["lr"]),
        betas=(0.9, 0.98),
        fused=True,
    )
    model.train()
    outcome = Outcome()
    parameters = dict(model.named_parameters())
    saved = time.monotonic()
    for step in range(restore(snapshots.load(), parameters, optimizer, outcome), steps):
        generator = torch.Generator().manual_seed(_seed(seed, "step", step))
        paired = torch.rand((), generator=generator).item() < float(spec["pair_share"])
        inputs = _batch(both if paired else mono, batch, generator)
        seen = inputs != PAD
        inputs, chosen, wanted = _mask(inputs, float(spec["mask_share"]), vocab, generator)
        rate = min((step + 1) / warmup, (steps - step) / max(1, steps * float(spec["decay"])), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = float(spec["lr"]) * rate
        hidden = model.roberta(input_ids=inputs, attention_mask=seen.long()).last_hidden_state
        loss = nn.functional.cross_entropy(model.lm_head(hidden[chosen]), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        outcome.tokens += int(seen.sum())
        value = loss.item()
        outcome.losses.append((step + 1, value))
        if not math.isfinite(value):
            raise FloatingPointError(f"pretrain: loss is {value} at step {step + 1}; lower lr")
        if on_step is not None:
            on_step(step + 1, steps, value)
        if time.monotonic() - saved >= snapshots.every and step + 1 < steps:
            snapshots.save(snapshot(step + 1, parameters, optimizer, outcome))
            saved = time.monotonic()
    model.eval()
    return {"loss": outcome.final_loss, "steps": steps, "tokens": outcome.tokens}


def _encode(tokenizer: Tokenizer, lines: Sequence[tuple[str, ...]], limit: int) -> list[list[int]]:
    """Ids of each line; sequences over `limit` are left out, since a cut pair is no translation."""
    inputs = [line if len(line) > 1 else line[0] for line in lines]
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(inputs)]
    return [ids for ids in encoded if len(ids) <= limit]


def _batch(lines: list[list[int]], size: int, generator: torch.Generator) -> torch.Tensor:
    """Lines of similar length as ids (size, longest), padded."""
    drawn = torch.randint(len(lines), (size * _BUCKET,), generator=generator).tolist()
    drawn.sort(key=lambda index: len(lines[index]))
    start = int(torch.randint(_BUCKET, (), generator=generator)) * size
    chosen = [lines[index] for index in drawn[start : start + size]]
    inputs = torch.full((size, len(chosen[-1])), PAD)
    for row, ids in enumerate(chosen):
        inputs[row, : len(ids)] = torch.tensor(ids)
    return inputs


def _mask(
    inputs: torch.Tensor, share: float, vocab: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """BERT's masking (Devlin et al. 2019, section 3.1) of ids (batch, length): of the chosen
    positions 80 % are masked, 10 % replaced at random, 10 % kept.

    Returns the new ids (batch, length), the chosen positions (batch, length, bool), their true ids.
    """
    # One of the two sentences of a pair (past the first </s>) is masked twice as much and the other
    # not at all: what is hidden can be read off the other, which is how the two get aligned.
    second = ((inputs == EOS).cumsum(1) >= 1).long()
    double = (inputs == EOS).sum(1, keepdim=True) > 1
    side = torch.randint(2, (len(inputs), 1), generator=generator)
    rate = torch.where(double, 2 * share * (second == side), share)
    chosen = (torch.rand(inputs.shape, generator=generator) < rate) & (inputs >= len(SPECIAL))
    if not chosen.any():
        # Position 1 is the first piece of every line.
        chosen[:, 1] = True
    wanted = inputs[chosen]
    way = torch.rand(wanted.shape, generator=generator)
    other = torch.randint(len(SPECIAL), vocab, wanted.shape, generator=generator)
    shown = torch.where(way < 0.8, torch.full_like(wanted, MASK), wanted)
    shown = torch.where(way >= 0.9, other, shown)
    inputs = inputs.clone()
    inputs[chosen] = shown
    return inputs, chosen, wanted


def _seed(seed: int, purpose: str, step: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
