"""Text of others' making, made safe to show: on a terminal, in a log, in a message.

Names come from recipes, data, adapters and hubs. What a terminal would obey is written out instead.
"""

from __future__ import annotations

import json
from typing import Any

#: Characters of one part of a message.
MOST_TEXT = 400


def visible(text: str, keep: str = "") -> str:
    """Text with everything that is no visible sign or space written out, as ``\\x1b``: escape
    sequences, what turns the direction of text, half a character; but those of ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


def shortened(text: str, most: int = MOST_TEXT) -> str:
    """Text whose middle is left out where it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def json_text(value: Any, indent: int | None = None, *, sort_keys: bool = False) -> str:
    """JSON as people read it, or in ASCII alone where it has what `visible` would write out."""
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False)
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return json.dumps(value, indent=indent, sort_keys=sort_keys)
