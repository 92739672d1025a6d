"""A backbone of XLM-R base's shape, with random weights, for measurements of speed and memory.

Nothing can be downloaded where the benchmarks run, and speed does not depend on what weights say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: XLM-R base (Conneau et al. 2020): 12 layers of 768, 250,002 pieces, 514 positions.
BASE: dict[str, Any] = {
    "vocab_size": 250_002, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514,
    "type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}  # fmt: skip


def xlmr_base(folder: Path, tokenizer: Path, **changes: Any) -> Path:
    """Write the backbone unless it is there: 1.1 GB.

    Args:
        tokenizer: a folder with a Unigram tokenizer, whose pieces are the first of the vocabulary;
            fillers that no text has follow.
        changes: of the configuration, e.g. ``hidden_dropout_prob=0.0``.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = XLMRobertaConfig(**{**BASE, **changes})
    torch.manual_seed(0)
    model = XLMRobertaForMaskedLM(config)
    described = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    lowest = min(score for _, score in vocabulary)
    missing = range(len(vocabulary), config.vocab_size)
    vocabulary += [[f"\U000f0000{n}", lowest - 10.0] for n in missing]
    text = json.dumps(described, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    model.save_pretrained(folder)
    return folder


def with_changes(source: Path, folder: Path, **changes: Any) -> Path:
    """The backbone of another folder with another configuration; its weights are the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        target = folder / path.name
        if not target.exists() and path.name != "config.json":
            os.link(path, target)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return folder
