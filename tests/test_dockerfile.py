"""No container engine is at hand, so the Dockerfile is read: what it names must exist, here and in itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from service.app import HANDLERS
from service.cli import app as cli
from service.settings import PREFIX, Settings

if TYPE_CHECKING:
    from tests.support.server import Server

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``COPY``, its ``--flags``, and the rest as it stands."""

    word: str
    flags: dict[str, str]
    rest: str

    @property
    def arguments(self) -> list[str]:
        """The words of the rest, or of its exec form."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)

    @property
    def is_exec(self) -> bool:
        """Whether it runs without a shell, so that signals reach the process itself."""
        return self.rest.startswith("[") and all(isinstance(word, str) for word in json.loads(self.rest))


def parse(text: str) -> list[list[Instruction]]:
    """The instructions of each stage, ``FROM`` being the first of each."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = []
    for joined in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = joined.partition(" ")
        flags = {}
        while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest.lstrip()):
            flags[found[1]] = found[2]
            rest = rest.lstrip()[found.end() :]
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, flags, rest.strip()))
    return stages


STAGES = parse((ROOT / "Dockerfile").read_text())
BUILD, SERVE = STAGES
EVERY = [instruction for stage in STAGES for instruction in stage]


def the(stage: list[Instruction], word: str) -> Instruction:
    (found,) = [instruction for instruction in stage if instruction.word == word]
    return found


def environment(stage: list[Instruction]) -> dict[str, str]:
    pairs = [pair for instruction in stage if instruction.word == "ENV" for pair in instruction.arguments]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def settings() -> Settings:
    given = {name: value for name, value in environment(SERVE).items() if name.startswith(PREFIX)}
    return Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in given.items()})  # type: ignore[arg-type]  # as strings


def test_the_parser_reads_what_the_dockerfile_uses() -> None:
    text = '# c\nFROM a AS b\nCOPY --from=x --chown=1:1 c d ./\nENV A=1 \\\n    # in between\n    B=2\nCMD ["e", "f g"]\n'
    (stage,) = parse(text)
    assert [instruction.word for instruction in stage] == ["FROM", "COPY", "ENV", "CMD"]
    assert stage[1].flags == {"from": "x", "chown": "1:1"} and stage[1].arguments == ["c", "d", "./"]
    assert environment(stage) == {"A": "1", "B": "2"}
    assert stage[3].is_exec and stage[3].arguments == ["e", "f g"]


def test_every_instruction_exists() -> None:
    known = {"FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    assert {instruction.word for instruction in EVERY} <= known


def test_stages_are_named_and_copies_name_an_earlier_one() -> None:
    names = [stage[0].arguments[2] for stage in STAGES]
    assert len(set(names)) == 2 and all(stage[0].arguments[1] == "AS" for stage in STAGES)
    for place, stage in enumerate(STAGES):
        assert all(i.flags["from"] in names[:place] for i in stage if "from" in i.flags)


def test_both_stages_have_a_python_that_the_project_takes() -> None:
    images = {stage[0].arguments[0] for stage in STAGES}
    assert len(images) == 1
    found = re.match(r"python:3\.(\d+)-slim$", images.pop())
    assert found and int(found[1]) >= int(PROJECT["requires-python"].partition(".")[2])


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [s for i in EVERY if i.word == "COPY" and "from" not in i.flags for s in i.arguments[:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert sorted(sources) == sorted(sent)


def test_what_the_build_reads_was_copied() -> None:
    copied = [s for i in BUILD if i.word == "COPY" for s in i.arguments[:-1]]
    assert PROJECT["readme"] in copied
    packages = {target.partition(".")[0] for target in PROJECT["scripts"].values()}
    assert {"pyproject.toml", "constraints.txt", *packages} <= set(copied)


def test_the_install_is_pinned_and_its_extras_exist() -> None:
    install = next(i for i in BUILD if i.word == "RUN" and "pip install" in i.rest).arguments
    assert install[install.index("-c") + 1] == "constraints.txt"
    found = re.fullmatch(r"\.(?:\[([\w,]+)\])?", install[-1])
    assert found
    assert set((found[1] or "").split(",")) - {""} <= set(PROJECT["optional-dependencies"])


def test_the_environment_that_is_built_is_the_one_that_runs() -> None:
    made = next(i for i in BUILD if i.word == "RUN" and "-m venv" in i.rest).arguments[-1]
    (copied,) = [i for i in SERVE if "from" in i.flags]
    assert copied.arguments == [made, made]  # scripts in it name their interpreter by its path
    assert all(environment(stage)["PATH"].split(":")[0] == f"{made}/bin" for stage in STAGES)


def test_the_entry_point_is_a_command_of_the_project() -> None:
    entry = the(SERVE, "ENTRYPOINT")
    assert entry.is_exec and entry is SERVE[-1]
    command, subcommand = entry.arguments
    assert command in PROJECT["scripts"]
    assert subcommand in {found.name for found in cli.registered_commands}


def test_variables_are_settings_and_have_values_that_they_take() -> None:
    assert settings().is_public  # the port would not be reachable from outside the container otherwise
    assert not settings().insecure  # whoever wants no keys has to say so
    comments = re.findall(rf"{PREFIX}(\w+)", (ROOT / "Dockerfile").read_text())
    assert {name.lower() for name in comments} <= set(Settings.model_fields)


def test_adapters_lie_in_a_volume_that_the_server_may_write() -> None:
    (copy,) = [i for i in SERVE if i.word == "COPY" and i.arguments[0] == "adapters"]
    folder = PurePosixPath(the(SERVE, "WORKDIR").arguments[0]) / copy.arguments[1]
    assert copy.flags["chown"] == the(SERVE, "USER").rest
    assert [str(folder)] == the(SERVE, "VOLUME").arguments
    assert str(settings().adapters_dir) == str(folder)
    words = [instruction.word for instruction in SERVE]
    assert words.index("VOLUME") > words.index("COPY")  # what is written to a volume after its declaration is lost


def test_the_user_is_not_root_and_is_made() -> None:
    user = the(SERVE, "USER").rest
    number, _, group = user.partition(":")
    assert number.isdigit() and group.isdigit() and int(number) > 0
    made = next(i for i in SERVE if i.word == "RUN" and i.rest.startswith("useradd"))
    assert made.arguments[made.arguments.index("--uid") + 1] == number
    after = SERVE[SERVE.index(the(SERVE, "USER")) + 1 :]
    assert not {"RUN", "COPY", "USER"} & {instruction.word for instruction in after}


def test_port_and_signal() -> None:
    assert the(SERVE, "EXPOSE").rest == str(settings().port)
    assert the(SERVE, "STOPSIGNAL").rest == "SIGTERM"


def health_check() -> list[str]:
    check = the(SERVE, "HEALTHCHECK")
    assert {"interval", "timeout", "start-period", "retries"} == set(check.flags)
    command = Instruction("CMD", {}, check.rest.removeprefix("CMD "))
    assert command.is_exec
    return command.arguments


def test_the_health_check_asks_a_route_that_exists() -> None:
    python, _, code = health_check()
    assert python == "python"
    (path,) = re.findall(r"%s(/[\w/]+)'", code)
    assert path in {found for handler in HANDLERS for found in handler.paths}


@pytest.mark.parametrize("is_up", [True, False])
def test_the_health_check_tells_a_ready_server_from_none(server: Server, is_up: bool) -> None:
    port = server.port if is_up else 1
    done = subprocess.run(
        [sys.executable, *health_check()[1:]], env={**os.environ, f"{PREFIX}PORT": str(port)}, capture_output=True, check=False
    )
    assert (done.returncode == 0) is is_up
