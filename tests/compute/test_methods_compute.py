"""Every adapter method on a real encoder: parameters, training, weights, stacks, and taking off."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import adapters
import peft
import pytest
import torch
from adapters.composition import Fuse, Stack

from adapterxlt.compute.backbone import Backbone, fusion_name
from adapterxlt.core.adapters import AdapterSpec, adapter_parameters
from adapterxlt.core.errors import StageError
from adapterxlt.core.methods import METHODS, clash
from adapterxlt.core.specs import Shape

SHAPE = Shape(2, 32, 64, 1600)
#: Parameters that suit a hidden size of 32.
SMALL: dict[str, dict[str, Any]] = {
    "compacter": {"reduction_factor": 4},
    "compacterpp": {"reduction_factor": 4},
    "prefix_tuning": {"prefix_length": 3, "bottleneck_size": 5},
    "mam": {"prefix_length": 3, "bottleneck_size": 5},
    "unipelt": {"prefix_length": 3, "bottleneck_size": 5},
    "peft_oft": {"block_size": 4},
    "peft_vera": {"r": 8},
    "peft_randlora": {"r": 8, "alpha": 20.0},
    "peft_fourierft": {"n_frequency": 50, "scaling": 20.0},
}
LANGUAGE = [name for name, row in METHODS.items() if "language" in row.roles]
TASK = [name for name, row in METHODS.items() if "task" in row.roles]
IDS = torch.arange(5, 25).view(2, 10)
MASK = torch.ones_like(IDS)


def spec_of(method: str, **more: Any) -> dict[str, Any]:
    spec = AdapterSpec(method=method, **{**SMALL.get(method, {}), **more})
    assert spec.faults(SHAPE) == []
    return spec.resolved(SHAPE.layers)


@pytest.fixture(scope="module")
def loaded(tiny_backbone: Path) -> Backbone:
    backbone = Backbone(tiny_backbone)
    backbone.model.eval()
    return backbone


@pytest.fixture
def backbone(loaded: Backbone) -> Any:
    """A backbone that every test must leave in the same bits and modules."""
    before = loaded.digest()
    loaded.reset()
    yield loaded
    loaded.reset()
    assert loaded.digest() == before


def shake(backbone: Backbone, name: str, seed: int = 1) -> None:
    """Away from the first weights, under which most methods do nothing."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.trainable([name]).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


@torch.no_grad()
def states(backbone: Backbone, *stack: Any, skip: tuple[int, ...] = ()) -> torch.Tensor:
    backbone.activate(stack, skip_layers=skip)
    return backbone.hidden(IDS, MASK)


def loss(hidden: torch.Tensor) -> torch.Tensor:
    return (hidden * torch.sin(torch.arange(hidden.numel()).view(hidden.shape))).mean()


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_those_of_the_real_modules(backbone: Backbone, method: str) -> None:
    row = METHODS[method]
    choices = row.parameters["targets"].choices if "targets" in row.parameters else ()
    more: list[dict[str, Any]] = [{}, *({"targets": choice} for choice in choices)]
    if row.leaves_out:
        more.append({"leave_out": [-1]})
    more += [{"r": 2}] * ("r" in row.parameters) + [{"flat": True}] * ("flat" in row.parameters)
    for fields in more:
        spec = spec_of(method, **fields)
        backbone.reset()
        backbone.add_adapter("a", spec)
        real = sum(p.numel() for p in backbone.trainable(["a"]).values())
        if method == "full":  # positions and segments are not in `Shape`
            real -= SHAPE.hidden * (backbone.model.config.max_position_embeddings + 1)
        assert adapter_parameters(spec, SHAPE) == real, fields


