"""Adapter-based modular transfer across languages: recipes, regimes, plans, stores, reports.

The public names are listed in ``__all__`` and imported on first use, so that importing the package
(and every reading verb of the command line) stays cheap and never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Recipe": "adapterxlt.core.recipe",
    "load_recipe": "adapterxlt.core.recipe",
    "Regime": "adapterxlt.core.regimes",
    "Phase": "adapterxlt.core.regimes",
    "Plan": "adapterxlt.core.plan",
    "Stage": "adapterxlt.core.plan",
    "Store": "adapterxlt.store.store",
    "Study": "adapterxlt.run.study",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'adapterxlt' has no attribute {name!r}")
