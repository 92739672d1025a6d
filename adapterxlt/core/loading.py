"""Reading recipes: line numbers, overrides, regime files, and every fault at once.

Each fault has its line and a suggestion. Reading one touches no data file and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adapterxlt.core import yamlio
from adapterxlt.core.checks import MOST, schema_faults, semantic_faults
from adapterxlt.core.claims import Claim, builtin_claims
from adapterxlt.core.errors import Fault, RecipeError, UsageError, did_you_mean
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Regime
from adapterxlt.core.showing import shortened


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe with the file it came from, so that later faults can name a line."""

    recipe: Recipe
    document: yamlio.Document
    overrides: tuple[str, ...] = ()

    def where(self, *path: str | int) -> str:
        return self.document.where(path)

    @property
    def folder(self) -> FilePath:
        """Paths in the recipe are relative to this."""
        return FilePath(self.document.name).parent

    def resolved_text(self) -> str:
        """The recipe with every default filled in, as YAML that reads back equal."""
        return _text(self.recipe.model_dump(mode="json", exclude_none=False))

    def portable_text(self) -> str:
        """As `resolved_text`, to be read elsewhere: a path from the root is its last name, and what
        is not said is left out."""
        return _text(_portable(self.recipe.model_dump(mode="json", exclude_none=True)))


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_portable(name): _portable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_portable(part) for part in value]
    if isinstance(value, str) and re.match(r"~?/|\\\\|[A-Za-z]:[/\\]", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or value
    return value


def _text(value: Any) -> str:
    """A value as YAML that reads back equal."""
    import io

    from ruamel.yaml import YAML
    from ruamel.yaml.emitter import Emitter
    from ruamel.yaml.representer import SafeRepresenter

    out = io.StringIO()

    class Representer(SafeRepresenter):  # type: ignore[misc]
        """Quotes all text but plain words: the emitter leaves some signs bare that its own reader
        takes for structure (``[?a]``) or for a line break."""

    def text(self: Any, value: str) -> Any:
        style = None if re.fullmatch(r"[A-Za-z0-9][\w./-]*", value) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    class Whole(Emitter):  # type: ignore[misc]
        """Breaks lines between texts alone: within one after a backslash it does not read back."""

        def write_double_quoted(self, text: str, split: bool = True) -> None:
            super().write_double_quoted(text, split=False)

    Representer.add_representer(str, text)
    writer = YAML(typ="safe", pure=True)
    writer.Emitter, writer.Representer = Whole, Representer
    writer.default_flow_style = None
    writer.width = 100
    writer.dump(value, out)
    return out.getvalue()


def load_recipe(path: str | FilePath, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read, override and check a recipe file.

    Args:
        path: a YAML file.
        overrides: ``key=value``, ``key.inner=value`` or ``key+=value``, values in YAML.

    Raises:
        UsageError: the file cannot be read or an override has no ``=``.
        RecipeError: with every fault found.
    """
    path = FilePath(path)
    try:
        text = yamlio.text_of(path)
    except FileNotFoundError:
        hint = "see `adapterxlt ls recipes`"
        raise UsageError("no such recipe", where=str(path), hint=hint) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """As `load_recipe`, from text."""
    document = yamlio.parse(text, name)
    if not isinstance(document.value, dict):
        raise RecipeError([Fault("a recipe is a mapping of fields", name)])
    value = document.value
    for override in overrides:
        value = _override(value, override)
        key = override.partition("=")[0].removesuffix("+").split(".")
        document.overridden[tuple(key)] = override
    value = _read_files(value, document)
    faults: list[Fault] = []
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        faults += schema_faults(error.errors(), document, Recipe)
        faults += _faults_of_the_rest(value, {item["loc"][0] for item in error.errors()}, document)
        raise RecipeError(_in_order(faults)) from None
    faults += islice(semantic_faults(recipe, document), MOST)
    if faults:
        raise RecipeError(_in_order(faults))
    return LoadedRecipe(recipe, document, tuple(overrides))


def _faults_of_the_rest(
    value: dict[str, Any], faulty: set[Any], document: yamlio.Document
) -> list[Fault]:
    """What can be said of a recipe's meaning when some of its fields are not readable."""
    if faulty & {"shots", "classes", "regimes", "datasets"}:
        return []
    try:
        rest = Recipe.model_validate({k: v for k, v in value.items() if k not in faulty})
    except ValidationError:
        return []
    return list(islice(semantic_faults(rest, document), MOST))


def json_schema() -> dict[str, Any]:
    """JSON Schema of recipes, for editors."""
    schema = TypeAdapter(Recipe).json_schema()
    schema["title"] = "adapterxlt recipe"
    return schema


def _override(value: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        what = f"override {shortened(override, 60)!r} has no value"
        raise UsageError(what, hint="write key=value")
    append = key.endswith("+")
    path = key.removesuffix("+").split(".")
    known = len(path) <= yamlio.MAX_DEPTH and len(key) <= yamlio.MAX_KEY and key.isprintable()
    if not known:
        raise UsageError(f"override {shortened(override, 60)!r} is of no field of a recipe")
    item = yamlio.parse(text, f"override {shortened(override)!r}").value
    result = dict(value)
    place = result
    for name in path[:-1]:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, dict) else {}
        place = place[name]
    if append:
        old = place.get(path[-1], _default_list(path))
        if not isinstance(old, list):
            raise UsageError(f"{key.removesuffix('+')} is not a list", hint="use = instead of +=")
        item = old + (item if isinstance(item, list) else [item])
    place[path[-1]] = item
    return result


def _default_list(path: list[str]) -> list[Any]:
    """What a list that the file leaves out has as its default."""
    field = Recipe.model_fields.get(path[0]) if len(path) == 1 else None
    return list(field.default) if field is not None and isinstance(field.default, tuple) else []


def _read_files(value: dict[str, Any], document: yamlio.Document) -> dict[str, Any]:
    """Entries of `regimes` and `claims` that are paths are replaced by what the file says."""
    faults: list[Fault] = []
    read: dict[str, list[Any]] = {}
    for field, model in (("regimes", Regime), ("claims", Claim)):
        entries = value.get(field)
        if not isinstance(entries, list):
            continue
        read[field] = list(entries)
        for i, entry in enumerate(entries):
            if not isinstance(entry, str) or not entry.endswith((".yaml", ".yml")):
                continue
            path = FilePath(document.name).parent / entry
            try:
                inner = yamlio.parse(yamlio.text_of(path), str(path))
                model.model_validate(inner.value)
                read[field][i] = inner.value
            except RecipeError as error:
                faults += error.faults
            except ValidationError as error:
                faults += schema_faults(error.errors(), inner, model)
            except (OSError, ValueError) as error:
                where = document.where((field, i))
                what = f"{field.removesuffix('s')} file {entry!r} cannot be read ({error})"
                faults.append(Fault(what, where))
    if faults:
        raise RecipeError(_in_order(faults))
    return {**value, **read}


def read_claim(name: str) -> Claim:
    """A shipped claim by name, or one of a file (*.yaml).

    Raises:
        UsageError: nothing is called so, or the file cannot be read.
        RecipeError: the file is no claim; with every fault found.
    """
    if not name.endswith((".yaml", ".yml")):
        if name not in builtin_claims():
            raise UsageError(f"no claim {name!r}", hint=did_you_mean(name, builtin_claims()))
        return builtin_claims()[name]
    try:
        document = yamlio.parse(yamlio.text_of(FilePath(name)), name)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {error}", where=name) from None
    try:
        return Claim.model_validate(document.value)
    except ValidationError as error:
        raise RecipeError(_in_order(schema_faults(error.errors(), document, Claim))) from None


def _in_order(faults: Iterable[Fault]) -> list[Fault]:
    def line(fault: Fault) -> int:
        tail = fault.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    return sorted(dict.fromkeys(faults), key=line)
