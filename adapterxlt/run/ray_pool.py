"""Where stages run on a Ray cluster: actors that keep their desk between stages, on any node.

Without an address the cluster is this machine's own: started on the loopback interface alone,
behind a token made for it, and ended with the pool. Results come through the store; a node that
does not see it is sent what a stage reads (`run.parcels`), and what the stage leaves there is
brought back. Ray is imported when the pool connects, not before. Called by `cli`.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from adapterxlt import __version__
from adapterxlt.core.errors import AdapterXLTError, StageError, UsageError
from adapterxlt.run import parcels, worker
from adapterxlt.run.desk import Places
from adapterxlt.run.parcels import Parcel
from adapterxlt.run.pools import threads_of
from adapterxlt.run.requests import CohortFailed, Request
from adapterxlt.store.files import write_bytes
from adapterxlt.store.store import Store

#: On a node: where the store is there, or a store of the node's own that lasts.
NODE_STORE = "ADAPTERXLT_NODE_STORE"
#: Bytes for what Ray passes between processes of this machine's own cluster.
OBJECTS = 256 << 20
LOOPBACK = "127.0.0.1"


class Actor:
    """A worker on a node."""

    def __init__(self) -> None:
        # Ray ends it when its node's own process or the driver ends.
        worker.initialize(None)
        self.where = f"node {platform.node()}"
        self.scratch: Path | None = None

    def greet(self, places: Places, nonce: str, version: str) -> bool | StageError:
        """Whether the node sees the driver's store; an error where it cannot compute."""
        if version != __version__:
            return StageError(f"it has adapterxlt {__version__}, not {version}", where=self.where)
        missing = [name for name in parcels.folders(places) if not Path(name).is_dir()]
        if missing:
            hint = "every node needs it under this name"
            return StageError(f"no folder {', '.join(missing)}", where=self.where, hint=hint)
        given = os.environ.get(NODE_STORE)
        root = Path(given) if given else places.store
        sees = _mark(root, nonce).is_file()
        if not sees and not given:
            self.scratch = root = Path(tempfile.gettempdir()) / f"adapterxlt-{nonce}"
            root.mkdir(0o700, exist_ok=True)
        self.places, self.store = replace(places, store=root), Store(root)
        return sees

    def lacking(self, sent: Parcel) -> set[str]:
        return parcels.lacking(self.store, sent)

    def unpack(self, sent: Parcel, content: dict[str, bytes]) -> None:
        parcels.unpack(self.store, sent, content)

    def run(self, request: Request) -> bool | Exception:
        """What `worker.run_stage` returns or raises, as a value."""
        try:
            return worker.run_stage(replace(request, places=self.places))
        except CohortFailed as failed:
            return failed
        except AdapterXLTError as error:
            error.where = f"{error.where} ({self.where})" if error.where else self.where
            return error
        except Exception as error:
            return StageError(f"{type(error).__name__}: {error}", where=self.where)

    def left(self, key: str) -> tuple[dict[str, bytes], Any] | None:
        return parcels.left(self.store, key)

    def leave(self) -> None:
        """Remove what was kept for this run alone."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


@dataclass(eq=False)
class _Seat:
    """The driver's hold on an actor."""

    actor: Any
    sees: bool | None = None
    """Whether it sees the store; ``None`` until it has greeted."""


