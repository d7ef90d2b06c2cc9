"""Who may import whom, read from the sources; docs/architecture.md draws the same."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("service", "training")
    for file in (ROOT / package).rglob("*.py")
}
LAYERS = ("engine", "jobs", "models", "routes", "store", "tasks")
EVERYONE = {"service.errors", "service.memory", "service.wording"}  # leaves that anybody may use
ALLOWED = {
    "models": {"service.models"},
    "store": {"service.store"},
    "tasks": {"service.tasks", "service.store", "service.models"},
    "engine": {"service.engine"},
    "jobs": {"service.jobs", "service.tasks", "service.store"},
    "routes": {"service.routes", "service.jobs", "service.engine", "service.tasks", "service.store"},
}
HTTP = {"litestar", "uvicorn", "starlette", "httpx", "prometheus_client"}


@cache
def imports(module: str) -> set[str]:
    """Every module that a module imports anywhere in it, type checking and function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            assert node.module
            found |= {name if name in FILES else node.module for name in (f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] in ("service", "training", "loadtest", "tests")}


def libraries(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)}


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def of_layer(layer: str) -> list[str]:
    return sorted(name for name in FILES if name.startswith(f"service.{layer}."))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    assert of_layer(layer)
    beyond = {name: [i for i in own(name) if not within(i, ALLOWED[layer] | EVERYONE)] for name in of_layer(layer)}
    assert not {name: found for name, found in beyond.items() if found}


def test_the_leaves_import_nothing_of_ours() -> None:
    assert [own(leaf) for leaf in sorted(EVERYONE)] == [set()] * len(EVERYONE)
    assert own("service.settings") == {"service.errors", "service.wording"}


def test_settings_are_read_only_where_the_server_is_put_together() -> None:
    readers = {name for name in FILES if "service.settings" in imports(name) and not name.startswith("service.cli")}
    assert readers <= {"service.app", "service.server", "service.doctor"}


def test_the_application_is_known_only_to_what_runs_it() -> None:
    assert {name for name in FILES if "service.app" in imports(name)} <= {"service.cli", "service.server"}


def test_tasks_jobs_engine_store_and_models_know_no_http() -> None:
    assert not {
        name for layer in ("tasks", "jobs", "engine", "store", "models") for name in of_layer(layer) if libraries(name) & HTTP
    }


def test_tasks_jobs_and_models_are_plain_functions_of_threads() -> None:
    assert not {
        name for layer in ("tasks", "jobs", "store", "models") for name in of_layer(layer) if "asyncio" in libraries(name)
    }


def test_the_engine_knows_no_model_and_routes_know_none_either() -> None:
    heavy = {"torch", "transformers", "timm", "sentence_transformers", "PIL", "safetensors"}
    assert not {name for layer in ("engine", "routes") for name in of_layer(layer) if libraries(name) & heavy}


def test_the_server_never_imports_training_or_what_only_training_needs() -> None:
    only_training = {"training", "loadtest", "tests", "peft", "datasets", "sklearn", "accelerate", "pandas"}
    assert not {name for name in FILES if name.startswith("service") and libraries(name) & only_training}


def test_training_imports_no_part_of_the_running_server() -> None:
    running = {"service.engine", "service.routes", "service.app", "service.server", "service.cli"}
    found = {name: [i for i in own(name) if within(i, running)] for name in FILES if name.startswith("training")}
    assert not {name: i for name, i in found.items() if i}


def test_nothing_imports_in_a_circle() -> None:
    graph = {name: {i for i in own(name) if i in FILES} for name in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)
