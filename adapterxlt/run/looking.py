"""Looking at one foreign adapter: every check that needs no model, and what it is if all pass.

Bytes in, an `Adopted` out, remembered by their digests. Neither the network nor torch is used here;
a pickle is opened by another process. `run.adoptions` calls it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterxlt.core.adapters import adapter_parameters
from adapterxlt.core.adoption import Adopt, Adopted, LockedFile
from adapterxlt.core.canon import canonical, digest, sha256_hex
from adapterxlt.core.dialects import of_adapters
from adapterxlt.core.dialects_heads import head_of_adapters, head_of_peft
from adapterxlt.core.dialects_peft import of_peft
from adapterxlt.core.errors import RefusedError, UsageError
from adapterxlt.core.plan import BackboneInfo
from adapterxlt.run.unpickling import pickle_refused, unpickled
from adapterxlt.store import safeload
from adapterxlt.store.store import Store

#: Raise when a check changes: what was noted is then looked at anew.
VERSION = 1


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of known names in a folder; raises as `safeload.folder_files`."""
    try:
        paths = safeload.folder_files(folder)
        return {name: safeload.read_plain(path, str(folder)) for name, path in paths.items()}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(folder)) from None


def look_at(
    store: Store, folder: Path, backbone: BackboneInfo, adopt: Adopt, where: str
) -> Adopted:
    """As `look`, of a folder; of one that was looked at before and has not changed, from the notes.

    Changed means another size or time. What is adopted is checked against digests again.
    """
    paths = safeload.folder_files(folder)
    status = {name: path.stat() for name, path in paths.items()}
    files = [[str(paths[n]), one.st_size, one.st_mtime_ns] for n, one in sorted(status.items())]
    name = digest("look at", [files, _how(backbone, adopt)])
    known = store.noted("looked", name)
    if known is not None:
        return Adopted.model_validate(known)
    found = look(store, read_folder(folder), backbone, adopt, where)
    store.note("looked", name, _plain(found))
    return found


def _how(backbone: BackboneInfo, adopt: Adopt) -> list[Any]:
    """What the result of looking depends on besides the files."""
    shape = backbone.shape
    return [VERSION, shape.layers, shape.hidden, shape.ffn, adopt.allow_pickle]


def _plain(found: Adopted) -> Any:
    return json.loads(canonical(found.model_dump(mode="json")))


def look(
    store: Store, files: Mapping[str, bytes], backbone: BackboneInfo, adopt: Adopt, where: str
) -> Adopted:
    """What an adapter is, after every check that needs no model.

    Args:
        files: bytes by name.

    Raises:
        RefusedError: which check failed.
    """
    sums = {name: sha256_hex(data) for name, data in sorted(files.items())}
    name = digest("look", [sums, _how(backbone, adopt)])
    known = store.noted("looked", name)
    if known is not None:
        return Adopted.model_validate(known)
    found = _look(store, files, sums, backbone, adopt, where)
    store.note("looked", name, _plain(found))
    return found


def _look(
    store: Store,
    files: Mapping[str, bytes],
    sums: Mapping[str, str],
    backbone: BackboneInfo,
    adopt: Adopt,
    where: str,
) -> Adopted:
    if safeload.CONFIG not in files:
        raise RefusedError(f"there is no {safeload.CONFIG}", where=where)
    config = safeload.read_json(files[safeload.CONFIG], f"{where} {safeload.CONFIG}")
    roles = safeload.roles_of(files, config, where)
    format = roles.pop("format")

    def tensors(role: str) -> dict[str, Any]:
        name, data = roles[role], files[roles[role]]
        if name.endswith(".bin"):
            if not adopt.allow_pickle:
                raise pickle_refused(name, where)
            data = unpickled(store, data, where)
        return safeload.tensors_of(data, f"{where} {name}")

    weights = tensors("weights")
    shapes = {name: values.shape for name, values in weights.items()}
    head = None
    if format == "peft":
        spec, head = of_peft(config, backbone.shape.layers, where), head_of_peft(shapes, where)
    else:
        spec = of_adapters(config, weights, where)
        if "head" in roles:
            at = f"{where} {roles['head_config']}"
            head = head_of_adapters(safeload.read_json(files[roles["head_config"]], at), at)
            if head is None:
                del roles["head"], roles["head_config"]
            else:
                tensors("head")
    for _, what, _ in spec.faults(backbone.shape):
        raise RefusedError(what, where=where)
    given = sum(values.size for values in weights.values())
    safeload.check_count(adapter_parameters(spec.resolved(), backbone.shape), given, where)
    locked = {
        role: LockedFile(name=name, sha256=sums[name], size=len(files[name]))
        for role, name in roles.items()
    }
    return Adopted(
        format=format,  # type: ignore[arg-type]
        files=locked,
        adapter=spec.resolved(backbone.shape.layers),
        head=head,
        made_for=_made_for(config, files, where),
    )


def _made_for(config: Mapping[str, Any], files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """What an adapter says of its backbone, as far as it is plain."""
    name = config.get("model_name") or config.get("base_model_name_or_path")
    said = {"model_name": name, "model_type": config.get("model_type")}
    found: dict[str, Any] = {}
    for field, value in said.items():
        if value is not None:
            plain = isinstance(value, str) and value.isprintable() and not re.search("[<>]", value)
            if not plain or len(value) > 300:
                raise RefusedError(f"{field} is {safeload.shown(value)}", where=where)
            found[field] = value
    size = config.get("hidden_size")
    if size is not None:
        if type(size) is not int or not 0 < size < 1e6:
            raise RefusedError(f"hidden_size is {safeload.shown(size)}", where=where)
        found["hidden_size"] = size
    if safeload.MANIFEST in files:
        at = f"{where} {safeload.MANIFEST}"
        digests = safeload.read_json(files[safeload.MANIFEST], at).get("backbone")
        if digests is not None:
            pairs = digests.items() if isinstance(digests, dict) else [("", digests)]
            if not all(re.fullmatch(r"[a-z]+ [0-9a-f]{64}", f"{n} {of}") for n, of in pairs):
                raise RefusedError(f"its backbone is {safeload.shown(digests)}", where=at)
            found["digests"] = digests
    return found
