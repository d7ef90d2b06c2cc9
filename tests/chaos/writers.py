"""Many writers of one name at once, through several servers on one registry."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from service.store.selector import LIVE
from tests.chaos.rows import Row
from tests.soak.ledger import Line, Question
from tests.soak.recognisable import Maker
from tests.support.server import PARTS

WRITERS, SAME = 16, 8  # of them, so many upload the same bytes
NAME = "mood"
ADAPTER = f"/v1/adapters/{NAME}"
BUSY = (429, 503)
TRIES = 100  # of a change while the server is busy
SEEN = 2.0  # seconds until every server must have seen a change


class Writers:
    """Sixteen clients, spread over the servers at these ports; ``faults`` is what was not as it must be, in words."""

    def __init__(self, ports: Sequence[int], maker: Maker, seen: float = SEEN) -> None:
        self._clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) for port in ports]
        self._line = Line(NAME)
        self._uploads = [maker.version(NAME, min(writer, WRITERS - SAME)) for writer in range(WRITERS)]
        self._busy, self._seen = 0, seen
        self.faults: list[str] = []

    def run(self, fault: str, moves: int) -> Row:
        """All publish, then each moves the same alias so many times."""
        with ThreadPoolExecutor(WRITERS) as threads:
            published = list(threads.map(self._publish, range(WRITERS)))
            self._check_versions(published)
            self._check_aliases([answer.json()["version"] for answer in published])
            created = Counter(threads.map(self._create, range(WRITERS)))
            self._expect("answers to sixteen who each make the alias", created, {200: 1, 412: WRITERS - 1})
            won = [win for wins in threads.map(lambda writer: self._move(writer, moves), range(WRITERS)) for win in wins]
        self._check_moves(won, WRITERS * moves)
        for client in self._clients:
            client.close()
        detail = f"{len(self._line.versions)} versions of {WRITERS} uploads; {len(won)} moves, each by one winner"
        return Row(fault, WRITERS + len(won), len(self.faults), "; ".join([f"{detail}; busy {self._busy} times", *self.faults]))

    def _publish(self, writer: int) -> httpx.Response:
        files = {part: (PARTS[part], data) for part, data in self._uploads[writer][1].items()}
        return self._patiently(
            lambda: self._client(writer).post(f"{ADAPTER}/versions", files=files, data={"alias": f"of-{writer}"})
        )

    def _create(self, writer: int) -> int:
        return self._put(writer, 1, {"if-none-match": "*"}).status_code

    def _move(self, writer: int, moves: int) -> list[tuple[int, int]]:
        """Read, decide and write until so many moves have succeeded: their generations, and where they pointed."""
        won: list[tuple[int, int]] = []
        while len(won) < moves:
            seen = self._client(writer).get(f"{ADAPTER}/aliases/{LIVE}").json()
            version = 1 + (seen["version"] + writer) % len(self._line.versions)
            answer = self._put(writer, version, {"if-match": f'"{seen["generation"]}"'})
            if answer.status_code == httpx.codes.OK:
                self._expect("generation after a move", answer.json()["generation"], seen["generation"] + 1)
                won.append((answer.json()["generation"], version))
            elif answer.status_code != httpx.codes.PRECONDITION_FAILED:
                self.faults.append(f"a move was answered by {answer.status_code} {answer.text}")
                break
        return won

    def _check_versions(self, published: Sequence[httpx.Response]) -> None:
        """Dense numbers, one for each that had bytes of its own, each with its answers."""
        different = WRITERS - SAME + 1
        self._expect("answers to uploads", Counter(a.status_code for a in published), {201: different, 200: SAME - 1})
        for writer, answer in enumerate(published):
            number, made = answer.json()["version"], self._uploads[writer][0]
            if self._line.versions.setdefault(number, made).labels != made.labels:
                self.faults.append(f"version {number} was given to different bytes")
        self._expect("versions", sorted(self._line.versions), [*range(1, different + 1)])

    def _check_aliases(self, versions: Sequence[int]) -> None:
        """Every writer's alias points at what it uploaded, at every server, and is answered so."""
        wanted = {f"of-{writer}": version for writer, version in enumerate(versions)}
        for client in self._clients:
            self._expect("aliases", self._soon(client, wanted), wanted)
            for alias, version in wanted.items():
                question = Question.about([0], [(self._line, version)])
                body = {**question.body, "adapter": f"{NAME}@{alias}"}
                answer = client.post("/v1/classify", json=body)
                if fault := question.fault(answer.status_code, answer.json()):
                    self.faults.append(fault)

    def _soon(self, client: httpx.Client, wanted: dict[str, int]) -> dict[str, int]:
        end = time.monotonic() + self._seen
        while (found := client.get(ADAPTER).json()["aliases"]) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        aliases: dict[str, int] = found
        return aliases

    def _check_moves(self, won: Sequence[tuple[int, int]], expected: int) -> None:
        """Each generation has one winner, and the history has what each of them wrote."""
        self._expect("generations won", sorted(generation for generation, _ in won), [*range(2, expected + 2)])
        # A change begins with what other servers have done, so a refused one makes the server look.
        self._put(0, 1, {"if-none-match": "*"})
        history = self._clients[0].get(f"{ADAPTER}/aliases/{LIVE}").json()["history"]
        found = [(move["generation"], move["split"]) for move in reversed(history)]
        self._expect("history", found, [(g, {str(version): 100}) for g, version in sorted([(1, 1), *won])])

    def _put(self, writer: int, version: int, headers: dict[str, str]) -> httpx.Response:
        return self._patiently(
            lambda: self._client(writer).put(f"{ADAPTER}/aliases/{LIVE}", json={"version": version}, headers=headers)
        )

    def _patiently(self, change: Callable[[], httpx.Response]) -> httpx.Response:
        """Ask again while the server is busy, when it says."""
        for _ in range(TRIES):
            answer = change()
            if answer.status_code not in BUSY:
                break
            self._busy += 1
            time.sleep(float(answer.headers["retry-after"]))
        return answer

    def _client(self, writer: int) -> httpx.Client:
        return self._clients[writer % len(self._clients)]

    def _expect(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.faults.append(f"{what}: {found}, expected {wanted}")