@pytest.mark.parametrize("method", ["compacter", "prefix_tuning", "unipelt", "peft_randlora"])
def test_parameters_on_other_sizes(tmp_path: Path, method: str) -> None:
    shape = Shape(3, 48, 96, 60)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 96}
    config = adapters.XLMRobertaAdapterModel.config_class(
        vocab_size=60, num_attention_heads=4, max_position_embeddings=40, **sizes
    )
    model = adapters.XLMRobertaAdapterModel(config)
    spec = spec_of(method, leave_out=[0])
    from adapterxlt.compute.methods import config_of, inject

    if METHODS[method].library == "adapters":
        model.add_adapter("counted", config=config_of(spec))
    else:
        inject(model.roberta.encoder, "counted", spec, 3)
    real = sum(p.numel() for n, p in model.named_parameters() if "counted" in n.split("."))
    assert adapter_parameters(spec, shape) == real > 0


@pytest.mark.parametrize("method", METHODS)
def test_training_changes_its_own_weights_which_then_say_all(
    backbone: Backbone, method: str
) -> None:
    bare = states(backbone)
    digest = backbone.digest()
    backbone.add_adapter("a", spec_of(method), seed=3)
    shake(backbone, "a")
    parameters = backbone.trainable(["a"])
    assert all(name.startswith("a:") and "@" in name for name in parameters)
    others = [
        p for p in backbone.model.parameters() if not any(p is q for q in parameters.values())
    ]
    kept = [p.detach().clone() for p in others]
    first = backbone.weights("a")
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)
    backbone.model.train()
    stack = ("a",)
    for _ in range(3):
        optimizer.zero_grad()
        backbone.activate(stack)
        loss(backbone.hidden(IDS, MASK)).backward()
        optimizer.step()
    backbone.model.eval()
    last = backbone.weights("a")
    moved = [name for name in first if not torch.equal(first[name], last[name])]
    # The inverse of an invertible block and unused embeddings take no part; in `full` neither
    # does the pad position's row.
    assert len(moved) > 0.9 * len(first) or METHODS[method].invertible
    assert all(torch.equal(p, q) for p, q in zip(others, kept, strict=True))
    assert backbone.digest() == digest
    trained = states(backbone, "a")
    assert not torch.equal(trained, bare) and torch.equal(states(backbone), bare)

    backbone.reset()
    backbone.add_adapter("second", spec_of(method), seed=4, weights=last)
    assert torch.equal(states(backbone, "second"), trained)
    assert torch.equal(states(backbone), bare)


@pytest.mark.parametrize("method", TASK)
def test_on_top_of_an_invertible_language_adapter(backbone: Backbone, method: str) -> None:
    backbone.add_adapter("lang", spec_of("seq_bn_inv"))
    backbone.add_adapter("task", spec_of(method))
    shake(backbone, "lang")
    shake(backbone, "task", 2)
    if clash("seq_bn_inv", method):
        assert not METHODS[method].stackable
        with pytest.raises(StageError, match="do not go together"):
            backbone.activate(("lang", "task"))
        return
    assert METHODS[method].stackable
    check_both_take_part(backbone, "lang", "task")
    skipped = states(backbone, "lang", "task", skip=(0, 1))
    assert not torch.equal(skipped, states(backbone, "lang", "task"))


def check_both_take_part(backbone: Backbone, lower: str, upper: str) -> None:
    both = states(backbone, lower, upper)
    for stack in ((), (lower,), (upper,)):
        assert (both - states(backbone, *stack)).abs().max() > 1e-4, stack
    parameters = backbone.trainable([lower, upper])
    backbone.activate((lower, upper))
    loss(backbone.hidden(IDS, MASK)).backward()
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.abs().any()]
    for parameter in parameters.values():
        parameter.grad = None
    assert len([n for n in without if n.startswith(f"{lower}:")]) == 0
    assert len([n for n in without if n.startswith(f"{upper}:")]) == 0


