"""A study as `report.results.collect` gives it: six regimes, six targets, two shots, 2 x 2 runs."""

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapterxlt.core.claims import builtin_claims

Row = dict[str, Any]
Study = dict[str, Any]

REGIMES = {
    "zero-shot": 0.00,
    "target-only": -0.12,
    "sequential": 0.05,
    "joint": 0.08,
    "joint-multilingual": 0.07,
    "oracle-stop": 0.10,
}
TARGETS = {
    "lab-ava": ("high", 0.80),
    "lab-bel": ("high", 0.74),
    "lab-cid": ("mid", 0.62),
    "lab-dor": ("mid", 0.58),
    "lab-eno": ("low", 0.37),
    "lab-fir": ("unseen", 0.29),
}


def key_of(*parts: object) -> str:
    """A 64-digit key, the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def one_row(**changes: Any) -> Row:
    """A result row with every column, changed where the test says."""
    row: Row = {
        "study": "six-regimes",
        "task": "tagging",
        "metric": "accuracy",
        "primary": True,
        "regime": "joint",
        "source": "lab-src",
        "target": "lab-ava",
        "role": "target",
        "resource_class": "high",
        "distance": 1,
        "shots": 10,
        "draw": 0,
        "seed": 0,
        "score": 0.5,
        "n": 500,
        "baseline": 0.21,
        "upper_bound": False,
        "lab": True,
        "parameters": 15_251,
        "stored_bytes": 196_268,
        "steps": 150,
        "examples": 4_800,
        "tokens": 41_653,
        "flops": 4.65e10,
        "seconds": 2.25,
        "peak_memory": 612_000_000,
        "rows_cut": 0,
    }
    row |= changes
    named = (row["task"], row["regime"], row["shots"], row["draw"], row["seed"])
    row.setdefault("evaluate_key", key_of(*named, row["target"]))
    row.setdefault("train_key", key_of(*named))
    return row


def make_rows(
    targets: dict[str, tuple[str, float]] = TARGETS,
    shots: Sequence[int] = (10, 100),
    draws: Sequence[int] = (0, 1),
    seeds: Sequence[int] = (0, 1),
    **changes: Any,
) -> list[Row]:
    """Rows of all regimes with graded scores and noise, the source's own test set among them."""
    noise = random.Random(7)
    rows = []
    for regime, gain in REGIMES.items():
        grid = [0] if regime == "zero-shot" else shots
        languages = {**targets, "lab-src": ("source", 0.93)}
        for number in grid:
            for draw in [None] if regime == "zero-shot" else draws:
                for seed in seeds:
                    for target, (resource_class, level) in languages.items():
                        lift = gain * (1 - level) * (1 + number / 60)
                        score = level + lift + noise.gauss(0, 0.012)
                        row = one_row(
                            regime=regime,
                            target=target,
                            role="source" if target == "lab-src" else "target",
                            resource_class=resource_class,
                            shots=number,
                            draw=draw,
                            seed=seed,
                            score=round(min(max(score, 0.0), 1.0), 4),
                            upper_bound=regime == "oracle-stop",
                        )
                        rows.append(row | changes)
    return rows


def make_study(rows: Sequence[Row], **changes: Any) -> Study:
    """The study that the rows belong to: a stage for every training and every evaluation."""
    stages = [
        _stage("adopt", "backbone lab-tiny", key_of("adopt"), 120, "cached", 0),
        _stage("pretrain", "language adapter lab-src", key_of("pre"), 120, "cached", 300),
    ]
    stages[1]["inputs"] = [stages[0]["key"]]
    trained = {row["evaluate_key"]: row["train_key"] for row in rows}
    for kind, column in (("train", "train_key"), ("evaluate", "evaluate_key")):
        counts: dict[str, int] = {}
        for row in rows:
            counts[row[column]] = counts.get(row[column], 0) + 1
        labels = {row[column]: f"{row['regime']} {row['shots']} {row['draw']}" for row in rows}
        for place, (key, cells) in enumerate(sorted(counts.items())):
            state = "cached" if place % 5 == 0 else "trained"
            steps = 150 if kind == "train" else 0
            stages.append(_stage(kind, labels[key], key, cells, state, steps))
            stages[-1]["group"] = (
                f"for {labels[key].partition(' ')[0]}" if kind == "train" else kind
            )
            stages[-1]["inputs"] = [key_of("pre")] if kind == "train" else [trained[key]]
    study: Study = {
        "name": "six-regimes",
        "question": "Does joint training with a few target shots beat zero-shot transfer?",
        "recipe": "study: six-regimes\nregimes: [zero-shot, joint]  # the ones of the paper\n",
        "regimes": [
            {"name": name, "upper_bound": name == "oracle-stop", "phases": [f"train for {name}"]}
            for name in REGIMES
        ],
        "stages": stages,
        "missing": [],
        "versions": {"adapterxlt": "0.1.0", "torch": "2.13.0"},
        "data": [
            {
                "task": "tagging",
                "language": "lab-ava",
                "split": "test",
                "rows": 500,
                "licence": "CC BY-SA 4.0",
                "digest": key_of("data"),
            }
        ],
        "backbone": {"name": "lab-tiny", "digest": key_of("backbone"), "parameters": 412_000},
        "lab": True,
        "precision": "float32",
        "claims": [
            claim.model_dump(mode="json")
            for claim in builtin_claims().values()
            if claim.applies(REGIMES)
        ],
    }
    return study | changes


def _stage(kind: str, label: str, key: str, cells: int, state: str, steps: int) -> dict[str, Any]:
    return {
        "key": key,
        "kind": kind,
        "label": label,
        "group": kind,
        "inputs": [],
        "state": state,
        "cells": cells,
        "seconds": 0.4 + steps * 0.02,
        "steps": steps or None,
        "tokens": steps * 512 or None,
        "parameters": 18_432 if steps else None,
        "flops": steps * 3.1e9 or None,
    }


@pytest.fixture
def rows() -> list[Row]:
    return make_rows()


@pytest.fixture
def study(rows: list[Row]) -> Study:
    return make_study(rows)


@pytest.fixture(scope="session")
def row_of() -> Callable[..., Row]:
    return one_row


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., list[Row]]:
    return make_rows


@pytest.fixture(scope="session")
def study_of() -> Callable[..., Study]:
    return make_study
