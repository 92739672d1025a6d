"""Strict YAML 1.2 reading into plain values that remember their lines.

Duplicate keys, aliases, tags, non-string keys and deep nesting are faults, all reported at once
with their line; `no` is a string and `1e-5` a number. What is larger or deeper than any recipe has
reason to be is refused before it takes time. Read by `core.recipe` and `core.regimes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from adapterxlt.core.errors import Fault, RecipeError
from adapterxlt.core.plain import plain_bytes, utf8
from adapterxlt.core.showing import shortened

Path = tuple[str | int, ...]
MAX_DEPTH = 12
#: A parser in Python takes a second for a text of that size; the largest shipped recipe has 5,000.
MAX_BYTES = 200_000
#: Scalars, lists and mappings together.
MAX_NODES = 20_000
#: Digits of a number, and characters of a key: none that can be meant has more.
MAX_DIGITS, MAX_KEY = 40, 500
#: What no text of a recipe has: signs that terminals and file systems obey, halves of characters.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain value, its exact text, and the line of every path in it."""

    name: str
    text: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    overridden: dict[Path, str] = field(default_factory=dict)
    """What was given on the command line in place of the file's, by path."""

    def where(self, path: Path) -> str:
        """``file:line`` of the nearest enclosing thing at ``path``, or the override it is from."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return f"override {shortened(self.overridden[path[:end]])!r}"
        for place, override in self.overridden.items():
            if path and place[: len(path)] == path:
                return f"override {shortened(override)!r}"
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return f"{self.name}:{line}" if line else self.name


def text_of(path: FilePath) -> str:
    """The text of a file that may be a recipe, a regime or a claim.

    Raises:
        OSError: it cannot be read, or is no plain file of at most `MAX_BYTES`.
        ValueError: it is not UTF-8.
    """
    return utf8(plain_bytes(path, MAX_BYTES))


def parse(text: str, name: str) -> Document:
    """Parse one YAML document; raises ``RecipeError`` with every fault of form found."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise RecipeError([Fault(f"larger than {MAX_BYTES:,} bytes", name)])
    try:
        root = _yaml()().compose(text.removeprefix("\ufeff"))
    except _TooMuch as error:
        raise RecipeError([Fault(error.what, f"{name}:{error.line}", error.hint)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        what = (error.problem or error.context or "not YAML").splitlines()[0]
        raise RecipeError([Fault(f"not valid YAML: {what}", f"{name}{line}")]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        what = (str(error).splitlines() or ["not readable"])[0]
        raise RecipeError([Fault(f"not valid YAML: {what}", name)]) from None
    reader = _Reader(name)
    value = reader.plain(root, ()) if root is not None else None
    if reader.faults:
        raise RecipeError(reader.faults)
    return Document(name, text, value, reader.lines)


class _TooMuch(Exception):
    """A text that is refused while it is parsed."""

    def __init__(self, what: str, line: int, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.line, self.hint = what, line, hint


@cache
def _yaml() -> Any:
    """What makes a parser that stops at depth and number; the library is imported when asked."""
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer

    class Bounded(Composer):  # type: ignore[misc]
        """A composer that goes only so deep, so that neither its own recursion nor the scanner,
        which takes the square of the depth, comes to an end first."""

        nodes = deep = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.warn_double_anchors = False
            self.nodes, self.deep = self.nodes + 1, self.deep + 1
            line = self.parser.peek_event().start_mark.line + 1
            if self.deep > MAX_DEPTH + 1:
                raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels", line)
            if self.nodes > MAX_NODES:
                raise _TooMuch(f"more than {MAX_NODES:,} values", line, "make several recipes")
            node = super().compose_node(parent, index)
            self.deep -= 1
            return node

    def made() -> Any:
        parser = YAML(typ="safe", pure=True)
        parser.Composer = Bounded
        return parser

    return made


class _Reader:
    """Walks the node graph once, keeping lines and faults."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}
        self.faults: list[Fault] = []
        self.seen: set[int] = set()

    def fault(self, node: Any, what: str, hint: str = "") -> None:
        self.faults.append(Fault(what, f"{self.name}:{node.start_mark.line + 1}", hint))

    def plain(self, node: Any, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self.seen:
            self.fault(node, "aliases (*name) are not allowed", "write the value out")
            return None
        self.seen.add(id(node))
        kind = type(node).__name__
        if kind != "ScalarNode" and node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            self.fault(node, f"tag {_shown(node.tag)} is not allowed")
        if kind == "MappingNode":
            return self._mapping(node, path)
        if kind == "SequenceNode":
            return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if type(key_node).__name__ != "ScalarNode":
                self.fault(key_node, "keys are plain words")
                continue
            if not str(key_node.tag).startswith(_TAG):
                self.fault(key_node, f"tag {_shown(key_node.tag)} is not allowed")
            if len(key) > MAX_KEY or _CONTROL.search(key):
                long = f"a key of {len(key):,} characters"
                self.fault(key_node, long if len(key) > MAX_KEY else "a control character in a key")
                continue
            inner = (*path, key)
            if key in result:
                first = self.lines[inner]
                self.fault(key_node, f"duplicate key {key!r}", f"first given in line {first}")
                continue
            self.lines[inner] = key_node.start_mark.line + 1
            result[key] = self.plain(value_node, inner)
        return result

    def _scalar(self, node: Any) -> Any:
        text = node.value
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        if kind in ("int", "float") and len(text) > MAX_DIGITS:
            self.fault(node, f"a number of {len(text):,} characters")
            return None
        if _CONTROL.search(text):
            self.fault(node, "a control character, or half a character", "take it out")
            return None
        try:
            if kind == "null":
                return None
            if kind == "bool" and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if kind == "bool":
                self.fault(node, f"{text!r} is not true or false")
                return None
            if kind == "int":
                return int(text.replace("_", ""), 0 if text.startswith(("0x", "0o")) else 10)
            if kind == "float":
                plain = text.replace("_", "").lower()
                return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self.fault(node, f"{text!r} is not a number")
            return None
        if not tag.startswith(_TAG) or kind not in ("str", "timestamp"):
            self.fault(node, f"tag {_shown(tag)} is not allowed")
        return text


def _shown(tag: Any) -> str:
    """A tag as it is written."""
    text = str(tag)
    return f"!!{text.removeprefix(_TAG)}" if text.startswith(_TAG) else text
