"""An accelerator gets the embeddings of the sub-words that data have, and nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Encoded, pieces_of
from adapterxlt.compute.encoding import encode_text


@pytest.fixture
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


def some(backbone: Backbone) -> Encoded:
    return encode_text(backbone.tokenizer, lab.text("lab-far-low")[:12], 40)


def pieces(backbone: Backbone, data: Encoded) -> torch.Tensor:
    special = torch.tensor(backbone.tokenizer.all_special_ids)
    return torch.cat([pieces_of([data]), special]).unique()


def hidden(backbone: Backbone, data: Encoded) -> torch.Tensor:
    windows = [window for row in data.rows for window in row]
    batch = backbone.batch(windows)
    with torch.no_grad():
        return torch.cat([batch.ids.flatten()[:1], backbone.trunk.lowest(batch).flatten()])


def test_states_are_the_same_to_the_bit(backbone: Backbone) -> None:
    data = some(backbone)
    wanted, few = hidden(backbone, data), pieces(backbone, data)
    assert len(few) < backbone.model.config.vocab_size / 2
    for given in (few, None, few):
        backbone.trunk.read(given, backbone.device)
        assert torch.equal(hidden(backbone, data), wanted)
    # Its own matrix is not what is read.
    weight = backbone.model.base_model.embeddings.word_embeddings.weight
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(hidden(backbone, data), wanted)


def test_a_sub_word_that_was_not_asked_for_is_an_error(backbone: Backbone) -> None:
    data = some(backbone)
    backbone.trunk.read(pieces(backbone, data)[:-1], backbone.device)
    with pytest.raises((IndexError, RuntimeError)):
        hidden(backbone, data)


def test_what_stays_is_not_moved_with_the_model(backbone: Backbone) -> None:
    output = backbone._lm_head()[-1]
    backbone.trunk.stay(output)
    embeddings = backbone.model.base_model.embeddings.word_embeddings
    backbone.model.to(torch.float64)
    assert embeddings.weight.dtype == output.weight.dtype == torch.float32
    assert backbone.model.base_model.embeddings.position_embeddings.weight.dtype == torch.float64


def test_copies_that_are_trained_are_read_themselves(backbone: Backbone) -> None:
    data = some(backbone)
    backbone.trunk.read(pieces(backbone, data), backbone.device)
    plain = hidden(backbone, data)
    backbone.add_adapter("f", {"method": "full"})
    with torch.no_grad():
        backbone._stand_ins.copies["f"]["embeddings.word_embeddings.weight"].mul_(2.0)
    backbone.activate(("f",))
    assert not torch.allclose(hidden(backbone, data), plain)
    backbone.activate(())
    assert torch.equal(hidden(backbone, data), plain)
    backbone.reset()
