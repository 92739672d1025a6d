"""What a recipe adopts, known before it is planned: folders are looked at, hubs are in a lock file.

`resolve` never uses the network: a reference to a hub is what the lock file says it was. `lock`
writes that file, and is the only one to turn a branch into a commit; `bring` puts the bytes of what
is about to be adopted into the store, checked against their digests. Tensors meet modules in the
worker's `adopt` stage only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import (
    Adopt,
    Adopted,
    Adoption,
    Adoptions,
    Reference,
)
from adapterxlt.core.bases import base_of, check_base, short_name
from adapterxlt.core.canon import canonical, sha256_hex
from adapterxlt.core.demands import worn_languages
from adapterxlt.core.errors import (
    Fault,
    RecipeError,
    RefusedError,
    UsageError,
)
from adapterxlt.core.known import known_adapters
from adapterxlt.core.loading import LoadedRecipe
from adapterxlt.core.plain import json_of, plain_bytes, utf8
from adapterxlt.core.plan import BackboneInfo
from adapterxlt.run.looking import look, look_at, read_folder
from adapterxlt.run.unpickling import pickle_refused
from adapterxlt.store.files import write_bytes
from adapterxlt.store.store import Store

Tell = Callable[[str], None]
#: Number of the lock file's form, and of what is noted of a folder.
FORMAT = 1
#: Bytes of a lock file.
MOST_LOCK = 16 << 20


class LockFile:
    """References to hubs and what they were when the file was written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Adopted] = {}

    @classmethod
    def read(cls, path: Path) -> LockFile:
        """The file as it is; one without entries where there is none.

        Raises:
            UsageError: there is a file, and it is none of ours.
        """
        file = cls(path)
        if not path.exists():
            return file
        try:
            body = json_of(utf8(plain_bytes(path, MOST_LOCK)))
            if body["adapterxlt lock"] != FORMAT:
                raise ValueError(f"it is of form {body['adapterxlt lock']}")
            file.entries = {name: _entry(name, value) for name, value in body["adapters"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "write it anew with adapterxlt lock"
            raise UsageError(f"not a lock file: {why}", where=str(path), hint=hint) from None
        return file

    def write(self) -> None:
        """Write it in one step, sorted, for people to read and to keep beside the recipe."""
        entries = {
            name: json.loads(canonical(one.model_dump(mode="json")))
            for name, one in sorted(self.entries.items())
        }
        body = {"adapterxlt lock": FORMAT, "adapters": entries}
        text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_bytes(self.path, text.encode())


def _entry(name: str, value: Any) -> Adopted:
    """An entry of a lock file; ``ValueError`` where it is none that `lock` writes."""
    found = Adopted.model_validate(value)
    said = found.made_for
    whole = Reference.parse(name).hub and found.commit and {"config", "weights"} <= set(found.files)
    texts = [text for field, text in said.items() if field in ("model_name", "model_type")]
    if not whole or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is not described whole")
    if not isinstance(said.get("digests", {}), dict):
        raise ValueError(f"{name} has digests that are none")
    for _, what, _ in AdapterSpec(**found.adapter).faults():
        raise ValueError(f"{name}: {what}")
    return found


def lock_path(loaded: LoadedRecipe) -> Path:
    """Where a recipe's lock file is when nothing else is said: beside it."""
    return loaded.folder / f"{Path(loaded.document.name).stem}.lock.json"


# --- what a recipe asks for ----------------------------------------------------------------------


class _Asked:
    """Everything that a recipe adopts, with its place in the file."""

    def __init__(self, loaded: LoadedRecipe, backbone: BackboneInfo) -> None:
        self.loaded, self.recipe, self.backbone = loaded, loaded.recipe, backbone
        self.faults: list[Fault] = []
        self.languages = dict(self._languages())
        self.tasks = dict(self._tasks())

    def fault(self, what: str, hint: str, at: tuple[str | int, ...]) -> None:
        self.faults.append(Fault(what, self.loaded.where(*at), hint))

    def _languages(self) -> Iterator[tuple[str, tuple[Adopt, tuple[str | int, ...]]]]:
        """Languages with what to adopt for them; `auto` is looked up in the table."""
        wanted = self.recipe.language_adapters
        if wanted is None or not wanted.adopt:
            return
        for language in worn_languages(self.recipe):
            adopt = self.recipe.adopts(language)
            if adopt is None:
                continue
            at: tuple[str | int, ...] = ("language_adapters", "adopt")
            for place in (("language_adapters", language), (*at, language)):
                at = place if place in self.loaded.document.lines else at
            if adopt.adapter == "auto":
                named = language in wanted.adopt
                found = self._known(language, at, wanted.missing == "error" or named)
                if found is None:
                    continue
                adopt = adopt.model_copy(update={"adapter": found})
            yield language, (adopt, at)
        for i, regime in enumerate(self.recipe.regime_list):
            if regime.language_adapter is not None:
                what = f"regime {regime.name!r} changes language adapters, and some are adopted"
                self.fault(what, "take the regime out, or train them all", ("regimes", i))

    def _known(self, language: str, at: tuple[str | int, ...], needed: bool) -> str | None:
        shape = self.backbone.shape
        sizes = (shape.layers, shape.hidden, shape.vocabulary)
        base = base_of(self.backbone.model_type, *sizes)
        table = known_adapters(base) if base is not None else {}
        if language in table:
            return f"hub:{table[language]}"
        if needed and base is None:
            self.fault(f"no adapters are known for this backbone ({self.backbone.name})", "", at)
        elif needed:
            have = ", ".join(sorted(table))
            self.fault(f"no adapter of {language!r} is known for {base}", f"there are {have}", at)
        return None

    def _tasks(self) -> Iterator[tuple[Adopt, tuple[str | int, ...]]]:
        for i, regime in enumerate(self.recipe.regime_list):
            for j, phase in enumerate(regime.phases):
                for adopt in phase.adopt.values():
                    yield adopt, ("regimes", i, "phases", j)

    def references(self) -> Iterator[tuple[Reference, Adopt]]:
        """Each reference, with what the recipe says of it."""
        for adopt in (*(adopt for adopt, _ in self.languages.values()), *self.tasks):
            yield Reference.parse(adopt.adapter), adopt


def resolve(
    loaded: LoadedRecipe, backbone: BackboneInfo, store: Store, lock: LockFile
) -> Adoptions:
    """What a recipe adopts, without the network.

    Raises:
        RecipeError: a reference is not locked, or a language has nothing to adopt.
        RefusedError: a check failed.
    """
    asked = _Asked(loaded, backbone)

    def of(adopt: Adopt, at: tuple[str | int, ...]) -> Adoption | None:
        reference = Reference.parse(adopt.adapter)
        if not reference.hub:
            folder = folder_of(reference, loaded.folder)
            adopted = look_at(store, folder, backbone, adopt, str(reference))
        elif str(reference) in lock.entries:
            adopted = lock.entries[str(reference)]
        else:
            asked.fault(f"{reference} is not locked", "run adapterxlt lock RECIPE", at)
            return None
        check(adopted, backbone, adopt, reference)
        return Adoption(reference, adopted, adopt)

    languages = {code: of(*one) for code, one in asked.languages.items()}
    tasks = {adopt: of(adopt, at) for adopt, at in asked.tasks.items()}
    if asked.faults:
        raise RecipeError(dict.fromkeys(asked.faults))
    return Adoptions(
        {code: one for code, one in languages.items() if one is not None},
        {adopt: one for adopt, one in tasks.items() if one is not None},
    )


def lock(
    loaded: LoadedRecipe, backbone: BackboneInfo, store: Store, path: Path, tell: Tell
) -> LockFile:
    """Resolve every reference of a recipe to a hub, fetch what it stands for, and write it down.

    Raises:
        AdapterXLTError: as `run.hub.adapters`; or a check failed, and nothing was written.
    """
    from adapterxlt.run.hub import adapters

    asked = _Asked(loaded, backbone)
    if asked.faults:
        raise RecipeError(dict.fromkeys(asked.faults))
    file = LockFile(path)
    for reference, adopt in asked.references():
        if not reference.hub:
            continue
        commit, sizes = adapters.resolve(reference.name, reference.revision, tell)
        label = f"{reference.place}:{reference.name}@{commit[:7]}"
        files = adapters.download(reference.name, commit, sorted(sizes), tell)
        found = look(store, files, backbone, adopt, label)
        found = found.model_copy(update={"commit": commit})
        check(found, backbone, adopt, reference)
        file.entries[str(reference)] = found
    file.write()
    return file


def folder_of(reference: Reference, base: Path) -> Path:
    """The folder that a reference names; relative ones begin at ``base``."""
    return (base / Path(reference.name).expanduser()).absolute()


def check(adopted: Adopted, backbone: BackboneInfo, adopt: Adopt, reference: Reference) -> None:
    """Refuse what was made for another backbone, is of another format than said, or is a pickle."""
    where = str(reference)
    if reference.place == "peft" and adopted.format != "peft":
        raise RefusedError("it is not in the format of peft", where=where, hint="write hub:")
    if adopted.pickles and not adopt.allow_pickle:
        raise pickle_refused(adopted.pickles[0], where)
    check_base(
        adopted.made_for,
        names=backbone.names,
        model_type=backbone.model_type,
        hidden=backbone.shape.hidden,
        digests=backbone.digests,
        vouched=adopt.base,
        where=where,
    )


# --- bytes ---------------------------------------------------------------------------------------


def bring(store: Store, adoptions: Iterable[tuple[str, Adoption]], base: Path, tell: Tell) -> int:
    """Put the files of adapters into the store, and note for each stage where they are from.

    Args:
        adoptions: keys of `adopt` stages, with what they adopt.
        base: what relative paths begin at.

    Returns:
        How many adapters were not there yet.

    Raises:
        RefusedError: a file is not what it was when it was looked at or locked.
        AdapterXLTError: as `run.hub.adapters.download`.
    """
    count = 0
    for key, one in adoptions:
        files = one.adopted.files
        if not all(store.has(file.sha256) for file in files.values()):
            count += 1
            _bring(store, one, base, tell)
        store.note("adopted", key, provenance(one))
    return count


def _bring(store: Store, one: Adoption, base: Path, tell: Tell) -> None:
    wanted = {file.name: file for file in one.adopted.files.values()}
    if one.reference.hub:
        from adapterxlt.run.hub import adapters

        assert one.adopted.commit is not None
        found = adapters.download(one.reference.name, one.adopted.commit, sorted(wanted), tell)
    else:
        found = read_folder(folder_of(one.reference, base))
    for name, file in wanted.items():
        if name not in found or sha256_hex(found[name]) != file.sha256:
            what = f"{name} is not what it was when it was looked at"
            raise RefusedError(what, where=one.label, hint="run adapterxlt lock, or run again")
        store.put(found[name])


def provenance(one: Adoption) -> dict[str, Any]:
    """Where an adapter is from, for its record and for reports; no path of this machine."""
    reference = one.reference
    name = reference.name if reference.hub else Path(reference.name).name
    name_of = one.adopted.made_for.get("model_name")
    return {
        "reference": f"{reference.place}:{name}",
        "revision": reference.revision,
        "commit": one.adopted.commit,
        "format": one.adopted.format,
        "made_for": short_name(name_of) if name_of else None,
        "pickle": bool(one.adopted.pickles),
    }