def test_every_pair_that_is_not_refused_works(backbone: Backbone) -> None:
    for lower, upper in product(LANGUAGE, TASK):
        backbone.reset()
        backbone.add_adapter("lower", spec_of(lower))
        if clash(lower, upper):
            continue
        backbone.add_adapter("upper", spec_of(upper))
        shake(backbone, "lower")
        shake(backbone, "upper", 2)
        check_both_take_part(backbone, "lower", "upper")


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("peft_lora", "peft_lora"), ("lora", "peft_lora"), ("peft_lora", "lora"), ("ia3", "ia3")],
)
def test_pairs_on_the_same_matrices(backbone: Backbone, lower: str, upper: str) -> None:
    assert not clash(lower, upper)
    backbone.add_adapter("lower", spec_of(lower))
    shake(backbone, "lower")
    alone = states(backbone, "lower")
    backbone.add_adapter("upper", spec_of(upper))
    # A new one starts as the identity, and the weights of the other go by the same names.
    torch.testing.assert_close(states(backbone, "lower", "upper"), alone)
    assert not any("base_layer" in name for name in backbone.weights("lower"))
    shake(backbone, "upper", 2)
    check_both_take_part(backbone, "lower", "upper")


@pytest.mark.parametrize("method", ["seq_bn", "lora", "prefix_tuning", "peft_lora", "peft_oft"])
def test_skipped_layers_are_without_their_adapters(backbone: Backbone, method: str) -> None:
    backbone.add_adapter("a", spec_of(method))
    shake(backbone, "a")
    whole = states(backbone, "a")
    some = states(backbone, "a", skip=(0,))
    assert torch.equal(states(backbone, "a", skip=(0, 1)), states(backbone))
    assert not torch.equal(some, whole) and not torch.equal(some, states(backbone))
    backbone.add_adapter("second", spec_of(method, leave_out=[0]))
    wanted = backbone.trainable(["second"])
    if method != "prefix_tuning":  # one network makes the prefixes of all layers
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(backbone.weights("a")[name.partition(":")[2]])
        assert torch.equal(states(backbone, "second"), some)


@pytest.mark.parametrize("method", ["peft_lora", "peft_randlora", "peft_hra"])
def test_two_of_a_method_are_worn_in_turn(backbone: Backbone, method: str) -> None:
    backbone.add_adapter("a", spec_of(method), seed=1)
    shake(backbone, "a")
    alone = states(backbone, "a")
    backbone.add_adapter("second", spec_of(method), seed=2)
    assert torch.equal(states(backbone, "a"), alone)
    shake(backbone, "second", 2)
    assert not torch.equal(states(backbone, "second"), alone)
    assert torch.equal(states(backbone, "a"), alone)


def test_heads_of_one_shape_have_names_of_their_own(backbone: Backbone) -> None:
    head = {"kind": "tagging", "labels": ["x", "y"]}
    backbone.add_head("h1", head, seed=1)
    backbone.add_head("h2", head, seed=2)
    assert len(backbone.trainable(["h1", "h2"])) == 2 * len(backbone.weights("h1"))


def test_full_takes_the_place_of_the_backbone_only_while_worn(backbone: Backbone) -> None:
    bare = states(backbone)
    backbone.add_adapter("f", spec_of("full"))
    assert torch.equal(states(backbone, "f"), bare)
    names = set(backbone.weights("f"))
    assert "@.embeddings.word_embeddings.weight" in names
    assert not any("pooler" in name or "heads" in name for name in names)
    shake(backbone, "f")
    assert not torch.equal(states(backbone, "f"), bare)
    with pytest.raises(ValueError, match="already"):
        backbone.add_adapter("f", spec_of("full"))
    backbone.reset()
    assert torch.equal(states(backbone), bare)


def test_fusion_is_the_librarys(backbone: Backbone, tiny_backbone: Path) -> None:
    names = ("one", "two")
    for i, name in enumerate(names):
        backbone.add_adapter(name, spec_of("seq_bn"))
        shake(backbone, name, i)
    backbone.add_adapter("top", spec_of("peft_lora"))
    backbone.add_fusion(names, seed=5)
    shake(backbone, fusion_name(names), 7)
    assert float(backbone.fusion_loss()) == 0.0
    fused = states(backbone, names)
    parameters = backbone.trainable([fusion_name(names)])
    assert all(name.startswith("one,two:") for name in parameters) and parameters
    wanted = backbone.model.get_fusion_regularization_loss()
    assert float(backbone.fusion_loss()) == pytest.approx(float(wanted)) and float(wanted) > 0
    check = states(backbone, names, "top")
    close(check, fused)
    kept = {name: backbone.weights(name) for name in (*names, "one,two")}
    with pytest.raises(StageError, match="peft_lora"):
        backbone.add_fusion(("one", "top"))
    backbone.reset()
    for name in names:
        backbone.add_adapter(name, spec_of("seq_bn"), weights=kept[name])
    backbone.add_fusion(names, weights=kept["one,two"])
    close(states(backbone, names), fused)

    plain = adapters.AutoAdapterModel.from_pretrained(tiny_backbone).eval()
    for name in names:
        plain.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=16))
    plain.add_adapter_fusion(Fuse(*names))
    fill(plain, kept)
    plain.set_active_adapters(Stack(Fuse(*names)))
    with torch.no_grad():
        close(plain.base_model(IDS, attention_mask=MASK)[0], fused)


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    """Equal but for the last bit: two copies of a bare model lie in memory differently already."""
    torch.testing.assert_close(left, right, rtol=0, atol=4e-6)


