"""Publishing what was trained, once, however often a server is killed on the way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import RequirementNotMet
from service.jobs.job import Job, Order, Status
from service.jobs.publishing import check_gate, publish
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from training.bundles import write_bundle

if TYPE_CHECKING:
    from tests.conftest import Start


def job(**parts: Any) -> Job:
    order = Order(
        name="mood", task=TEXT_CLASSIFICATION, source="a", data="data.csv", base_model="b", options={}, who="ann",
        created=datetime.now(UTC), **parts,
    )  # fmt: skip
    return Job("0" * 20, order, Status())


def test_what_is_published_again_after_a_kill_is_the_same_version_and_moves_no_alias_back(
    start: Start, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    lifecycle = start().application.services.lifecycle
    earlier, _ = lifecycle.publish("mood", bundles["irony-2"], "live")
    write_bundle(bundles["irony"], tmp_path / "bundle")
    wanted = job(alias="live", gate={"accuracy": 0.5})
    first = publish(wanted, tmp_path / "bundle", lifecycle)
    assert first[0] and (first[0].version, first[0].alias, first[1]) == (2, "live", None)
    assert lifecycle.registry.resolve("mood").version == 2
    lifecycle.set_alias("mood", "live", Target.at(earlier.version), who="bob")
    assert publish(wanted, tmp_path / "bundle", lifecycle) == first
    assert lifecycle.registry.resolve("mood").version == earlier.version
    (entry,) = [one for one in lifecycle.registry.records.audit(100, None, "mood", "") if one.version == 2 and one.alias is None]
    assert (entry.action, entry.who) == ("publish", "ann")


def test_a_version_below_what_the_alias_requires_is_published_and_not_pointed_at(
    start: Start, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    lifecycle = start().application.services.lifecycle
    write_bundle(bundles["irony"], tmp_path / "bundle")
    result, fault = publish(job(alias="live", require={"accuracy": ">= 0.9"}), tmp_path / "bundle", lifecycle)
    assert result and (result.version, result.alias) == (1, None)
    assert fault and fault.code == "requirement_not_met" and "requires 0.9" in fault.detail
    assert not lifecycle.registry.get("mood").aliases


def test_a_bundle_that_is_damaged_or_does_not_fit_is_told_of(start: Start, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    lifecycle = start().application.services.lifecycle
    result, fault = publish(job(), tmp_path, lifecycle)
    assert result is None and fault and fault.code == "adapter_incompatible"
    lifecycle.publish("mood", bundles["vqa"])
    write_bundle(bundles["irony"], tmp_path / "bundle")
    result, fault = publish(job(), tmp_path / "bundle", lifecycle)
    assert result and result.version is None and fault and fault.code == "version_conflict"


def test_a_gate_is_met_by_what_reaches_it_and_not_by_what_is_no_number() -> None:
    manifest = Manifest(
        task=TEXT_CLASSIFICATION, labels=("a", "b"),
        metrics={"test": {"accuracy": 0.7}, "validation": {"accuracy": 0.9, "macro_f1": float("nan")}},
    )  # fmt: skip
    check_gate(job(gate={"accuracy": 0.9, "test.accuracy": 0.7}).order, manifest)
    for gate, said in (({"test.accuracy": 0.8}, "test.accuracy is 0.7"), ({"macro_f1": 0.0}, "macro_f1 is nan")):
        with pytest.raises(RequirementNotMet, match=said):
            check_gate(job(gate=gate).order, manifest)
