"""The specification of an adapter as recipes give it: a method and its parameters, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, model_validator

from adapterxlt.core.counts import layers_of
from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.core.forms import FieldFault, Method, Parameter, Resolved
from adapterxlt.core.methods import METHODS
from adapterxlt.core.specs import Closed, Shape


def _to_schema(schema: dict[str, Any]) -> None:
    """Every parameter of every method, for editors; which go together is a matter of `faults`."""
    schema["properties"]["method"]["enum"] = list(METHODS)
    schema["additionalProperties"] = False
    uses: dict[str, list[tuple[str, Parameter]]] = {}
    for row in METHODS.values():
        for name, parameter in row.parameters.items():
            uses.setdefault(name, []).append((row.name, parameter))
    for name, found in uses.items():
        kinds: list[dict[str, Any]] = []
        for _, parameter in found:
            if parameter.schema() not in kinds:
                kinds.append(parameter.schema())
        docs = "; ".join(dict.fromkeys(parameter.doc for _, parameter in found))
        users = ", ".join(method for method, _ in found)
        schema["properties"][name] = {
            "anyOf": [*kinds, {"type": "null"}],
            "default": None,
            "description": f"{docs[:1].upper()}{docs[1:]}. Of {users}.",
        }


class AdapterSpec(Closed):
    """The modules of one adapter: a method and its parameters. What is left out is the method's.

    Parameters are fields beside these; `faults` says which are wrong, where pydantic does not.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_to_schema)

    method: str = "seq_bn"
    """One of `adapterxlt ls methods`."""
    leave_out: tuple[int, ...] | None = None
    """Layers without an adapter, counted from 0, or from the end: -1 for MAD-X 2.0."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Lists as tuples; a parameter that is ``null`` counts as left out."""
        if not isinstance(value, dict):
            return value
        own = cls.model_fields.keys()
        kept = {k: v for k, v in value.items() if k in own or v is not None}
        if isinstance(kept.get("leave_out"), list):
            kept["leave_out"] = tuple(kept["leave_out"])
        return kept

    @property
    def row(self) -> Method:
        return METHODS[self.method]

    @property
    def given(self) -> dict[str, Any]:
        """The method's own parameters, as given."""
        return dict(self.__pydantic_extra__ or {})

    def describe(self) -> str:
        """What was given, on one line."""
        fields = {
            name: getattr(self, name) for name in sorted(self.model_fields_set & {"leave_out"})
        }
        given = [f"{name} {value}" for name, value in {**self.given, **fields}.items()]
        return ", ".join([*([self.method] if "method" in self.model_fields_set else []), *given])

    def over(self, base: AdapterSpec) -> AdapterSpec:
        """This one's fields over those of ``base``; of another method, parameters are dropped."""
        mine = {name: getattr(self, name) for name in self.model_fields_set}
        mine.update(self.given)
        method = mine.get("method", base.method)
        theirs: dict[str, Any] = {"method": method}
        row = METHODS.get(method)
        if base.leave_out is not None and (row is None or row.leaves_out):
            theirs["leave_out"] = base.leave_out
        if method == base.method:
            theirs.update(base.given)
        if mine.get("leave_out", ()) is None:
            del mine["leave_out"]
        return AdapterSpec(**{**theirs, **mine})

    def faults(self, shape: Shape | None = None) -> list[FieldFault]:
        """What is wrong: field, what, hint. With a backbone's sizes, also what does not fit them.

        A field that is wrong as such is not checked against the sizes.
        """
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            return [("method", f"unknown method {self.method!r}", hint)]
        row, found = self.row, []
        for name, value in self.given.items():
            parameter = row.parameters.get(name)
            if parameter is None:
                others = [r.name for r in METHODS.values() if name in r.parameters]
                hint = did_you_mean(name, [*row.parameters, *(["leave_out"] * row.leaves_out)])
                if others and not hint.startswith("did you"):
                    some = ", ".join(others[:3]) + (" and others" if len(others) > 3 else "")
                    hint = "; ".join(part for part in (f"{some} have it", hint) if part)
                found.append((name, f"{self.method} has no parameter {name!r}", hint))
                continue
            wrong = parameter.fault(value)
            if wrong is not None:
                found.append((name, f"{name}: {wrong[0]}", wrong[1]))
        if self.leave_out and not row.leaves_out:
            found.append(("leave_out", f"{self.method} cannot leave layers out", "take it out"))
        if shape is not None and not found:
            found += self._misfits(shape)
        return found

    def _misfits(self, shape: Shape) -> Iterable[FieldFault]:
        last = shape.layers - 1
        odd = [i for i in self.leave_out or () if not -shape.layers <= i <= last]
        if odd or not layers_of({"leave_out": self.leave_out}, shape.layers):
            what = f"leave_out {list(self.leave_out or ())} of the layers 0 to {last}"
            yield "leave_out", what, "leave at least one of them, and name no other"
        elif self.row.misfits is not None:
            yield from self.row.misfits(self.resolved(shape.layers), shape)

    def resolved(self, layers: int | None = None) -> dict[str, Any]:
        """The complete specification as it enters a key: defaults filled in.

        With ``layers``, numbers of layers that count from the end become those from the start.

        Raises:
            UsageError: the specification has a fault; recipes are checked before.
        """
        for _, what, hint in self.faults():
            raise UsageError(what, hint=hint)
        filled: dict[str, Any] = {"method": self.method}
        for name, parameter in self.row.parameters.items():
            value = self.given.get(name, parameter.default)
            filled[name] = float(value) if parameter.type is float else value
        out = {i + (layers or 0) if i < 0 else i for i in self.leave_out or ()}
        filled["leave_out"] = sorted(out) or None
        return filled


def adapter_parameters(spec: Resolved, shape: Shape) -> int:
    """Trainable parameters of an adapter, from `AdapterSpec.resolved`.

    Closed forms of the modules of `adapters` 1.3.0 and `peft` 0.21.2; a test compares them with
    the real modules.
    """
    return METHODS[spec["method"]].count(spec, shape)
