from __future__ import annotations

from pathlib import Path

from loadtest.outcome import OK, Outcome
from loadtest.peers import OURS, PEER, PLAIN, compare, main
from tests.support.command import script


def outcome(rate: int, seconds: float) -> Outcome:
    """So many answers a second, each after so many seconds."""
    due = [i / rate for i in range(10 * rate)]
    return Outcome(due, [seconds] * len(due), [OK] * len(due), seconds=10.0)


def test_ours_is_compared_with_the_peer_and_only_the_default_has_bars() -> None:
    fast, slow = outcome(300, 0.03), outcome(100, 0.1)
    outcomes = {(name, count): [found] * 3 for name, found in ((OURS, fast), (PLAIN, slow), (PEER, slow)) for count in (32, 1)}
    requests, p99, p50 = compare(OURS, outcomes)
    assert round(requests.figure, 1) == 3.0 and requests.met == (requests.figure >= 3) and requests.at_least
    assert round(p99.figure, 2) == round(p50.figure, 2) == 0.3 and p99.met and p50.stretched
    assert set(p50.detail) == {OURS, PEER}
    assert [figure.bar for figure in compare(PLAIN, outcomes)] == [None] * 3


def test_without_infinity_one_line_says_what_installs_it(tmp_path: Path) -> None:
    code, said = script(main, "--rehearse", "--infinity", str(tmp_path / "infinity_emb"), "--output", str(tmp_path / "reports"))
    assert code == 2 and not (tmp_path / "reports").exists()
    assert "no Infinity there; 'make bench-peers' installs it" in said and len(said.strip().splitlines()) == 1


def test_the_peers_packages_are_pinned() -> None:
    lines = (Path(__file__).parents[2] / "loadtest/peers.txt").read_text("utf-8").splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert all("==" in line for line in packages) and "infinity_emb==0.0.78" in packages
