"""Mewsli-X as its makers distribute it, brought into the rows of a ranking task.

Its files have one JSON object a line of three shapes: pairs of a mention and its entity (to train
on), mentions in a context (to search with), entities (to be found). Texts are made as the baseline
of XTREME-R makes them. Called by `corpora.formats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import DataError

Row = dict[str, Any]
#: Signs around the mention, and what stands for them elsewhere in its sentence.
_LEFT, _RIGHT, _OTHERWISE = "{", "}", {"{": "(", "}": ")"}


def rows_of(path: Path, rows: list[Row]) -> list[Row]:
    """Rows of a ranking task: `query` and `answer`; `id`, `query` and `relevant`; `id` and `text`.

    Raises:
        DataError: a line has none of the three shapes.
    """
    found: list[Row] = []
    for row in rows:
        where = f"{path}:{row['#']}"
        try:
            found += ({**made, "#": row["#"]} for made in _row(row))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            what = f"neither a mention nor an entity of Mewsli-X: {error!r}"
            raise DataError(what, where=where) from None
    return found


def _row(row: Mapping[str, Any]) -> Iterator[Row]:
    if "contextual_mention" in row:
        pair = row["contextual_mention"]
        query = mention_text(pair["context"], pair["mention"])
        yield {"query": query, "answer": entity_text(row["entity"])}
    elif "description" in row:
        yield {"id": row["entity_id"].strip(), "text": entity_text(row)}
    else:
        for mention in row["mentions"] if "mentions" in row else [row["mention"]]:
            relevant = [mention["entity_id"].strip()]
            query = mention_text(row["context"], mention)
            yield {"id": mention["example_id"], "query": query, "relevant": relevant}


def mention_text(context: Mapping[str, Any], mention: Mapping[str, Any]) -> str:
    """The mention, a colon, and its sentence with the mention between braces.

    Where no sentence holds the whole mention, the context stands for the sentence.
    """
    text, span = context["text"], mention["mention_span"]
    begin, end = span["start"], span["end"]
    if text[begin:end] != span["text"]:
        raise ValueError(f"{span['text']!r} is not at {begin} of its context")
    holds = (s for s in context["sentence_spans"] if s["start"] <= begin and end <= s["end"])
    sentence = next(holds, {"start": 0, "end": len(text)})
    left = _plain(text[sentence["start"] : begin])
    right = _plain(text[end : sentence["end"]])
    said = text[begin:end]
    return _spaced(f"{said}: {left} {_LEFT} {said} {_RIGHT} {right}")


def entity_text(entity: Mapping[str, Any]) -> str:
    """The sentences of an entity's description, or all of it where they are not told apart."""
    text, spans = entity["description"], entity.get("sentence_spans") or ()
    return _spaced(" ".join(text[s["start"] : s["end"]] for s in spans) or text)


def _plain(text: str) -> str:
    return re.sub("[{}]", lambda sign: _OTHERWISE[sign.group()], text)


def _spaced(text: str) -> str:
    return " ".join(text.split())
