"""Text of others on a terminal: nothing in it is obeyed, and none of it is lost."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core import errors
from adapterxlt.core.errors import Fault, RecipeError, UsageError
from adapterxlt.core.showing import MOST_TEXT, json_text, shortened, visible

#: Cursor, title, clipboard and colour by escape or by the one-byte forms; turned text; half a sign.
OBEYED = ["\x1b[2J", "\x1b]0;x\x07", "\x1b]52;c;aGk=\x07", "\x9b31m", "\x08\x08", "\r", "\u202e"]
OBEYED += ["\u2066", "\udcff", "\x7f", "\u2028", "\0"]


@pytest.mark.parametrize("bad", OBEYED)
def test_messages_write_out_what_a_terminal_would_obey(bad: str) -> None:
    for error in (
        UsageError(f"what {bad}", where=f"a{bad}b:1", hint=f"do {bad}"),
        RecipeError([Fault(f"what {bad}", f"a{bad}b:1", f"do {bad}")]),
    ):
        text = str(pickle.loads(pickle.dumps(error)))
        assert text.isprintable() and text.count("\\") == 3 * len(
            [c for c in bad if not c.isprintable()]
        )
    assert json_text({bad: bad}).isprintable() and json.loads(json_text({bad: bad})) == {bad: bad}


@given(st.text(), st.sampled_from(["", "\n", "\n\t"]))
def test_what_is_visible_stays_and_the_rest_can_be_told_apart(text: str, keep: str) -> None:
    shown = visible(text, keep)
    assert all(c.isprintable() or c in keep for c in shown)
    if all(c.isprintable() or c in keep for c in text):
        assert shown == text


def test_visible_is_spelt_as_in_python() -> None:
    assert visible("a\x1b[1m\u202e\udcff\U000e0001é字\n", "\n") == (
        "a\\x1b[1m\\u202e\\udcff\\U000e0001é字\n"
    )


def test_long_parts_keep_their_ends() -> None:
    long = "begin" + "x" * 10**6 + "end"
    text = str(UsageError(long, where="f:1", hint=long))
    assert len(text) < 2 * MOST_TEXT + 20 and text.startswith("f:1: begin") and text.endswith("end")
    assert shortened("abc", 3) == "abc" and shortened("abcdefg", 5) == "ab…fg"


def test_of_very_many_faults_the_rest_is_counted() -> None:
    error = RecipeError([Fault(f"fault {n}", f"f:{n}") for n in range(5000)])
    lines = str(error).splitlines()
    assert len(lines) == errors.MOST_FAULTS + 1 and lines[-1] == "and 4,900 faults more"


@given(st.recursive(st.text() | st.integers() | st.none(), lambda v: st.lists(v, max_size=3)))
def test_json_reads_back_and_is_as_people_read_it(value: object) -> None:
    assert json.loads(json_text(value, 1)) == value
    assert json_text({"a": "é字"}) == '{"a": "é字"}'
