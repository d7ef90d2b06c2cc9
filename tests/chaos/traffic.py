"""Traffic on an adapter that changes under it, and many who change one adapter at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loadtest.server import ServerProcess
from tests.chaos.republish import Republish
from tests.chaos.rows import Row
from tests.chaos.writers import WRITERS, Writers
from tests.soak.recognisable import Maker
from tests.support.bundles import save_tiny_base
from tests.support.postgres import Postgres

MOVES = 4  # of the alias by each writer


def run(seconds: float) -> list[Row]:
    """Traffic for so many seconds, then the writers on a registry of each kind, with servers in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = save_tiny_base(folder / "base")
        maker = Maker(base, folder)
        with ServerProcess(folder / "republish", folder / "server.log", base_model=base) as server:
            rows = [Republish(server.port, maker).run(seconds)]
        with Postgres(folder / "postgres") as postgres:
            for kind, url in (("SQLite", f"sqlite:///{folder}/writers.db"), ("PostgreSQL", postgres())):
                rows.append(_writers(folder / kind, base, url, maker, f"{WRITERS} writers, two servers, {kind}"))
    return rows


def _writers(folder: Path, base: Path, url: str, maker: Maker, fault: str) -> Row:
    shared = {"base_model": base, "registry_url": url}
    adapters, log = folder / "adapters", folder.with_suffix(".log")
    with ServerProcess(adapters, log, **shared) as one, ServerProcess(adapters, log, **shared) as other:
        return Writers([one.port, other.port], maker).run(fault, MOVES)
