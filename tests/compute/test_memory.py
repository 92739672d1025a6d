"""The most memory of a piece of work is its own, not that of larger work before it."""

from __future__ import annotations

import sys

import pytest
import torch

from adapterxlt.compute.memory import peak


def held(megabytes: int) -> int:
    with peak(torch.device("cpu")) as found:
        blocks = [torch.ones(250_000) for _ in range(megabytes)]
        del blocks
    assert found.bytes is not None
    return found.bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and resets the mark")
def test_each_piece_of_work_has_a_peak_of_its_own() -> None:
    before, large, after = held(1), held(300), held(1)
    assert large - before > 250e6
    assert large - after > 200e6