class RayPool:
    """Long-lived actors on a Ray cluster, which end with this process.

    Args:
        workers: how many; with an address ``None`` for as many as there is room for now.
        threads: of each; its CPUs, as Ray counts them.
        device: with ``cuda`` each has a GPU.
        memory: bytes of each, as Ray counts them; see `cost.memory`.
        address: HOST:PORT of a cluster that this machine is a node of; Ray finds its token in
            RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token with RAY_AUTH_MODE=token.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or no node has room.
    """

    def __init__(
        self,
        workers: int | None,
        *,
        threads: int = 1,
        device: str = "cpu",
        memory: int = 0,
        address: str | None = None,
    ) -> None:
        self.threads, self.memory, self.address = threads, memory, address
        self.gpus = int(device == "cuda")
        self._connected = False
        self._folder: str | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._seats: set[_Seat] = set()
        self._idle: SimpleQueue[_Seat | Exception] = SimpleQueue()
        self._fault: AdapterXLTError | None = None
        self._nonce = secrets.token_hex(16)
        self.workers = workers or 1
        if workers is None and address is not None:
            self.workers = self._connect()

    def submit(self, request: Request) -> Future[bool]:
        if self._threads is None:
            self._threads = self._open(request.places)
        if self._fault is not None:
            raise self._fault
        # Also those are replaced that died unnoticed by the scheduler, after a renewal.
        self.renew()
        return self._threads.submit(self._compute, request)

    def renew(self) -> None:
        """Start new actors in the place of ones that died."""
        while len(self._seats) < self.workers:
            self._hire()

    def close(self, *, now: bool = False) -> None:
        """Stop; ``now`` does not wait for running stages, which go on from snapshots later."""
        if not self._connected:
            return
        import ray

        self._connected = False
        if now:
            for seat in list(self._seats):
                ray.kill(seat.actor)
            for _ in range(self.workers):
                self._idle.put(BrokenProcessPool("closed"))
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            _mark(self._places.store, self._nonce).unlink(missing_ok=True)
        if not now:
            leaving = [seat.actor.leave.remote() for seat in self._seats if seat.sees is not None]
            ray.wait(leaving, num_returns=len(leaving), timeout=5) if leaving else None
        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, places: Places) -> ThreadPoolExecutor:
        """Make ready for a study; a thread for each actor waits for it."""
        if not self._connected:
            self._connect()
        self._places, self._store = places, Store(places.store)
        self._corpus = places.reading.open(self._store, places.store)
        write_bytes(_mark(places.store, self._nonce), b"")
        return ThreadPoolExecutor(self.workers)

    def _connect(self) -> int:
        """Join the cluster, or start one; how many actors there is room for."""
        if self.address is None:
            os.environ.update(_private())
        try:
            import ray
        except ImportError:
            hint = "pip install 'adapterxlt[ray]'"
            raise UsageError("Ray is not installed", where="--pool ray", hint=hint) from None
        main = threading.current_thread() is threading.main_thread()
        terminated = signal.getsignal(signal.SIGTERM)
        where = f"--address {self.address}" if self.address else "--pool ray"
        self._connected = True
        try:
            if self.address is None:
                self._start()
            else:
                _reach(self.address)
                ray.init(self.address, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self.close()
            if "InvalidAuthToken" in "".join(traceback.format_exception(error)):
                what, hint = "the cluster asks for another token", "see RAY_AUTH_TOKEN_PATH"
                raise UsageError(what, where=where, hint=hint) from error
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"no Ray cluster: {reason}", where=where) from error
        finally:
            if main:
                # Ray puts its own in the place of the caller's.
                signal.signal(signal.SIGTERM, terminated)
        room = sum(self._fits(node["Resources"]) for node in ray.nodes() if node["Alive"])
        if not room:
            self.close()
            gpu = f", {self.gpus} GPU" if self.gpus else ""
            size = f"{self.threads} CPU{gpu}, {self.memory / 2**30:.1f} GiB"
            raise UsageError(f"no node has room for a worker ({size})", where=where)
        return room

    def _start(self) -> None:
        """Start a cluster of this machine alone."""
        import ray

        # Others can look into Ray's own folder; its sockets ask for no token.
        self._folder = tempfile.mkdtemp(prefix="adapterxlt-", dir="/tmp")
        context = ray.init(
            "local",
            num_cpus=self.workers * self.threads,
            num_gpus=None if self.gpus else 0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=OBJECTS,
            _temp_dir=f"{self._folder}/ray",
        )
        if context.address_info["node_ip_address"] != LOOPBACK:
            raise RuntimeError("it would be open to the network: ray was imported too early")

    def _fits(self, has: dict[str, float]) -> int:
        """How many actors a node has room for."""
        wanted = {"CPU": self.threads, "GPU": self.gpus, "memory": self.memory}
        return min(int(has.get(name, 0) // size) for name, size in wanted.items() if size)

    def _hire(self) -> None:
        import ray

        kind = ray.remote(Actor).options(
            num_cpus=self.threads,
            num_gpus=self.gpus,
            memory=self.memory or None,
            runtime_env={"env_vars": threads_of(self.threads)},
        )
        seat = _Seat(kind.remote())
        self._seats.add(seat)
        greeting = seat.actor.greet.remote(self._places, self._nonce, __version__)
        greeting.future().add_done_callback(partial(self._greeted, seat))

    def _greeted(self, seat: _Seat, answer: Future[Any]) -> None:
        """Note that an actor is ready, or why it is not."""
        error = answer.exception()
        found = _died(error) if error is not None else answer.result()
        if isinstance(found, AdapterXLTError):
            self._fault = found
        if isinstance(found, Exception):
            self._seats.discard(seat)
            self._idle.put(found)
            return
        seat.sees = found
        self._idle.put(seat)

    def _compute(self, request: Request) -> bool:
        """Have the next free actor compute a stage."""
        from ray.exceptions import RayError

        seat = self._idle.get()
        if isinstance(seat, Exception):
            raise seat
        try:
            answer = self._ask(seat, request)
        except RayError as error:
            self._seats.discard(seat)
            raise _died(error) from error
        except BaseException:
            self._idle.put(seat)
            raise
        self._idle.put(seat)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ask(self, seat: _Seat, request: Request) -> bool | Exception:
        import ray

        actor, requests = seat.actor, (request, *request.cohort)
        if not seat.sees:
            sent = parcels.parcel(self._store, self._corpus, requests)
            wanted = ray.get(actor.lacking.remote(sent))
            ray.get(actor.unpack.remote(sent, parcels.pack(self._store, sent, wanted)))
        answer: bool | Exception = ray.get(actor.run.remote(request))
        keys = [one.key for one in requests]
        there = self._store.present(keys)
        for one in requests:
            if one.key not in there:
                # Of a node that does not see the store, or whose writing is not seen here yet.
                left = ray.get(actor.left.remote(one.key))
                if left is not None:
                    self._store.publish(one.key, one.stage.canonical(), *left)
        return answer


def _died(error: BaseException) -> Exception:
    """What an actor's death means: a worker that died, or that could not be made on its node."""
    lines = str(error).strip().splitlines()
    if getattr(error, "actor_init_failed", False):
        hint = "is adapterxlt on every node?"
        return StageError(f"no worker could be made: {lines[-1]}", where="--pool ray", hint=hint)
    return BrokenProcessPool(lines[0])


def _reach(address: str) -> None:
    """Find out soon what Ray would try for minutes: whether anybody is there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("not HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@lru_cache(maxsize=1)
def _private() -> dict[str, str]:
    """The environment of a cluster that nobody else enters. It stays when the cluster has ended:
    Ray reads some of it once in a process, and its threads read the token until the last.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The one way to have all of its servers on the loopback interface; Ray's own choice on
        # other systems than Linux.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _mark(root: Path, nonce: str) -> Path:
    """What the driver leaves in the store, for actors to see whether it is theirs too."""
    return root / "work" / "ray" / nonce
