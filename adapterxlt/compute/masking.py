"""Masked language modelling: which sub-words are hidden, and what predictions are among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.criteria import Criterion, vocabulary
from adapterxlt.compute.data import Window
from adapterxlt.core.canon import derive


@dataclass(frozen=True, slots=True)
class Masking:
    """Masked language modelling as in BERT: 80 % of the chosen become the mask, 10 % a random
    piece, 10 % stay (Devlin et al. 2019, section 3.1)."""

    share: float
    mask_id: int
    vocabulary: int
    first_piece: int = 4
    """Smallest id that a random replacement may have: special tokens stand before it."""
    pieces: torch.Tensor | None = None
    """What random replacements are taken from, in the place of the vocabulary."""

    def apply(self, windows: Sequence[Window], seed: int) -> list[Window]:
        """Windows with masked ids and the originals as labels; at least one a window."""
        generator = torch.Generator().manual_seed(seed)
        first, end = self.first_piece, self.vocabulary
        if self.pieces is not None:
            first, end = 0, len(self.pieces)
        result = []
        for window in windows:
            n = len(window.ids) - 2
            chance = torch.rand(n, generator=generator)
            fate = torch.rand(n, generator=generator)
            swap = torch.randint(first, end, (n,), generator=generator)
            if self.pieces is not None:
                swap = self.pieces[swap]
            chosen = (chance < self.share).nonzero().flatten().tolist()
            if not chosen:
                chosen = [int(chance.argmin())]
            ids = list(window.ids)
            for i in chosen:
                if fate[i] < 0.8:
                    ids[i + 1] = self.mask_id
                elif fate[i] < 0.9:
                    ids[i + 1] = int(swap[i])
            positions = [i + 1 for i in chosen]
            labels = [window.ids[p] for p in positions]
            result.append(Window(ids, positions, labels, [0] * len(positions)))
        return result


def mask_seed(seed: int, stream: str, number: int) -> int:
    """Seed of the masks of one batch, by its number in its stream."""
    return derive(seed, "mask", stream, number)


def masked_lm(
    backbone: Backbone, share: float, precision: str, pieces: torch.Tensor | None = None
) -> tuple[Masking, Criterion]:
    """Masks for the backbone's vocabulary, and the loss of `Backbone.lm_states`.

    Args:
        share: of the sub-words that are predicted.
        pieces: all that the text has, where predictions are among these alone (an approximation of
            the softmax that language models are trained with).
    """
    tokenizer = backbone.tokenizer
    backbone.compute_in(precision)
    number = others = None
    if pieces is not None:
        number = torch.full((len(tokenizer),), -1, dtype=torch.long)
        number[pieces] = torch.arange(len(pieces))
        number = number.to(backbone.device)
        special = torch.isin(pieces, torch.tensor(tokenizer.all_special_ids))
        others = pieces[~special]
    masking = Masking(share, tokenizer.mask_token_id, len(tokenizer), pieces=others)
    return masking, vocabulary(*backbone.lm_output(pieces), number)
