"""Backbones of a few random weights, of each architecture, and random windows for them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import AutoAdapterModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from adapterxlt.compute.backbone import Backbone, fusion_name
from adapterxlt.compute.data import Window
from adapterxlt.core.adapters import AdapterSpec

VOCABULARY = 60
#: The first piece that is no special token.
FIRST = 5
_ROBERTA = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
#: Configuration and special tokens; the place of a token is its id.
KINDS: dict[str, tuple[type[Any], dict[str, str]]] = {
    "bert": (BertConfig, _BERT),
    "roberta": (RobertaConfig, _ROBERTA),
    "xlm-r": (XLMRobertaConfig, _ROBERTA),
}


def save(
    folder: Path, kind: str, *, layers: int = 3, positions: int = 82, dropout: float = 0.0
) -> Path:
    """A masked LM with weights that tell inputs apart, and a tokenizer of whole words."""
    config, special = KINDS[kind]
    pieces = [*special.values(), *(f"w{i}" for i in range(FIRST, VOCABULARY))]
    words = Tokenizer(WordLevel({p: i for i, p in enumerate(pieces)}, special["unk"]))
    words.pre_tokenizer = WhitespaceSplit()
    named = {f"{name}_token": token for name, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(
        config(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=positions, initializer_range=0.3,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            pad_token_id=pieces.index(special["pad"]), type_vocab_size=2 if kind == "bert" else 1,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


@contextmanager
def attention(which: str) -> Iterator[None]:
    """Backbones have this implementation of attention, whatever they would choose."""

    plain = AutoAdapterModel.from_pretrained

    def load(*given: Any, **how: Any) -> Any:
        return plain(*given, **{**how, "attn_implementation": which})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoAdapterModel, "from_pretrained", load)
        yield


def random_windows(lengths: Iterable[int], seed: int = 0, share: float = 0.2) -> list[Window]:
    """Windows of such lengths, at least one position of each scored."""
    draw, windows = random.Random(seed), []
    for length in lengths:
        ids = [draw.randrange(FIRST, VOCABULARY) for _ in range(length)]
        at = sorted(draw.sample(range(length), max(1, round(share * length))))
        windows.append(Window(ids, at, [draw.randrange(4) for _ in at], list(range(len(at)))))
    return windows


def put(
    backbone: Backbone, specs: Mapping[str, Mapping[str, Any]], stack: Sequence[Any] = ()
) -> None:
    """Take off what is there and put these on, and the fusions of a stack, far from the first
    weights, under which most methods do nothing."""
    backbone.reset()
    backbone.model.eval()
    for i, (name, spec) in enumerate(specs.items()):
        backbone.add_adapter(name, AdapterSpec(**spec).resolved(backbone.layers), seed=i)
        shake(backbone, name, i)
    for part in stack:
        if isinstance(part, tuple):
            backbone.add_fusion(part, seed=9)
            shake(backbone, fusion_name(part), 9)


def shake(backbone: Backbone, name: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.trainable([name]).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


def library_states(backbone: Backbone, windows: Iterable[Window]) -> torch.Tensor:
    """(scored, hidden) of each window alone, through the library's own forward pass."""
    found = []
    for window in windows:
        ids = torch.tensor([window.ids])
        states = backbone.model.base_model(ids, attention_mask=torch.ones_like(ids))[0][0]
        found.append(states[window.positions])
    return torch.cat(found)
