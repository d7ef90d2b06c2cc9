"""Random lives of adapters at two servers on one registry, beside a model of them in plain Python."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.errors import AdapterDeleted, AdapterIncompatible, AdapterNotFound, VersionConflict
from service.store.alias import Target
from service.store.entries import QUARANTINED, READY
from service.store.layout import MANIFEST, WEIGHTS
from service.store.registry import Registry
from service.store.selector import Ref
from tests.store.model import METRIC, Adapter, bundle

NAMES, ALIASES, KEYS = ("irony", "mood"), ("live", "old"), ("user-1", "user-2", "user-3")
MEMORY = Path("/dev/shm")  # nothing here has to outlast a power cut, and waiting for a disk would take most of the time
MANY = 15  # of the numbers mean something that is there
RULES: tuple[Mapping[str, str] | None, ...] = (None, None, None, {}, {METRIC: ">= live"}, {METRIC: ">= 0.3"}, {"recall": ">= 0"})
names, aliases, servers, numbers = st.sampled_from(NAMES), st.sampled_from(ALIASES), st.integers(0, 1), st.integers(0, 15)


class Lives(RuleBasedStateMachine):
    """What a server shows is what it has last seen, by its own change or by looking; ``seen`` has it, as the model was then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.servers = [self.opened(), self.opened()]
        self.model = {name: Adapter() for name in NAMES}
        self.seen = [dict(self.model), dict(self.model)]
        self.log: list[tuple[str, str, int | None, str | None]] = []

    def opened(self, database: str = "registry.db") -> Registry:
        root = Path(self.folder.name)
        return Registry.open(root / "adapters", f"sqlite:///{root / database}")

    def teardown(self) -> None:
        try:
            self.what_the_files_alone_tell_is_the_same()
        finally:
            for server in self.servers:
                server.close()
            self.folder.cleanup()

    def changed(self, server: int, name: str, now: Adapter, action: str, version: int | None, alias: str | None = None) -> None:
        self.model[name] = self.seen[server][name] = now
        self.log.append((action, name, version, alias))

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            for weights in range(4):
                self.publish(weights % 2, name, weights)
            self.point(0, name, "live", 0, None, 0)
        self.look(0)
        self.look(1)

    @rule(server=servers, name=names, weights=numbers)
    def publish(self, server: int, name: str, weights: int) -> None:
        before = self.model[name]
        known = before.find(weights)
        found = self.servers[server].publish(name, bundle(weights))
        assert found == (Ref(name, known or before.newest + 1), known is None)
        if known is None:
            self.changed(server, name, before.add(weights), "publish", before.newest + 1)
        elif known in before.quarantined:
            self.changed(server, name, before.repair(known), "restore", known)

    @rule(server=servers, name=names, version=numbers)
    def publish_again(self, server: int, name: str, version: int) -> None:
        number = self.some(name, version)
        if number in self.model[name].versions:
            self.publish(server, name, self.model[name].versions[number])

    @rule(server=servers, name=names, alias=aliases, version=numbers, require=st.sampled_from(RULES), stale=numbers)
    def point(self, server: int, name: str, alias: str, version: int, require: Mapping[str, str] | None, stale: int) -> None:
        self.move(server, name, alias, Target.at(self.some(name, version)), require, stale)

    @rule(server=servers, name=names, alias=aliases, split=st.dictionaries(numbers, st.integers(1, 9), min_size=2, max_size=3))
    def split(self, server: int, name: str, alias: str, split: dict[int, int]) -> None:
        shares = {self.some(name, version): share for version, share in split.items()}
        self.move(server, name, alias, Target(dict(sorted(shares.items()))), None, 0)

    @rule(server=servers, name=names, alias=aliases, version=numbers, shadow=numbers)
    def shadow(self, server: int, name: str, alias: str, version: int, shadow: int) -> None:
        target = Target({self.some(name, version): 1}, shadow=self.some(name, version + shadow % MANY))
        self.move(server, name, alias, target, None, 0)

    def some(self, name: str, number: int) -> int:
        """A version of the adapter, deleted or not, or at times the one after them."""
        newest = self.model[name].newest
        return 1 + number % newest if newest and number < MANY else newest + 1

    def move(self, server: int, name: str, alias: str, target: Target, require: Mapping[str, str] | None, stale: int) -> None:
        before, generation = self.model[name], self.model[name].generation(alias)
        expected = generation + (stale > MANY)
        refused = before.refusals(alias, target, require, expected)
        try:
            moved = self.servers[server].set_alias(name, alias, target, require=require, expected=expected)
        except tuple(refused):
            return
        assert not refused
        now = before.point(alias, target, require)
        assert (moved.generation, moved.target) == (len(now.moves[alias]), now.aliases[alias])
        self.changed(server, name, now, "set", target.version, alias)

    @rule(server=servers, name=names, alias=aliases, version=st.none() | numbers)
    def roll_back(self, server: int, name: str, alias: str, version: int | None) -> None:
        """What may have been moved just now."""
        if version is not None:
            self.point(1 - server, name, alias, version, {}, 0)
        before = self.model[name]
        refusal: type[Exception] = VersionConflict if alias in before.aliases else AdapterNotFound
        try:
            moved = self.servers[server].roll_back(name, alias)
        except refusal:
            assert not before.can_roll_back(alias)
            return
        assert before.can_roll_back(alias)
        now = before.roll_back(alias)
        assert (moved.generation, moved.target) == (len(now.moves[alias]), now.aliases[alias])
        self.changed(server, name, now, "rollback", moved.target.version, alias)

    @rule(server=servers, name=names, alias=aliases)
    def remove(self, server: int, name: str, alias: str) -> None:
        before = self.model[name]
        try:
            self.servers[server].remove_alias(name, alias)
        except AdapterNotFound:
            assert alias not in before.aliases
            return
        self.changed(server, name, before.remove(alias), "remove", None, alias)

    @rule(server=servers, name=names, version=numbers, asked=st.booleans())
    def delete(self, server: int, name: str, version: int, asked: bool) -> None:
        """At times the other server is asked for it before it knows."""
        before, number = self.model[name], self.some(name, version)
        refused = before.refuses_to_delete(number)
        try:
            self.servers[server].delete(Ref(name, number))
        except tuple(refused):
            return
        assert not refused
        self.changed(server, name, before.delete(number), "delete", number)
        if asked:
            self.read(1 - server, name, version)

    @rule(name=names, version=numbers, file=st.sampled_from((MANIFEST, WEIGHTS)), noticed=st.sampled_from((None, 0, 1)))
    def damage(self, name: str, version: int, file: str, noticed: int | None) -> None:
        before, number = self.model[name], self.some(name, version)
        if number in before.versions:
            (Path(self.folder.name) / "adapters" / name / str(number) / file).write_bytes(b"[")
            self.model[name] = before.damage(number)
            if noticed is not None:
                self.read(noticed, name, version)

    @rule(server=servers, name=names, version=numbers)
    def read(self, server: int, name: str, version: int) -> None:
        """As a request does that finds the version out of memory."""
        before, number = self.model[name], self.some(name, version)
        if number not in self.seen[server][name].versions:
            return
        try:
            found = self.servers[server].read(Ref(name, number))
        except AdapterNotFound:
            assert number in before.deleted
            self.look(server)
        except AdapterIncompatible:
            assert number in before.damaged
            if number not in before.quarantined:
                self.changed(server, name, before.quarantine(number), "quarantine", number)
        else:
            assert number in before.versions and number not in before.damaged
            assert found.weights == bundle(before.versions[number]).weights

    @rule(server=servers)
    def look(self, server: int) -> None:
        self.servers[server].refresh()
        self.seen[server] = dict(self.model)

    @rule(server=servers)
    def restart(self, server: int) -> None:
        self.servers[server].close()
        self.servers[server] = self.opened()
        self.servers[server].collect()
        self.seen[server] = dict(self.model)

    @invariant()
    def each_server_shows_what_it_has_seen(self) -> None:
        for server, seen in zip(self.servers, self.seen, strict=True):
            for name, known in seen.items():
                entry = server.entry(name)
                assert sorted({*entry.versions, *entry.deleted}) == list(range(1, known.newest + 1))
                assert entry.deleted == known.deleted and entry.newest == known.newest
                states = {number: version.state for number, version in entry.versions.items()}
                assert states == {n: QUARANTINED if n in known.quarantined else READY for n in known.versions}
                pointing = {alias: (at.generation, at.target) for alias, at in entry.aliases.items()}
                assert pointing == {alias: (known.generation(alias), at) for alias, at in known.aliases.items()}
                assert all(at.versions <= set(entry.versions) for _, at in pointing.values())

    @invariant()
    def every_selector_is_resolved(self) -> None:
        for server, seen in zip(self.servers, self.seen, strict=True):
            for name, known in seen.items():
                for number in range(1, known.newest + 2):
                    self.resolves(server, f"{name}:{number}", {number} & set(known.versions), number in known.deleted)
                for alias in ALIASES:
                    meant = set(known.aliases[alias].split) if alias in known.aliases else set()
                    for selector in (f"{name}@{alias}", name)[: 1 + (alias == "live")]:
                        self.resolves(server, selector, meant)

    def resolves(self, server: Registry, selector: str, meant: set[int], deleted: bool = False) -> None:
        if not meant:
            with pytest.raises(AdapterDeleted if deleted else AdapterNotFound):
                server.resolve(selector)
            return
        for key in (None, *KEYS):
            assert server.resolve(selector, key).version in meant
            assert key is None or server.resolve(selector, key) == server.resolve(selector, key)

    @invariant()
    def history_and_audit_tell_all_of_it(self) -> None:
        records = self.servers[0].records
        for name, known in self.model.items():
            for alias in ALIASES:
                told = [(move.generation, move.action, move.target) for move in reversed(records.history(name, alias))]
                assert told == [(1 + n, move.action, move.target) for n, move in enumerate(known.moves.get(alias, ()))]
        entries = reversed(records.audit(1000))
        assert [(entry.action, entry.name, entry.version, entry.alias) for entry in entries] == self.log

    def what_the_files_alone_tell_is_the_same(self) -> None:
        rebuilt = self.opened("other.db")
        try:
            for name, known in self.model.items():
                entry = rebuilt.entry(name)
                assert (set(entry.versions), entry.deleted) == (set(known.versions), known.deleted)
                assert {alias: at.target for alias, at in entry.aliases.items()} == dict(known.aliases)
        finally:
            rebuilt.close()


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,  # a commit waits for the disk
    derandomize=True,
    phases=[Phase.generate],  # to shrink a failure as well takes minutes; with Phase.shrink it is done
    suppress_health_check=[HealthCheck.too_slow],  # for the same reason
)
