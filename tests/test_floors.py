"""The plan of the house, kept: imports point down, on one floor only to the rooms on the left."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "recap"

# Rooms from left to right: modules or packages of recap, and `data.module`, a room of its own.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "tracebacks", "conf_files", "records", "taxonomy", "registry"),
    (
        "untrusted",
        "validation",
        "config",
        "result_options",
        "secrets",
        "tasks",
        "scoring",
        "analysis",
        "environment",
        "termination",
        "private_files",
        "disks",
        "run_folder",
        "data",
    ),
    ("models", "prompting", "tracking", "data.module", "baselines"),
    (
        "quiet",
        "build",
        "combinations",
        "launch",
        "partition",
        "prepare",
        "model_card",
        "training",
        "learning_rate",
        "results",
        "telling",
        "fold",
        "merging",
        "fit",
        "local_answers",
        "prompted",
        "detector",
        "annotate",
        "evaluation",
        "planning",
        "reporting",
        "corpus_actions",
        "insight_actions",
        "report_sections",
        "auditing",
    ),
    (
        "config_guards",
        "compose",
        "command_line",
        "command_configs",
        *(
            "train",
            "prompt",
            "evaluate",
            "predict",
            "report",
            "corpus",
            "insights",
            "audit",
            "plan",
        ),
        *("cli", "__init__", "__main__"),
    ),
)
STRANGERS = frozenset({"models", "prompting", "analysis"})

# What each floor may use beside the standard library and what the floors below may use.
FLOOR_LIBRARIES: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"numpy", "scipy", "sklearn", "torch", "torchmetrics"})
    | {"pydantic", "yaml", "openpyxl", "jieba"},
    frozenset({"transformers", "tokenizers", "huggingface_hub", "peft", "bitsandbytes"})
    | {"safetensors", "lightning", "wandb", "openai", "anthropic"},
    frozenset({"rich", "matplotlib", "ray"}),
    frozenset(),
)
HYDRA = frozenset({"hydra", "omegaconf"})
KNOW_HYDRA = frozenset({"config_guards", "compose", "command_line"})
HEAVY = HYDRA.union(*FLOOR_LIBRARIES)
MOST_LINES = 350

MODULES = sorted(PACKAGE.rglob("*.py"))
ROOM_PLACES = {room: (i, j) for i, floor in enumerate(FLOORS) for j, room in enumerate(floor)}


def dotted(path: Path) -> str:
    """Return ``data.readers.table`` for ``recap/data/readers/table.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def canonical(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def room_of(module: str) -> str:
    """Return the room that a module of recap (without the leading ``recap.``) belongs to."""
    return module if module == "data.module" else module.split(".")[0]


def imports_of(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything imported, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"recap.{module}:{node.lineno}: write the import out from 'recap'"
            )
            # The last name may be a module (`from recap.data import module`) or not; both are fine.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imported_room(name: str) -> str | None:
    """Return the room that an absolute import of recap reaches, ``None`` for other packages."""
    top, _, inner = name.partition(".")
    if top != "recap":
        return None
    if inner == "data.module" or inner.startswith("data.module."):
        return "data.module"
    room = inner.split(".")[0] or "__init__"
    return room if room in ROOM_PLACES else "__init__"


def faults_in(source: str, module: str) -> list[str]:
    """Return what a module's imports break, one line each."""
    room = room_of(module)
    floor, place = ROOM_PLACES[room]
    allowed = frozenset().union(*FLOOR_LIBRARIES[: floor + 1]) | sys.stdlib_module_names
    if module in KNOW_HYDRA:
        allowed |= HYDRA
    faults = []
    for line, name in imports_of(ast.parse(source), module):
        where = f"recap.{module}:{line}"
        target = imported_room(name)
        if target is None:
            if name.split(".")[0] not in allowed:
                faults.append(f"{where}: floor {floor} may not use {name.split('.')[0]}")
        elif target != room:
            if ROOM_PLACES[target] > (floor, place):
                faults.append(f"{where}: {room} may not import {target}, above it or to its right")
            elif {room, target} <= STRANGERS:
                faults.append(f"{where}: {room} and {target} never import each other")
    return faults


def test_the_package_is_where_this_test_looks() -> None:
    assert len(MODULES) > 5


def test_every_module_has_a_room() -> None:
    homeless = {room_of(dotted(path)) for path in MODULES} - set(ROOM_PLACES)
    assert not homeless, f"place {sorted(homeless)} on a floor here and in docs/architecture.md"


def test_imports_point_down_or_left() -> None:
    faults = [
        fault
        for path in MODULES
        for fault in faults_in(path.read_text(encoding="utf-8"), dotted(path))
    ]
    assert not faults, "\n".join(faults)


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + [
        r for extra in ("api", "excel", "zh", "plot", "ray") for r in extras[extra]
    ]
    declared = {canonical(re.split(r"[<>=\[ ]", requirement)[0]) for requirement in requirements}
    provided_by = packages_distributions()
    for path in MODULES:
        for line, name in imports_of(ast.parse(path.read_text(encoding="utf-8")), dotted(path)):
            top = name.split(".")[0]
            if top != "recap" and top not in sys.stdlib_module_names:
                owners = {canonical(owner) for owner in provided_by.get(top, [top])}
                assert owners & declared, f"{path.name}:{line}: declare {top} in pyproject.toml"


def test_the_architecture_page_shows_these_floors() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", page, re.MULTILINE)
    homes = {room_of(dotted(path)) for path in MODULES} - {"__init__", "__main__"}
    packages = {room for room in homes if (PACKAGE / room).is_dir()}
    paths = {"data.module": "data/module.py", **{room: f"{room}/" for room in packages}}
    there = [[room for room in floor if room in homes] for floor in FLOORS]
    shown = [re.findall(r"`([^`]*)`", cell) for _, cell in rows]
    assert shown == [[paths.get(room, room) for room in floor] for floor in there]


def test_compose_is_imported_only_inside_functions() -> None:
    # Hydra costs time, and --help, errors and `import recap` must not wait for it.
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name for _, name in imports_of(node, dotted(path))]
                slow = ("recap.compose", "recap.command_configs")
                assert path.stem == "command_configs" or not [
                    name for name in names if name.startswith(slow)
                ], path.name


