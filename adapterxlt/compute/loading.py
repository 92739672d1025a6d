"""Reading a backbone's folder: model and fast tokenizer, from files alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

# Set before transformers is imported: nothing here may ask a hub for anything.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# oneDNN keeps what it made for a shape of product, and batches are of many shapes: 1024 take 0.3 GB
# more than 128 after 60 steps, and save no time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

import torch
import transformers
from adapters import AutoAdapterModel
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from adapterxlt.core.errors import AdapterXLTError, UsageError

LM_HEAD = "default"
#: What checkpoints of transformers call the bias of their output embeddings.
OUTPUT_BIASES = ("lm_head.bias", "lm_head.decoder.bias", "cls.predictions.bias")


def load(folder: Path, device: torch.device) -> tuple[Any, PreTrainedTokenizerFast]:
    """A model that adapters go on, on the CPU in fp32, and its tokenizer. Weights in fp32 stay in
    the file, which processes share.

    Args:
        device: where it will compute.

    Raises:
        UsageError: no fast tokenizer, more pieces than embeddings, or files that the libraries
            cannot read.
    """
    try:
        return _load(folder, device)
    except (AdapterXLTError, MemoryError):
        raise
    except Exception as error:
        # The libraries raise of every kind; what they were given is a folder of somebody's.
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UsageError(f"the backbone cannot be loaded: {what}", where=str(folder)) from error


def _load(folder: Path, device: torch.device) -> tuple[Any, PreTrainedTokenizerFast]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # It warns that adapters are not active whenever the base model is called directly.
    logging.getLogger("adapters").setLevel(logging.ERROR)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # torch's fused attention is the slower one on a CPU: measured with bf16 and rows of 25 to 80
    # sub-words, a training step takes 1.3 to 1.6 times as long with it. Elsewhere it draws its own
    # dropout, which would depend on what runs together.
    plain = device.type == "cpu" or config.attention_probs_dropout_prob > 0
    # The pooler is not in a masked LM's checkpoint and never used; its weights are drawn here.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoAdapterModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager" if plain else "sdpa",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    if not tokenizer.is_fast:
        raise UsageError("the tokenizer has no fast form", where=str(folder))
    if len(tokenizer) > model.config.vocab_size:
        what = f"{len(tokenizer)} pieces, but {model.config.vocab_size} embeddings"
        raise UsageError(f"tokenizer and weights do not match: {what}", where=str(folder))
    _restore_output_bias(model, folder)
    return model, tokenizer


def masked_head(model: Any) -> Any:
    """The model's own masked-LM head; nothing where it has none."""
    head = dict(model.heads).get(LM_HEAD)
    return head if head is not None and head.config["head_type"] == "masked_lm" else None


def _restore_output_bias(model: Any, folder: Path) -> None:
    """Put the bias of the masked-LM head back: `adapters` 1.3.0 does not take it over, and a
    language adapter would learn how frequent words are in its place."""
    head = masked_head(model)
    if head is None:
        return
    with safe_open(folder / "model.safetensors", "pt") as file:
        found = [name for name in OUTPUT_BIASES if name in file.keys()]  # noqa: SIM118
        if found:
            with torch.no_grad():
                head[-1].bias.copy_(file.get_tensor(found[0]))
