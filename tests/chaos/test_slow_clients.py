"""The fault itself, at a small scale: what ``make chaos`` tries on a server of its own."""

from __future__ import annotations

from tests.chaos.slow_clients import slow_clients
from tests.support.server import Server


def test_a_few_slow_clients_cost_nobody_an_answer(server: Server) -> None:
    name, tried, lost, remark = slow_clients(server.port, half=10, asked=20)
    assert (name, tried) == ("10 half-sent heads and 10 half-sent bodies", 60)
    assert lost in (0, tried) and "times" in remark  # of so few requests the percentile says little


def test_a_server_that_is_not_there_loses_them_all() -> None:
    assert slow_clients(1, half=0, asked=8)[2] == 24
