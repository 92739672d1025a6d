"""The page says which adapters were not trained, where they are from and how they were opened."""

from __future__ import annotations

from typing import Any

from adapterxlt.report.html import build


def test_the_page_lists_what_was_adopted(rows: list[Any], study: dict[str, Any]) -> None:
    line = {"what": "language tr", "key": "a" * 64, "method": "seq_bn_inv", "format": "adapters"}
    line |= {"reference": "hub:org/<b>tr</b>", "revision": "main", "commit": "c" * 40}
    page = build(rows, {**study, "adopted": [{**line, "pickle": True}]})
    assert "Adopted adapters" in page and "hub:org/&lt;b&gt;tr&lt;/b&gt;@main" in page
    assert "a pickle, converted once" in page and "cccccccccccc<" in page
    plain = build(rows, {**study, "adopted": [{**line, "pickle": False}]})
    assert "a pickle" not in plain and "safetensors" in plain
    assert "Adopted adapters" not in build(rows, study) + build(rows, {**study, "adopted": []})