def test_no_module_outgrows_its_idea() -> None:
    lengths = {dotted(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    too_long = {module: n for module, n in lengths.items() if n > MOST_LINES}
    assert not too_long, f"at most {MOST_LINES} lines a module: {too_long}"


def test_importing_recap_loads_nothing_heavy() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import recap, sys; print(*sys.modules)"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "recap" in loaded
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize(
    ("source", "room", "reached"),
    [
        ("import recap.fit", "tasks", "fit"),
        ("from recap.data import module", "data", "data.module"),
        ("from recap.data.module import DataModule", "fit", "data.module"),
        ("from recap.data.readers import table", "data", "data"),
        ("from recap import errors", "fit", "errors"),
        ("def f():\n    from recap.models.tiny import build", "prompting", "models"),
    ],
)
def test_the_walk_sees_every_way_of_importing(source: str, room: str, reached: str) -> None:
    [(_, name)] = imports_of(ast.parse(source), room)
    assert imported_room(name) == reached


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import recap.fit", "tasks.task"),
        ("from recap import data", "tasks.task"),
        ("from recap.data import module", "data.corpus"),
        ("from recap.models.tiny import build_tiny", "prompting.clients"),
        ("def f():\n    import transformers", "data.encode"),
        ("import numpy", "taxonomy"),
        ("from omegaconf import OmegaConf", "train"),
    ],
)
def test_the_walk_finds_a_planted_fault(source: str, module: str) -> None:
    assert len(faults_in(source, module)) == 1
