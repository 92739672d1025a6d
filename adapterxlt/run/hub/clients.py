"""Talking to a hub through its own client: patience, and every failure as the one error of ours.

Endpoint, token, cache and offline mode are the client's (``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HOME``, ``HF_HUB_OFFLINE``). `run.hub.datasets` and `run.hub.adapters` fetch through it, and
nothing else uses the network.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from adapterxlt.core.adoption import COMMIT
from adapterxlt.core.errors import AdapterXLTError, DataError, UsageError

Tell = Callable[[str], None]
T = TypeVar("T")

#: Seconds before another try, where the hub does not say how many.
PAUSES = (1.0, 2.0, 4.0)
#: A hub that asks for more patience than this is not waited for.
LONGEST_PAUSE = 60.0
#: Answers that pass. In a download the clients themselves try again, save after the first.
BUSY = frozenset({429, 500, 502, 503, 504})


class OfflineError(AdapterXLTError):
    """Something has to be fetched, and the clients were told to stay offline."""

    exit_code = 4


class HubError(AdapterXLTError):
    """The hub cannot be reached, or does not answer as a hub does."""


class Wanted(Protocol):
    """What is asked of a hub, as far as messages need it; its kind is `data set` or `adapter`."""

    @property
    def hub(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Clients:
    """The hub's own client, its errors, and whether it is to stay offline."""

    hub: Any
    errors: Any
    offline: bool


def clients() -> Clients:
    """The client, imported when it is first needed.

    Raises:
        UsageError: it is not installed.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError as error:
        raise missing_package(error) from error
    return Clients(hub, errors, bool(constants.HF_HUB_OFFLINE))


def missing_package(error: ImportError) -> UsageError:
    """What to say where a client is not installed."""
    what = f"fetching needs a package that is missing: {error.name or error}"
    return UsageError(what, hint="pip install datasets")


def patient(call: Callable[[], T], again: frozenset[int], tell: Tell) -> T:
    """The call's result, after more tries where the hub was busy or a download was cut."""
    for pause in (*PAUSES, None):
        try:
            return call()
        except Exception as error:
            wait = 0.0 if _cut(error) else _asked_pause(error, again, pause or 0.0)
            if pause is None or wait is None or wait > LONGEST_PAUSE:
                raise
            tell(f"{first_line(error)}: trying again" + (f" in {wait:.0f} s" if wait else ""))
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _asked_pause(error: BaseException, again: frozenset[int], pause: float) -> float | None:
    """Seconds until another try makes sense; ``None`` when it does not."""
    answer = answer_of(error)
    if answer is None or answer.status_code not in again:
        return None
    asked = str(answer.headers.get("Retry-After", ""))
    # The hub itself says it in another way: RateLimit: "api";r=0;t=55
    until = re.search(r";\s*t\s*=\s*(\d+)", str(answer.headers.get("RateLimit", "")))
    asked = until[1] if until and answer.status_code == 429 and not asked else asked
    return float(asked) if asked.isdigit() else pause


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def answer_of(error: BaseException) -> Any:
    """The hub's answer that an error is about."""
    for step in _chain(error):
        answer = getattr(step, "response", None)
        if answer is not None:
            return answer
    return None


def _cut(error: BaseException) -> bool:
    """Whether a connection broke off in the middle of a request or of its answer."""
    return any(
        type(step).__name__ in ("ChunkedEncodingError", "IncompleteRead", "RemoteProtocolError")
        or isinstance(step, ConnectionResetError | BrokenPipeError)
        or "Consistency check failed" in str(step)
        for step in _chain(error)
    )


def _of_network(error: BaseException) -> bool:
    """Whether it is about a connection; without naming the library that the client uses for it."""
    return any(
        type(step).__module__.split(".")[0] in ("requests", "urllib3", "httpx", "httpcore")
        or isinstance(step, ConnectionError | TimeoutError)
        for step in _chain(error)
    )


@contextmanager
def as_ours(wanted: Wanted, clients: Clients, otherwise: str) -> Iterator[None]:
    """Whatever a client raises, as the one error that says what to do about it."""
    try:
        yield
    except AdapterXLTError:
        raise
    except Exception as error:
        raise _ours(error, wanted, clients.errors, otherwise) from error


def _ours(error: Exception, wanted: Wanted, errors: Any, otherwise: str) -> AdapterXLTError:
    def of(name: str) -> bool:
        return any(isinstance(step, getattr(errors, name)) for step in _chain(error))

    label, answer = wanted.label, answer_of(error)
    status = getattr(answer, "status_code", None)
    token = "set HF_TOKEN to a token that may read it"
    if of("OfflineModeIsEnabled"):
        return offline(wanted)
    if of("GatedRepoError"):
        return DataError(
            f"{wanted.hub} is gated: its owners decide who may read it",
            hint=f"ask for access on its page, then {token}",
        )
    if of("RevisionNotFoundError"):
        commit = COMMIT.fullmatch(wanted.revision)
        return DataError(
            f"{wanted.hub} has no {'commit' if commit else 'branch or tag'} {wanted.revision}",
            hint=f"what there is is listed on the {wanted.kind}'s page",
        )
    if of("RepositoryNotFoundError"):
        return DataError(
            f"there is no {wanted.kind} {wanted.hub}, or it is private",
            hint=f"check the name, or {token}",
        )
    if status in (401, 403):
        return DataError(f"the hub refuses {wanted.hub} ({status})", hint=token)
    if status == 404:
        return DataError(f"{label} has a file that the hub has not got: {answer.url}")
    if status in BUSY:
        return HubError(
            f"the hub is too busy for {label} ({status})",
            hint="run it again later, it goes on where it stopped"
            + ("; with HF_TOKEN set the limits are wider" if status == 429 else ""),
        )
    if status is not None and status >= 400:
        return HubError(f"the hub answered {status} for {label}")
    if _cut(error) or _of_network(error):
        return HubError(
            f"the connection to the hub failed for {label}: {first_line(_root(error))}",
            hint="run it again, it goes on where it stopped",
        )
    return DataError(f"{label} {otherwise}: {first_line(_root(error))}")


def _root(error: BaseException) -> BaseException:
    """What an error came from; contexts of no interest left out."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def offline(wanted: Wanted) -> OfflineError:
    return OfflineError(
        f"{wanted.label} has not been fetched, and the hub's clients are to stay offline",
        hint="fetch it without HF_HUB_OFFLINE, where the hub can be reached",
    )
