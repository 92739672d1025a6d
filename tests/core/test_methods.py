"""Adapter specifications: faults, defaults, inheritance, and what enters keys."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from adapterxlt.core.adapters import AdapterSpec, adapter_parameters
from adapterxlt.core.errors import UsageError
from adapterxlt.core.methods import METHODS, clash
from adapterxlt.core.specs import Shape

SHAPE = Shape(2, 32, 64, 1600)


@pytest.mark.parametrize(
    ("fields", "resolved"),
    [
        ({}, {"method": "seq_bn", "reduction_factor": 16.0, "non_linearity": "relu"}),
        (
            {"method": "seq_bn_inv", "reduction_factor": 4},
            {"method": "seq_bn_inv", "reduction_factor": 4.0, "non_linearity": "relu"},
        ),
        (
            {"method": "double_seq_bn", "non_linearity": "gelu"},
            {"method": "double_seq_bn", "reduction_factor": 16.0, "non_linearity": "gelu"},
        ),
        (
            {"method": "par_bn", "leave_out": [5, 1, 5]},
            {
                "method": "par_bn",
                "reduction_factor": 2.0,
                "non_linearity": "relu",
                "leave_out": [1, 5],
            },
        ),
    ],
)
def test_keys_of_the_first_methods_are_as_they_were(fields: dict, resolved: dict) -> None:
    found = AdapterSpec(**fields).resolved()
    wanted = {"leave_out": None, **resolved}
    assert found == wanted and found.keys() == wanted.keys()
    assert isinstance(found["reduction_factor"], float)


def test_layers_count_from_the_end_too() -> None:
    spec = AdapterSpec(leave_out=[-1, 11, 0])
    assert spec.resolved(12)["leave_out"] == [0, 11]
    assert spec.resolved(12) == AdapterSpec(leave_out=[0, 11]).resolved()
    assert adapter_parameters(AdapterSpec(leave_out=[-1]).resolved(), SHAPE) == adapter_parameters(
        AdapterSpec(leave_out=[1]).resolved(), SHAPE
    )


@pytest.mark.parametrize("method", METHODS)
def test_defaults_of_every_method_have_no_fault(method: str) -> None:
    row = METHODS[method]
    spec = AdapterSpec(method=method, **{n: p.default for n, p in row.parameters.items()})
    assert spec.faults() == []
    assert spec.resolved() == AdapterSpec(method=method).resolved()
    assert set(spec.resolved()) == {"method", "leave_out", *row.parameters}
    again = AdapterSpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec and hash(again) == hash(spec)
    assert adapter_parameters(spec.resolved(), Shape(12, 768, 3072, 250002)) > 0


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"method": "loar"}, "method", "did you mean 'lora'?"),
        ({"method": "lora", "alfa": 3}, "alfa", "did you mean 'alpha'?"),
        ({"method": "lora", "reduction_factor": 2}, "reduction_factor", "seq_bn, "),
        ({"method": "ia3", "leave_uot": [1]}, "leave_uot", "did you mean 'leave_out'?"),
        ({"method": "lora", "r": 2.0}, "r", "not a whole number"),
        ({"method": "lora", "r": True}, "r", "not a whole number"),
        ({"method": "lora", "r": 0}, "r", "at least 1"),
        ({"method": "lora", "r": [8]}, "r", "a list is not a whole number"),
        ({"method": "lora", "dropout": 1.0}, "dropout", "less than 1"),
        ({"method": "lora", "targets": "atention"}, "targets", "did you mean 'attention'?"),
        ({"reduction_factor": 0}, "reduction_factor", "more than 0"),
        ({"reduction_factor": float("nan")}, "reduction_factor", "is not a number"),
        ({"reduction_factor": "2"}, "reduction_factor", "'2' is not a number"),
        ({"non_linearity": "reluu"}, "non_linearity", "did you mean 'relu'?"),
        ({"method": "prefix_tuning", "flat": 1}, "flat", "true or false"),
        ({"method": "full", "leave_out": [0]}, "leave_out", "cannot leave layers out"),
    ],
)
def test_a_fault_names_its_field_and_what_to_write(fields: dict, field: str, words: str) -> None:
    spec = AdapterSpec(**fields)
    ((found, what, hint),) = spec.faults()
    assert found == field and words in f"{what}; {hint}"
    with pytest.raises(UsageError):
        spec.resolved()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": "compacter", "reduction_factor": 3}, "phm_dim"),
        ({"method": "compacter", "reduction_factor": 2, "phm_dim": 3}, "phm_dim"),
        ({"method": "peft_oft", "block_size": 5}, "block_size"),
        ({"method": "peft_boft", "block_size": 64}, "block_size"),
        ({"method": "peft_fourierft", "n_frequency": 1025}, "n_frequency"),
        ({"leave_out": [2]}, "leave_out"),
        ({"leave_out": [-3]}, "leave_out"),
        ({"leave_out": [0, -1]}, "leave_out"),
    ],
)
def test_sizes_of_the_backbone_have_a_say(fields: dict, field: str) -> None:
    spec = AdapterSpec(**fields)
    assert spec.faults() == []
    assert {found for found, _, _ in spec.faults(SHAPE)} == {field}


def test_an_inner_specification_goes_over_the_outer_one() -> None:
    base = AdapterSpec(method="lora", r=4, alpha=2, leave_out=[-1])
    assert AdapterSpec(r=16).over(base) == AdapterSpec(method="lora", r=16, alpha=2, leave_out=[-1])
    assert AdapterSpec(method="lora", leave_out=[]).over(base).leave_out == ()
    assert AdapterSpec().over(base) == base
    other = AdapterSpec(method="compacter").over(base)
    assert other == AdapterSpec(method="compacter", leave_out=[-1]) and other.faults() == []
    assert AdapterSpec(method="full").over(base) == AdapterSpec(method="full")


def test_what_is_null_counts_as_left_out() -> None:
    spec = AdapterSpec.model_validate({"method": "seq_bn", "reduction_factor": None})
    assert spec == AdapterSpec(method="seq_bn") and spec.faults() == []


def test_the_schema_knows_every_parameter() -> None:
    schema = AdapterSpec.model_json_schema()
    assert schema["additionalProperties"] is False
    names = {name for row in METHODS.values() for name in row.parameters}
    assert set(schema["properties"]) == {"method", "leave_out", *names}
    assert schema["properties"]["method"]["enum"] == list(METHODS)


def test_full_is_no_default_and_says_so() -> None:
    assert "never a default" in METHODS["full"].summary
    assert METHODS["full"].roles == ("task",)


def test_low_rank_updates_of_one_library_do_not_stack() -> None:
    assert clash("lora", "lora") and clash("unipelt", "lora") and not clash("ia3", "ia3")
    for name, row in METHODS.items():
        assert bool(clash("seq_bn_inv", name)) == (not row.stackable)


def test_methods_are_known_without_torch() -> None:
    code = "import sys, adapterxlt.core.methods; print({'torch', 'peft'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
