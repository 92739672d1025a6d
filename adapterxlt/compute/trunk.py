"""How a batch goes through the frozen layers: packed, from states that are remembered, scored.

Everything here computes what the library's own forward pass does, with less work: several windows
stand in one row and see only themselves, the lowest layers are left out where their output is
known, and of the last layer only what is scored is computed. Adapters are those that are active.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from adapters.context import ForwardContext
from torch.nn.functional import embedding

from adapterxlt.compute.data import Batch
from adapterxlt.compute.remembered import Known


class Trunk:
    """Embeddings and layers of a BERT, RoBERTa or XLM-R encoder, as `adapters` has changed them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        # XLM-R counts positions from the padding index on.
        self.first_position = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        #: Generators of what runs, each with how many rows it draws for, and how long they are.
        self._drawn: list[tuple[int, int, torch.Generator]] = []
        for parent in list(model.base_model.modules()):
            for name, module in parent.named_children():
                if type(module) is torch.nn.Dropout and module.p > 0:
                    setattr(parent, name, _Dropout(module.p, self._drawn))

    def hidden(
        self, ids: torch.Tensor, mask: torch.Tensor, layer: int | None = None
    ) -> torch.Tensor:
        """Hidden states (windows, length, hidden) of one window a row.

        Args:
            mask: (windows, length), 1 where there is a sub-word.
            layer: whose states, from 1 on; the last one's when left out.
        """
        base = self.model.base_model
        with ForwardContext(base, ids, attention_mask=mask):
            states = base.embeddings(input_ids=ids)
            extended = base.get_extended_attention_mask(mask, ids.shape)
            for module in base.encoder.layer[:layer]:
                states = module(states, extended)[0]
        return states

    def scored(self, batch: Batch, below: Known | None = None) -> torch.Tensor:
        """Hidden states (scored, hidden) of the last layer at the scored positions of a batch.

        Args:
            below: the states that come out of the lowest layers, where they are remembered.
        """
        base = self.model.base_model
        layers = base.encoder.layer
        with ForwardContext(base, batch.ids, attention_mask=batch.mask), self._draw(batch):
            seen = self._seen(batch)
            first = below.depth if below is not None else 0
            states = self._begin(batch) if below is None else below.states(batch, self.lowest)
            for module in layers[first:-1]:
                states = module(states, seen)[0]
            if first == len(layers):
                return states[batch.index]
            return self._last(layers[-1], states, seen, batch)

    def lowest(self, batch: Batch, depth: int | None = None) -> torch.Tensor:
        """Hidden states (rows, length, hidden) that come out of the lowest layers, or of all."""
        base = self.model.base_model
        with ForwardContext(base, batch.ids, attention_mask=batch.mask):
            seen, states = self._seen(batch), self._begin(batch)
            for module in base.encoder.layer[:depth]:
                states = module(states, seen)[0]
        return states

    @contextmanager
    def _draw(self, batch: Batch) -> Iterator[None]:
        """Have dropout drawn for the parts of a batch as for each of them alone."""
        device = batch.ids.device
        for rows, length, seed in batch.drawn:
            self._drawn.append((rows, length, torch.Generator(device).manual_seed(seed)))
        try:
            yield
        finally:
            self._drawn.clear()

    def stay(self, *modules: torch.nn.Module) -> None:
        """Have the embeddings of the vocabulary, and modules that share them, stay where they are
        when the model goes to another device: `read` brings what is needed."""
        for module in (self.model.base_model.embeddings.word_embeddings, *modules):
            module._apply = lambda change, recurse=True, module=module: module

    def read(self, pieces: torch.Tensor | None, device: torch.device) -> None:
        """Bring the embeddings of pieces to a device, until `read` is called again; all of them
        when left out. States are the same to the bit.
        """
        embeddings = self.model.base_model.embeddings.word_embeddings
        own, count = embeddings.weight, len(embeddings.weight)
        pieces = torch.arange(count) if pieces is None else pieces
        number = torch.full((count,), -1, dtype=torch.long)
        number[pieces] = torch.arange(len(pieces))
        where, table = number.to(device), own.detach()[pieces].to(device)

        def look_up(ids: torch.Tensor) -> torch.Tensor:
            # A copy that is trained stands in the place of its own.
            if embeddings.weight is not own:
                return torch.nn.Embedding.forward(embeddings, ids)
            return embedding(where[ids], table)

        embeddings.forward = look_up

    def draws(self, depth: int) -> bool:
        """Whether the embeddings or the lowest layers draw anything in their present mode."""
        every = (module for part in self._lowest(depth) for module in part.modules())
        return any(isinstance(m, torch.nn.Dropout) and m.p > 0 and m.training for m in every)

    def quiet(self, depth: int) -> None:
        """Have the embeddings and the lowest layers draw nothing, until the mode is set again."""
        for part in self._lowest(depth):
            part.eval()

    def _lowest(self, depth: int) -> list[torch.nn.Module]:
        base = self.model.base_model
        return [base.embeddings, *base.encoder.layer[:depth]]

    def _begin(self, batch: Batch) -> torch.Tensor:
        """What comes out of the embeddings and of an invertible adapter."""
        base, ids, places = self.model.base_model, batch.ids, batch.places
        if not batch.packed:
            states: torch.Tensor = base.embeddings(input_ids=ids)
            return states
        if self.first_position:
            # As the library counts: the padding piece has one position, within a text too.
            real = (ids != self.first_position - 1).long()
            before, begins = real.cumsum(1) - real, torch.arange(ids.shape[1], device=ids.device)
            before = before - before.gather(1, begins - places)
            places = (before + real) * real + self.first_position - 1
        # Left out, they would be no more than the positions that the backbone has.
        kinds = torch.zeros_like(ids)
        states = base.embeddings(input_ids=ids, token_type_ids=kinds, position_ids=places)
        return states

    def _seen(self, batch: Batch) -> torch.Tensor:
        """What positions may look at, as the layers add it to their scores: positions of their own
        window, and padding nothing else than padding.
        """
        base = self.model.base_model
        mask = batch.mask
        if batch.packed:
            mask = (batch.windows[:, :, None] == batch.windows[:, None, :]).long()
        extended: torch.Tensor = base.get_extended_attention_mask(mask, batch.ids.shape)
        return extended

    def _last(
        self, layer: Any, states: torch.Tensor, seen: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """The last layer at the scored positions, which look at all of their window's."""
        rows, positions = batch.index
        counts = torch.bincount(rows, minlength=len(states))
        most = int(counts.max()) if len(rows) else 0
        # Queries, output and feed-forward are 10 of a layer's 12 matrices.
        if (
            not batch.packable
            or most > 0.8 * states.shape[1]
            or self.draws(len(self.model.base_model.encoder.layer))
        ):
            found: torch.Tensor = layer(states, seen)[0][batch.index]
            return found
        # The how-manieth of its row a scored position is: rows are not in order when packed.
        order, starts = rows.argsort(stable=True), counts.cumsum(0) - counts
        slots = torch.empty_like(rows)
        slots[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
        wanted = torch.zeros((len(states), most), dtype=torch.long, device=rows.device)
        wanted[rows, slots] = positions
        each = torch.arange(len(states), device=rows.device)[:, None]
        queries = states[each, wanted]
        if seen.shape[2] > 1:
            seen = seen[each, 0, wanted][:, None]
        looked = layer.attention.self(queries, seen, encoder_hidden_states=states)[0]
        found = layer.feed_forward_chunk(layer.attention.output(looked, queries))
        return found[rows, slots]


class _Dropout(torch.nn.Dropout):  # type: ignore[misc]
    """Dropout whose masks do not depend on what else goes through the model at the same time."""

    def __init__(self, p: float, drawn: list[tuple[int, int, torch.Generator]]) -> None:
        super().__init__(p)
        self.drawn = drawn

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Drop from (rows, length, hidden) or (rows, heads, length, length)."""
        if not self.training or not self.drawn:
            return super().forward(states)
        kept, first = torch.zeros_like(states), 0
        for rows, length, generator in self.drawn:
            part = kept[first : first + rows, ..., :length, :]
            if states.dim() == 4:
                part = part[..., :length]
            part.copy_(torch.empty_like(part).bernoulli_(1 - self.p, generator=generator))
            first += rows
        return states * kept.div_(1 - self.p)