def fill(model: Any, weights: dict[str, dict[str, torch.Tensor]]) -> None:
    """Weights into modules built without the package."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensors in weights.items():
            for neutral, tensor in tensors.items():
                own[neutral.replace("@", name)].copy_(tensor)


@pytest.mark.parametrize(
    ("method", "fields", "config"),
    [
        ("lora", {"r": 4, "alpha": 16}, adapters.LoRAConfig(r=4, alpha=16)),
        (
            "compacter",
            {"reduction_factor": 2, "phm_dim": 2},
            adapters.CompacterConfig(reduction_factor=2, phm_dim=2),
        ),
        (
            "prefix_tuning",
            {"prefix_length": 4, "bottleneck_size": 6},
            adapters.PrefixTuningConfig(prefix_length=4, bottleneck_size=6),
        ),
        (
            "mam",
            {"prefix_length": 4, "bottleneck_size": 6, "reduction_factor": 4},
            adapters.MAMConfig(
                adapters.PrefixTuningConfig(prefix_length=4, bottleneck_size=6),
                adapters.ParBnConfig(reduction_factor=4),
            ),
        ),
        (
            "unipelt",
            {"prefix_length": 4, "bottleneck_size": 6},
            adapters.UniPELTConfig(adapters.PrefixTuningConfig(prefix_length=4, bottleneck_size=6)),
        ),
    ],
)
def test_states_are_those_of_plain_adapters(
    backbone: Backbone, tiny_backbone: Path, method: str, fields: dict, config: Any
) -> None:
    backbone.add_adapter("a", AdapterSpec(method=method, **fields).resolved())
    shake(backbone, "a")
    plain = adapters.AutoAdapterModel.from_pretrained(tiny_backbone).eval()
    plain.add_adapter("x", config=config)
    fill(plain, {"x": backbone.weights("a")})
    plain.set_active_adapters("x")
    with torch.no_grad():
        close(plain.base_model(IDS, attention_mask=MASK)[0], states(backbone, "a"))


@pytest.mark.parametrize(
    ("method", "fields", "config"),
    [
        ("peft_lora", {"r": 4, "alpha": 16}, peft.LoraConfig(r=4, lora_alpha=16)),
        ("peft_dora", {}, peft.LoraConfig(r=8, lora_alpha=8, use_dora=True)),
        ("peft_vera", {"r": 8}, peft.VeraConfig(r=8)),
    ],
)
def test_states_are_those_of_plain_peft(
    backbone: Backbone, tiny_backbone: Path, method: str, fields: dict, config: Any
) -> None:
    from transformers import AutoModel

    backbone.add_adapter("a", AdapterSpec(method=method, **fields).resolved())
    shake(backbone, "a")
    config.target_modules = {"query", "value"}
    plain = peft.get_peft_model(AutoModel.from_pretrained(tiny_backbone), config).eval()
    fill(
        plain.base_model.model,
        {
            "default": {
                name.removeprefix("roberta."): tensor
                for name, tensor in backbone.weights("a").items()
            }
        },
    )
    with torch.no_grad():
        wanted = plain(input_ids=IDS, attention_mask=MASK)[0]
    close(states(backbone, "a"), wanted)
