"""`load.py`: the few lines that load an export with the libraries alone.

Pure text from what the export has in it; nothing of this package is needed to run it. The tests
run it for every method. `run.exporting` puts it into the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from adapterxlt.core.exports import OWN_HEADS, Export, Piece

#: What is given to the tokenizer, by kind of task: two texts where the task has two.
_TEXTS = {
    "tagging": ['"This is a sentence .".split()', "is_split_into_words=True"],
    "pair-classification": ['"This is a sentence."', '"This is another one."'],
    "qa": ['"Where is it?"', '"It is here, and not there."'],
}
_TEXT = ['"This is a sentence."']


def script(export: Export, backbone: str | None, layers: int) -> str:
    """The text of `load.py`: it leaves ``tokenizer``, ``model`` and a function of a batch.

    The function is ``logits`` (of a head, or of the masked-LM head), or ``vectors`` where a task
    compares states. Question answering gives (rows, length, 2), choice (rows, alternatives).

    Args:
        backbone: the name that is loaded when the script is given none; without one, the folder
            `backbone` beside it.
        layers: of the backbone.
    """
    body = _model(export)
    function, said = _function(export, layers)
    libraries = " and ".join(f"`{name}`" for name in sorted(export.libraries))
    default = 'str(here / "backbone")' if backbone is None else _quoted(backbone)
    lines = [
        f'"""Loads this folder with {libraries} alone: python load.py [BACKBONE]"""',
        "",
        *_imports(export, body + function),
        "",
        "here = Path(__file__).resolve().parent",
        f"backbone = sys.argv[1] if len(sys.argv) > 1 else {default}",
        "tokenizer = AutoTokenizer.from_pretrained(backbone)",
        *body,
        "model.eval()",
        "",
        "",
        *function,
        "",
        "",
        *_batch(export),
        "with torch.inference_mode():",
        f"    print({said}(batch))",
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A literal in ASCII, so that no name can leave its string."""
    return json.dumps(text) if text.isascii() else ascii(text)


def _imports(export: Export, body: list[str]) -> list[str]:
    used = "\n".join(body)
    found = ["import sys", "from pathlib import Path", ""]
    if "adapters.init" in used:
        found.append("import adapters")
    found.append("import torch")
    if "AutoAdapterModel" in used:
        found.append("from adapters import AutoAdapterModel")
    blocks = [name for name in ("Fuse", "Stack") if f"{name}(" in used]
    if blocks:
        found.append(f"from adapters.composition import {', '.join(blocks)}")
    if "PeftModel" in used:
        found.append("from peft import PeftModel")
    if "BaseTunerLayer" in used:
        found.append("from peft.tuners.tuners_utils import BaseTunerLayer")
    if "load_file" in used:
        found.append("from safetensors.torch import load_file")
    names = [name for name in _OF_TRANSFORMERS if f"{name}." in used]
    return [*found, f"from transformers import {', '.join(sorted([*names, 'AutoTokenizer']))}"]


_OF_TRANSFORMERS = (
    "AutoModel",
    "AutoModelForMaskedLM",
    *(name for name, _, _ in OWN_HEADS.values()),
)


def _model(export: Export) -> list[str]:
    """The backbone with everything on it and active."""
    ours = [piece for piece in export.pieces if piece.library == "adapters"]
    peft = [piece for piece in export.pieces if piece.library == "peft"]
    form, sizes = export.form, []
    name = {"flexible": "AutoAdapterModel", "mlm": "AutoModelForMaskedLM"}.get(form, "AutoModel")
    if form == "own":
        name, sizes = OWN_HEADS[export.kind or ""][0], [f"num_labels={len(export.labels or '12')}"]
    elif form == "mlm" and ours:
        name = "AutoAdapterModel"
    # As it was evaluated on a CPU; the default, `sdpa`, is equal but for rounding.
    arguments = ["backbone", *sizes, 'attn_implementation="eager"']
    lines = _call(f"model = {name}.from_pretrained", arguments)
    if ours and name != "AutoAdapterModel":
        lines.append("adapters.init(model)")
    elif form == "mlm" and ours:
        # What AutoAdapterModel does not take over of a masked-LM head.
        lines += [
            "whole = AutoModelForMaskedLM.from_pretrained(backbone)",
            'model.heads["default"][-1].bias.data.copy_(whole.get_output_embeddings().bias)',
        ]
    lines += _worn(export, ours)
    if form == "own":
        return [*lines, f"model = PeftModel.from_pretrained(model, {_folder(export, peft[-1])})"]
    encoder = "model" if name == "AutoModel" else "model.base_model"
    for piece in peft:
        # It wraps the encoder's matrices in place.
        at = _folder(export, piece)
        more = f", adapter_name={_quoted(piece.name)}" if len(peft) > 1 else ""
        lines.append(f"PeftModel.from_pretrained({encoder}, {at}{more})")
        if len(peft) > 1:
            lines.append(f"del {encoder}.peft_config")
    if len(peft) > 1:
        lines += [
            "for module in model.modules():",
            "    if isinstance(module, BaseTunerLayer):",
            f"        module.set_adapter([{_names(peft)}])",
        ]
    if form == "linear":
        folder = _folder(export, export.top, "model_head.safetensors")
        lines.append(f"head = load_file({folder})")
    return lines


