"""Which adapter versions are in memory: checked copies in the host's, loaded ones on the device, each within a budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from typing import Any, Protocol, TypeVar

from service.errors import AdapterIncompatible, Overloaded, QuickchangeError
from service.store.bundle import Bundle
from service.store.selector import Ref
from service.tasks.tier import Tier

Result = TypeVar("Result")
Checked = TypeVar("Checked", bound="Sized")
Loaded = TypeVar("Loaded")
Loaded_co = TypeVar("Loaded_co", covariant=True)
EXCESS = 0.05  # of the device's budget, for a load while everything there is in use
RETRY_SECONDS = 1.0  # how long a version that could not be read is not read again
PATIENCE, STEP = 0.02, 0.001  # seconds to wait for room: an answer may be out a moment before its lease is over
MB = 1e6


class OnDevice(Protocol):
    """Runs a call on the thread that forwards run on, and waits for its result."""

    def __call__(self, call: Callable[[], Result], /) -> Result: ...


class Sized(Protocol):
    """A checked adapter in host memory, and the bytes that it takes there."""

    @property
    def nbytes(self) -> int: ...


class Loader(Protocol[Checked, Loaded_co]):
    """A task's way from a bundle to an adapter that can answer; both steps may run on any thread."""

    def parse(self, bundle: Bundle, /) -> Checked:
        """Check a bundle completely; raises :class:`AdapterIncompatible` with all faults."""

    def device_bytes(self, checked: Checked, /) -> int:
        """What :meth:`load` will take on the device."""

    def load(self, checked: Checked, /) -> Loaded_co:
        """Copy a checked adapter to the device."""


class Residency:
    """The versions of every task in two tiers: ``device``, and ``host`` to load from without disk, hash or checks.

    ``read`` gets a version from the store. A version is read and loaded once, on the thread of the first that asks, for
    all that ask meanwhile. A failure is theirs alone; for a second it is raised again without another look.
    """

    def __init__(self, read: Callable[[Ref], Bundle], *, device_bytes: int, host_bytes: int) -> None:
        self.device: Tier[Any] = Tier(device_bytes, EXCESS)
        self.host: Tier[Any] = Tier(host_bytes)
        self._read = read
        self._lock = threading.Lock()
        self._loading: dict[Ref, Future[Any]] = {}
        self._unwanted: set[Ref] = set()  # of those that are being loaded, the ones that were dropped meanwhile
        self._failed: dict[Ref, tuple[float, QuickchangeError]] = {}

    def __contains__(self, ref: Ref) -> bool:
        return ref in self.device

    def get(self, ref: Ref, loader: Loader[Checked, Loaded]) -> Loaded:
        """The loaded version, which stays in memory as long as the caller holds it.

        Raises what the store and ``loader`` raise, and :class:`Overloaded` when everything in memory is in use.
        """
        found: Loaded | None = self.device.get(ref)
        return found if found is not None else self._get_or_load(ref, loader)

    def load(self, checked: Checked, loader: Loader[Checked, Loaded]) -> Loaded:
        """Load a checked adapter into room made for it; raises as :meth:`get` does."""
        nbytes, budget = loader.device_bytes(checked), self.device.budget
        if nbytes > budget:
            raise AdapterIncompatible(
                [f"it takes {nbytes / MB:.1f} MB on the device, where adapters may take {budget / MB:.1f} MB together"]
            )
        loaded: Loaded | None = self.device.admit(nbytes, lambda: loader.load(checked))
        end = time.monotonic() + PATIENCE
        while loaded is None and time.monotonic() < end:
            time.sleep(STEP)
            loaded = self.device.admit(nbytes, lambda: loader.load(checked))
        if loaded is None:
            raise Overloaded(
                f"the {budget / MB:.1f} MB for adapters on the device are all in use; ask again, or for fewer adapters at once"
            )
        return loaded

    def put(self, ref: Ref, checked: Sized, loaded: object) -> None:
        """Keep a version that was parsed and loaded before it had a number."""
        self._keep_checked(ref, checked)
        self.device.keep(ref, loaded)
        with self._lock:  # its files may have been repaired
            self._failed = {other: failed for other, failed in self._failed.items() if other != ref}

    def drop(self, ref: Ref) -> None:
        """Forget a version; requests that hold it still finish with it, and those that wait for it as well."""
        with self._lock:
            if ref in self._loading:
                self._unwanted.add(ref)
        self._forget(ref)

    def _get_or_load(self, ref: Ref, loader: Loader[Checked, Loaded]) -> Loaded:
        with self._lock:
            found: Loaded | None = self.device.get(ref)  # again: it may have come before the lock did
            if found is not None:
                return found
            pending, mine = self._loading.get(ref), Future[Loaded]()
            if pending is None:
                self._refuse_if_just_failed(ref)
                self._loading[ref] = mine
        return pending.result() if pending is not None else self._load_for_all(ref, loader, mine)

    def _load_for_all(self, ref: Ref, loader: Loader[Checked, Loaded], waiting: Future[Loaded]) -> Loaded:
        try:
            loaded = self.load(self._checked(ref, loader), loader)
            self.device.keep(ref, loaded)
        except BaseException as error:
            waiting.set_exception(error)
            raise
        else:
            waiting.set_result(loaded)
            return loaded
        finally:
            with self._lock:
                del self._loading[ref]
                dropped = ref in self._unwanted
                self._unwanted.discard(ref)
            if dropped:
                self._forget(ref)

    def _forget(self, ref: Ref) -> None:
        self.host.drop(ref)  # first: who does not find it on the device any more finds it nowhere
        self.device.drop(ref)

    def _checked(self, ref: Ref, loader: Loader[Checked, Loaded]) -> Checked:
        checked: Checked | None = self.host.get(ref)
        if checked is None:
            try:
                checked = loader.parse(self._read(ref))
            except QuickchangeError as error:
                self._remember(ref, error)
                raise
            self._keep_checked(ref, checked)
        return checked

    def _keep_checked(self, ref: Ref, checked: Sized) -> None:
        if self.host.admit(checked.nbytes, lambda: checked) is not None:
            self.host.keep(ref, checked)

    def _remember(self, ref: Ref, error: QuickchangeError) -> None:
        now = time.monotonic()
        with self._lock:
            recent = {other: failed for other, failed in self._failed.items() if failed[0] > now}
            # A copy has no traceback, which would hold whatever the failed request held.
            self._failed = {**recent, ref: (now + RETRY_SECONDS, copy(error))}

    def _refuse_if_just_failed(self, ref: Ref) -> None:
        until, error = self._failed.get(ref, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise copy(error)
