"""The closed forms of cost, beside the real modules where there are some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterxlt.core import cost
from adapterxlt.core.adapters import AdapterSpec, adapter_parameters
from adapterxlt.core.plan import BackboneInfo
from adapterxlt.core.specs import Shape

LAYERS, HIDDEN, FFN = 3, 32, 48


@pytest.fixture(scope="module")
def model() -> Any:
    """A random encoder with three layers; nothing is trained, only counted."""
    adapters = pytest.importorskip("adapters")
    transformers = pytest.importorskip("transformers")

    config = transformers.XLMRobertaConfig(
        vocab_size=60,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=FFN,
        max_position_embeddings=40,
    )
    return adapters.XLMRobertaAdapterModel(config)


def really(model: Any, spec: dict[str, Any]) -> int:
    """Trainable parameters of the adapter as the library makes it."""
    from adapterxlt.compute.methods import config_of

    model.add_adapter("counted", config=config_of(spec))
    model.train_adapter("counted")
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.delete_adapter("counted")
    return count


@pytest.mark.parametrize("method", ["seq_bn", "seq_bn_inv", "double_seq_bn", "par_bn"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"leave_out": [2]},
        {"leave_out": [0, 1]},
        {"leave_out": [2, 77]},
        {"reduction_factor": 2},
        {"reduction_factor": 3.0},
        {"reduction_factor": 2.5, "leave_out": [1]},
        {"reduction_factor": 0.5},
        {"reduction_factor": 100.0},
        {"non_linearity": "gelu"},
    ],
)
def test_parameters_are_those_of_the_real_modules(
    model: Any, method: str, fields: dict[str, Any]
) -> None:
    spec = AdapterSpec(method=method, **fields).resolved()
    assert adapter_parameters(spec, Shape(LAYERS, HIDDEN, FFN, 60)) == really(model, spec)


def test_parameters_of_a_block_are_its_matrices(model: Any) -> None:
    matrices = [
        p.numel() for n, p in model.named_parameters() if "encoder.layer" in n and p.dim() == 2
    ]
    assert Shape(LAYERS, HIDDEN, FFN, 60).block_parameters == sum(matrices)


@pytest.fixture(scope="module")
def study(planned: Callable[..., Any], six: str) -> Any:
    _, plan = planned(six, "limits={test: 30}")
    return plan


def works(plan: Any, backbone: BackboneInfo) -> dict[str, cost.Work]:
    return {k: cost.work_of(s, backbone.shape, plan.data) for k, s in plan.stages.items()}


def test_work_counts_steps_and_sub_words(study: Any, backbone: BackboneInfo) -> None:
    found = works(study, backbone)
    for key, stage in study.stages.items():
        work, params = found[key], stage.params
        if stage.kind == "evaluate":
            assert (work.work_kind, work.parameters) == ("evaluate", 0)
            assert work.tokens == 30 * 12.0
            assert work.flops == 2 * work.tokens * backbone.shape.block_parameters
        elif params["objective"] == "mlm":
            assert work.work_kind == "mlm" and work.steps == 3 * 32
            assert work.tokens == work.steps * 32 * 12.0
        else:
            rows = sum(
                min(params["budget"]["batch"], s.get("shots", 999)) for s in params["streams"]
            )
            assert work.tokens == params["budget"]["steps"] * rows * 12.0
            head = (32 + 1) * 17
            assert work.parameters == adapter_parameters(params["adapter"], backbone.shape) + head
            assert work.flops > 4 * work.tokens * backbone.shape.block_parameters


def test_long_rows_are_counted_as_cut(planned: Any, six: str, backbone: BackboneInfo) -> None:
    _, plan = planned(six, "max_length=8", "regimes=[zero-shot]")
    work = works(plan, backbone)[next(k for k, s in plan.stages.items() if s.params.get("heads"))]
    assert work.tokens == work.steps * 32 * 8


def test_rates_come_from_past_runs_where_there_are_some(study: Any, backbone: BackboneInfo) -> None:
    found = works(study, backbone)
    by_kind = {work.work_kind: key for key, work in found.items()}
    assert by_kind.keys() == {"mlm", "task", "evaluate"}
    seconds = dict.fromkeys(by_kind.values(), 4.0)
    rates = cost.rates(study, backbone.shape, seconds)
    assert rates.origin == "past runs and a calibration"
    for kind, key in by_kind.items():
        assert rates.per_kind[kind] == found[key].flops / 4.0
        assert rates.seconds(found[key]) == pytest.approx(4.2)
    few = [found[key] for key in by_kind.values()]
    assert cost.total(few, rates) == pytest.approx(3 * 4.2)


def test_without_past_runs_the_machine_is_calibrated(study: Any, backbone: BackboneInfo) -> None:
    rates = cost.rates(study, backbone.shape, {})
    assert rates.origin == "a calibration of this machine"
    assert all(rate > 1e6 for rate in rates.per_kind.values())


def test_pretraining_has_a_cost() -> None:
    from adapterxlt.core.plan import Stage
    from adapterxlt.corpora.backbones import lab_backbone

    info = lab_backbone()
    stage = Stage("pretrain", dict(info.pretraining or {}))
    one = cost.work_of(stage, info.shape, {})
    spec = {**stage.params["spec"], "steps": 2 * stage.params["spec"]["steps"]}
    two = cost.work_of(Stage("pretrain", {**stage.params, "spec": spec}), info.shape, {})
    assert (
        two.flops == 2 * one.flops and two.tokens == 2 * one.tokens and one.work_kind == "pretrain"
    )
