"""The model card: what it says, and that nothing in a name can say more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

from adapterxlt.report.card import card, licence_of
from adapterxlt.report.summaries import interval_of

Row = dict[str, Any]

ABOUT: dict[str, Any] = {
    "role": "composition",
    "study": "six-regimes",
    "source": "en",
    "cell": {
        "task": "tagging",
        "regime": "joint",
        "target": "fi",
        "shots": 10,
        "draw": 0,
        "seed": 0,
    },
    "upper_bound": False,
    "lab": False,
    "language": "fi",
    "languages": ["fi"],
    "libraries": ("peft", "adapters"),
    "pieces": [
        {"folder": "language", "what": "language adapter: fi", "method": "seq_bn_inv"}
        | {"library": "adapters"},
        {"folder": "task", "what": "task adapter with its head", "method": "peft_lora, r 8"}
        | {"library": "peft"},
    ],
    "below": [],
    "task": {"kind": "tagging", "columns": ["tokens"], "options": {}, "labels": ["NOUN", "X"]},
    "backbone": {"name": "xlm-roberta-base", "digest": "0" * 64},
    "max_length": 128,
    "precision": "fp32",
    "shortcuts": [],
    "script": "print('load')\n",
    "data": [
        {"name": "tagging", "languages": ["en", "fi"], "splits": ["test", "train"]}
        | {"licence": "CC BY-SA 4.0"},
        {"name": "plain text", "languages": ["fi"], "splits": ["text"]}
        | {"licence": "not recorded"},
    ],
    "phases": ["joint: continue on source + target, shots grid, wear own"],
    "keys": {"evaluate": "a" * 64, "task": "b" * 64},
    "versions": {"adapters": "1.3.0", "peft": "0.21.2", "transformers": "4.57.6"},
    "recipe": "name: six-regimes\n",
    "overrides": [],
}


@pytest.fixture
def runs(row_of: Callable[..., Row]) -> list[Row]:
    """Four runs of one cell."""
    scores = {(0, 0): 0.50, (0, 1): 0.54, (1, 0): 0.58, (1, 1): 0.62}
    return [
        row_of(target="fi", regime="joint", draw=draw, seed=seed, score=score, lab=False)
        for (draw, seed), score in scores.items()
    ]


def front_of(text: str) -> tuple[dict[str, Any], str]:
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return YAML(typ="safe", pure=True).load(front), body


def test_front_matter(runs: list[Row]) -> None:
    front, _ = front_of(card(ABOUT, runs))
    assert front == {
        "base_model": "xlm-roberta-base",
        "language": ["fi"],
        "library_name": "peft",
        "license": "other",
        "tags": ["adapterxlt", "cross-lingual-transfer", "peft", "adapters", "tagging"],
    }


def test_the_cell_s_score_stands_beside_the_interval_over_runs(runs: list[Row]) -> None:
    text = card(ABOUT, runs)
    found = interval_of([0.50, 0.54, 0.58, 0.62])
    assert found is not None
    low, high = f"{100 * found.low:.1f}", f"{100 * found.high:.1f}"
    assert f"| accuracy | 50.0 | 56.0 [{low}, {high}] | 4 | 21.0 | 500 |" in text
    later = {**ABOUT, "cell": {**ABOUT["cell"], "draw": 1, "seed": 1}}
    assert f"| accuracy | 62.0 | 56.0 [{low}, {high}] | 4 | 21.0 | 500 |" in card(later, runs)
    alone = card(ABOUT, runs[:1])
    assert "| accuracy | 50.0 | 50.0 | 1 | 21.0 | 500 |" in alone
    assert "no interval can be given" in alone and "no interval" not in text


def test_it_says_how_to_load_it_what_is_in_it_and_where_it_is_from(runs: list[Row]) -> None:
    text = card(ABOUT, runs)
    assert "```python\nprint('load')\n```" in text
    assert "| `language` | language adapter: fi | seq\\_bn\\_inv | `adapters` |" in text
    assert "transformers 4.57.6, peft 0.21.2, adapters 1.3.0" in text
    assert "| tagging | en, fi | test, train | CC BY-SA 4.0 |" in text
    assert "| plain text | fi | text | not recorded |" in text
    assert f"| evaluate | `{'a' * 64}` |" in text
    assert "```yaml\nname: six-regimes\n```" in text
    assert "`NOUN`, `X`" in text
    assert "laborator" not in text and "upper bound" not in text


def test_the_laboratory_and_upper_bounds_are_marked(runs: list[Row]) -> None:
    about = {**ABOUT, "lab": True, "languages": [], "upper_bound": True}
    about["backbone"] = {"name": None, "digest": ""}
    front, body = front_of(card(about, runs))
    assert "laboratory" in front["tags"]
    assert not {"language", "base_model"} & front.keys()
    assert "# tagging in fi: joint (laboratory)" in body
    assert "its scores say nothing of one" in body and "`backbone/`" in body
    assert "accuracy (upper bound)" in body and "not a result of the protocol" in body


def test_a_part_says_what_it_lacks(runs: list[Row]) -> None:
    about = {**ABOUT, "role": "task", "below": ["the language adapter fi"]}
    text = card(about, runs)
    assert "on top of what is not in this folder: the language adapter fi." in text
    assert "outputs that were scored" not in text
    assert "outputs that were scored" in card({**about, "below": []}, runs)
    language = card({**ABOUT, "role": "language", "task": None}, runs)
    assert "# Language adapter: fi" in language and "scored wearing it" in language
    assert "Labels" not in language


NASTY = [
    'x"\n---\nlicense: mit\n---\n# owned',
    "``` `a` ```` <script>alert(1)</script>",
    "a | b\n\n| c | [link](http://x) ![i](j) *b* _u_ ~~s~~ #h $m$",
    "</details><img src=x onerror=y>",
    "\u2028\x00\x1b[31m\u202ered",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_no_name_makes_markup(nasty: str, runs: list[Row]) -> None:
    about = {
        **ABOUT,
        "study": nasty,
        "source": nasty,
        "cell": {**ABOUT["cell"], "task": nasty, "regime": nasty, "target": nasty},
        "role": "task",
        "language": nasty,
        "languages": [nasty],
        "pieces": [dict.fromkeys(("folder", "what", "method"), nasty) | {"library": "peft"}],
        "below": [nasty],
        "task": {**ABOUT["task"], "columns": [nasty], "labels": [nasty, "b"]},
        "backbone": {"name": nasty, "digest": ""},
        "precision": nasty,
        "data": [{"name": nasty, "languages": [nasty], "splits": [nasty], "licence": nasty}],
        "phases": [nasty],
        "keys": {nasty: "a" * 64},
        "versions": {"transformers": "1", nasty: nasty},
        "recipe": nasty,
        "script": nasty,
        "overrides": [nasty],
    }
    rows = [{**row, "task": nasty, "target": nasty, "metric": nasty} for row in runs]
    for given in (about, {**about, "role": "language"}):
        front, body = front_of(card(given, rows))
        assert front["language"] == [nasty] and front["base_model"] == nasty
        assert front["license"] == "other"
        outside = []
        lines, fence = body.split("\n"), None
        for line in lines:
            opened = re.fullmatch(r"(`{3,})\w*", line)
            if fence is None and opened and len(opened[1]) >= 3:
                fence = opened[1]
            elif fence is not None and line == fence:
                fence = None
            elif fence is None:
                outside.append(line)
        assert fence is None
        text = "\n".join(outside)
        assert set(re.findall(r"<[^>]*>", text)) == {
            *("<details>", "<summary>", "</summary>", "</details>")
        }
        bare = re.sub(r"\\[\\`*_\[\]|~#$]", "", text)
        plain = re.sub(r"`[\w./+=-]+`|\*\*This is from.*\*\*", "", bare)
        assert not set("[*_~$`") & set(re.sub(r"\[95 % interval\]|\[\d[\d., ]*\]", "", plain))
        assert [line for line in outside if line.startswith("#")] == [
            line for line in outside if re.match(r"# |## (How|Scores|Data)", line)
        ]
        tables = [line for line in bare.split("\n") if line.startswith("|")]
        assert {line.count("|") for line in tables} == {3, 5, 7}
        assert all(c.isprintable() for line in outside for c in line)
        assert "license: mit" not in html.unescape(text).split("\n")


@pytest.mark.parametrize(
    ("licences", "wanted"),
    [
        (["CC BY-SA 4.0", "CC BY-SA 4.0"], "cc-by-sa-4.0"),
        (["CC BY-SA 4.0", "CC BY 4.0"], "other"),
        (["CC BY-SA 4.0", "not recorded"], "other"),
        (["by treebank"], "other"),
        (["not recorded"], "unknown"),
        ([], "unknown"),
        (["Apache 2.0"], "apache-2.0"),
    ],
)
def test_licence(licences: list[str], wanted: str) -> None:
    assert licence_of([{"licence": licence} for licence in licences]) == wanted
