"""Commands of another installed package: listed without an import, run like our own, one line when a library is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY_POINTS = "[quickchange.commands]\nneighbour = neighbour.commands:COMMANDS\n"
COMMANDS = """\
COMMANDS = {
    "greet": ("neighbour.greet:main", "Say a greeting."),
    "broken": ("neighbour.broken:main", "Cannot be imported."),
}
"""
GREET = 'def main(name: str) -> None:\n    """Greet NAME."""\n    print(f"hello {name}")\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed package that adds two commands, one of which lacks a library."""
    package, info = tmp_path / "neighbour", tmp_path / "neighbour-1.dist-info"
    package.mkdir()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: neighbour\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (package / "__init__.py").write_text("")
    (package / "commands.py").write_text(COMMANDS)
    (package / "greet.py").write_text(GREET)
    (package / "broken.py").write_text("import no_such_library\n")
    return tmp_path


def quickchange(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", "from service.cli import app; app()", *args]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_installed_package_adds_a_command(site: Path) -> None:
    ran = quickchange(site, "greet", "world")
    assert (ran.returncode, ran.stdout) == (0, "hello world\n")
    assert "Greet NAME." in quickchange(site, "greet", "--help").stdout


def test_listing_the_commands_imports_none_of_them(site: Path) -> None:
    listed = quickchange(site, "--help")
    assert listed.returncode == 0
    assert "Say a greeting." in listed.stdout and "Cannot be imported." in listed.stdout


def test_a_missing_library_is_one_line(site: Path) -> None:
    ran = quickchange(site, "broken")
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "error: broken needs no_such_library, which is not installed: pip install 'quickchange[train]'"
    ]


def test_a_package_whose_commands_cannot_be_found_leaves_the_others(site: Path) -> None:
    (site / "neighbour" / "commands.py").unlink()
    ran = quickchange(site, "keys", "--help")
    assert ran.returncode == 0 and "API keys" in ran.stdout
    assert "no commands of neighbour: No module named 'neighbour.commands'" in ran.stderr


def test_an_unknown_command_is_named(site: Path) -> None:
    ran = quickchange(site, "nonsense")
    assert ran.returncode == 2
    assert "No such command 'nonsense'" in ran.stderr