def _worn(export: Export, pieces: list[Piece]) -> list[str]:
    """Adapters of `adapters`, loaded and active."""
    lines = []
    for piece in pieces:
        for one in piece.all():
            fusion = "_fusion" if one.members else ""
            at = _folder(export, one)
            lines.append(f"model.load_adapter{fusion}({at}, use_safetensors=True)")
    if not pieces:
        return []
    blocks = [
        f"Fuse({_names(piece.members)})" if piece.members else _quoted(piece.name)
        for piece in pieces
    ]
    stack = blocks[0] if len(blocks) == 1 else f"Stack({', '.join(blocks)})"
    skipped = f", skip_layers={list(range(export.drop))}" if export.drop else ""
    lines.append(f"model.set_active_adapters({stack}{skipped})")
    if export.form == "flexible" and export.top.members:
        lines.append(f"model.active_head = {_quoted(export.top.name)}")
    return lines


def _names(pieces: Iterable[Piece]) -> str:
    return ", ".join(_quoted(piece.name) for piece in pieces)


def _folder(export: Export, piece: Piece, *more: str) -> str:
    flat = export.role != "composition" and piece is export.top
    names = more if flat else (piece.name, *more)
    parts = ["here", *(_quoted(name) for name in names)]
    return f"str({' / '.join(parts)})" if len(parts) > 1 else "str(here)"


def _function(export: Export, layers: int) -> tuple[list[str], str]:
    form = export.form
    if form == "bare":
        options = export.options or {}
        layer = options.get("layer") or min(layers // 2 + 2, layers)
        lines = [
            "def vectors(batch):",
            f"    states = model(**batch, output_hidden_states=True).hidden_states[{layer}]",
        ]
        if options.get("pooling") == "cls":
            return [*lines, "    return states[:, 0]"], "vectors"
        return [
            *lines,
            '    weights = batch["attention_mask"][..., None]',
            "    return (states * weights).sum(1) / weights.sum(1)",
        ], "vectors"
    if form == "linear":
        at = "" if export.kind in OWN_HEADS else "[:, 0]"
        shape = f".view(-1, {len(export.labels or [])})" if export.kind == "choice" else ""
        key = f"heads.{export.top.name}.1"
        return [
            "def logits(batch):",
            f"    states = model(**batch).last_hidden_state{at}",
            f'    weight, bias = head["{key}.weight"], head["{key}.bias"]',
            f"    return torch.nn.functional.linear(states, weight, bias){shape}",
        ], "logits"
    if export.kind == "qa":
        return [
            "def logits(batch):",
            "    found = model(**batch)",
            "    return torch.stack([found.start_logits, found.end_logits], dim=-1)",
        ], "logits"
    return ["def logits(batch):", "    return model(**batch).logits"], "logits"


def _batch(export: Export) -> list[str]:
    """A batch as the adapters were trained: one segment, also of two texts."""
    if export.kind == "choice":
        count = len(export.labels or [])
        said = ", ".join(f'"Answer {n}."' for n in range(1, count + 1))
        texts = [f'["It rained. What was the effect?"] * {count}', f"[{said}]", "padding=True"]
    else:
        texts = _TEXTS.get(export.kind or "", _TEXT)
    lines = _call(
        "batch = tokenizer", [*texts, 'return_tensors="pt"', "return_token_type_ids=False"]
    )
    if export.kind == "choice" and export.form == "flexible":
        lines.append("batch = {name: tensor[None] for name, tensor in batch.items()}")
    return lines


def _call(name: str, arguments: list[str]) -> list[str]:
    """A call as the formatter has it: on one line, else its arguments on one, else on many."""
    whole = f"{name}({', '.join(arguments)})"
    if len(whole) <= 100:
        return [whole]
    inner = f"    {', '.join(arguments)}"
    body = [inner] if len(inner) <= 100 else [f"    {argument}," for argument in arguments]
    return [f"{name}(", *body, ")"]
