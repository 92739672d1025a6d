"""Seeded mutations of bytes, of texts and of values, and a watch over what is done with them.

The same seed gives the same cases, so that a case that fails can be run alone.
"""

from __future__ import annotations

import copy
import random
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from adapterxlt.core.errors import AdapterXLTError, RecipeError

#: Seconds that a case may take, on a machine that does other things besides.
PATIENCE = 20
#: Bytes by which the process may grow over all cases of a test.
GROWTH = 400 << 20

BYTES = [
    *(b"\0", b"\n", b"\r", b"\r\n", b"\t", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"#"),
    *(b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\x1b[2J", b"\x9b31m"),
    *(b"\xe2\x80\xae", b"\\ud800", b"\\u0000", b"NaN", b"Infinity", b"-1", b"1e999", b"null"),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"x" * 70_000, b"\n" * 3000, b"\t" * 300),
    *(b"B-PER", b"I-LOC", b"O", b"1-2", b"1.1", b"_", b"true", b"{}", b"[]", b'""', b"0"),
]
TEXTS = [
    *("", "x", "all", "auto", "lab", "hub", "grid", "source", "target", "last", "null", "none"),
    *("\x1b[31mred", "\u202etxt", "\u2028", "a\nb", "é", "😀", "\ufeff", "\\ud800", "x" * 600),
    *("../../etc/passwd", "/dev/zero", "/dev/stdin", "C:\\x", "~/x", "no.yaml", "-", "--help"),
    *("hub:a/b@main", "peft:a/b", "./x", "{language}", "{split}", "%s", "${HOME}", "<script>"),
    *("zero-shot", "joint", "multi-stage", "seq_bn", "lora", "mad-x-2", "fi", "en", "zz", "qaa"),
]
NUMBERS = [
    *(0, 1, -1, 2, 3, 31, 2**31 - 1, 2**31, 2**63, -(2**70), 10**39, 0.0, -0.5, 1e-300, 1e300),
    *(0.5, 1.0, 1.5, 100, 4097),
]
STRUCTURES: list[Any] = [
    *([], {}, [[]], {"": ""}, [None], {"a": {"b": {"c": {"d": 1}}}}, ["x"] * 50, [1, 1], [{}]),
    *({"adapter": "auto"}, {"method": "lora"}, {"temperature": 2.0}, {"task": 1, "x": 2}),
    *({"name": "x", "phases": []}, [{"name": "p", "languages": ["source"]}], {"steps": 1}),
]


def nasty(draw: random.Random) -> Any:
    """A value that nobody means."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(TEXTS)
    if kind < 5:
        return draw.choice(NUMBERS)
    if kind < 7:
        return copy.deepcopy(draw.choice(STRUCTURES))
    return draw.choice([None, True, False])


def mutated_bytes(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to five changes."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice([1, 1, 1, 2, 3, 5])):
        at = draw.randrange(len(data) + 1)
        span = at + min(draw.choice([1, 2, 4, 10, 50]), len(data) - at)
        match draw.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at:span]
            case 2:
                data[at:at] = data[at:span]
            case 3:
                data[at:at] = draw.choice(BYTES)
            case 4:
                data[at:span] = draw.choice(BYTES)
            case 5:
                del data[at:]
            case 6:
                other = draw.choice(seeds)
                begin = draw.randrange(len(other) + 1)
                data[at:span] = other[begin : begin + draw.choice([5, 40, 400])]
            case 7:
                words = [m.span() for m in re.finditer(rb"[\w.-]+", bytes(data))]
                if len(words) > 1:
                    (a, b), (c, d) = sorted(draw.sample(words, 2))
                    data[a:d] = data[c:d] + data[b:c] + data[a:b]
            case _:
                data[at:at] = data[at:span] * draw.choice([2, 20, 200])
    return bytes(data)


def mutated_value(draw: random.Random, value: Any, others: Sequence[Any]) -> Any:
    """A value with one to four of its parts changed, taken out, doubled, or from another one."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 2, 4])):
        places = list(_places(value))
        if not places:
            return nasty(draw)
        holder, key = draw.choice(places)
        match draw.randrange(6):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = nasty(draw)
            case 3:
                elsewhere = list(_places(draw.choice(others)))
                other, at = draw.choice(elsewhere)
                holder[key] = copy.deepcopy(other[at])
            case 4 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 4:
                holder[f"{draw.choice(['x', 'name', 'tasks', 'budget', 'adopt'])}"] = holder[key]
            case _:
                holder[key] = [holder[key]] if draw.random() < 0.5 else {"a": holder[key]}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or mapping in a value with each of its places."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def mutated_text(draw: random.Random, seeds: Sequence[str]) -> str:
    """Lines moved, doubled, taken out or shifted, and words swapped for words of other texts."""
    lines = draw.choice(seeds).split("\n")
    for _ in range(draw.choice([1, 2, 4])):
        at = draw.randrange(len(lines))
        match draw.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[draw.randrange(len(lines))])
            case 2:
                lines[at] = " " * draw.choice([1, 2, 7]) + lines[at]
            case 3:
                word = draw.choice(re.findall(r"[\w./-]+", draw.choice(seeds)))
                lines[at] = re.sub(r"[\w./-]+", word, lines[at], count=1)
            case 4:
                other = draw.choice(seeds).split("\n")
                lines[at : at + 1] = other[draw.randrange(len(other)) :][: draw.choice([1, 3, 9])]
            case _:
                # As it would stand in a file: half a character has no bytes.
                text = str(nasty(draw)).encode("utf-8", "replace").decode()
                lines[at] = lines[at].rpartition(":")[0] + ": " + text
        if not lines:
            break
    return "\n".join(lines)


class Watch:
    """Runs cases; each must be fine or end in an error of ours, soon and in readable lines."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0
        self.begun = _memory()

    def case(self, name: str, run: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            with soon(PATIENCE):
                run()
            self.outcomes["valid"] += 1
        except AdapterXLTError as error:
            self.outcomes[type(error).__name__] += 1
            readable(str(error), error)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        self.longest = max(self.longest, time.monotonic() - started)

    def over(self, many: int) -> None:
        """All cases were run, not all of one outcome, and in bounded memory."""
        print(f"\n{sum(self.outcomes.values())} cases, {self.longest:.1f} s the longest:", end=" ")
        print(", ".join(f"{n} {what}" for what, n in self.outcomes.most_common()))
        assert sum(self.outcomes.values()) == many
        assert self.outcomes["valid"] and self.outcomes.keys() - {"valid"}
        assert _memory() - self.begun < GROWTH


def readable(text: str, error: AdapterXLTError) -> None:
    """One line, or one a fault of a recipe, of what can be printed, and none without an end."""
    lines = text.split("\n")
    assert len(lines) == 1 or isinstance(error, RecipeError), text
    for line in lines:
        assert line.strip() and line.isprintable() and len(line) < 2000, repr(line[:3000])


@contextmanager
def soon(seconds: float) -> Iterator[None]:
    """What takes longer is interrupted and fails."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def numbered(count: int, of: str) -> Iterator[tuple[str, random.Random]]:
    """Names of cases, each with a generator of its own."""
    for n in range(count):
        yield f"{of} {n}", random.Random(f"{of} {n}")


Files = Mapping[str, bytes]
