"""The plan of the house, kept: imports point down, and verbs never import verbs."""

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

# From the ground up: a room imports from rooms of lower layers, on its own from those to its left.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "records", "taxonomy", "registry", "config"),
    ("system", "tasks"),
    ("data", "metrics", "statistics"),
    ("models", "output"),
    ("runs", "folds"),
    ("cli",),
    ("train", "prompt", "evaluate", "predict", "report", "corpus", "insights", "plan", "audit"),
    ("__init__", "__main__"),
)
VERBS = frozenset(LAYERS[-2])

# What each layer may use beside the standard library and what the layers below may use.
LAYER_LIBRARIES: tuple[frozenset[str], ...] = (
    frozenset({"pydantic"}),
    frozenset({"yaml", "torch", "lightning", "transformers"}),
    frozenset({"numpy", "scipy", "sklearn", "torchmetrics", "openpyxl", "jieba"}),
    frozenset({"tokenizers", "huggingface_hub", "peft", "bitsandbytes", "safetensors"})
    | {"jinja2", "rich", "matplotlib"},
    frozenset({"wandb"}),
    frozenset(),
    frozenset({"openai", "anthropic", "ray"}),
    frozenset(),
)
HYDRA = frozenset({"hydra", "omegaconf"})
KNOW_HYDRA = frozenset({"cli.compose", "cli.command"})
HEAVY = HYDRA.union(*LAYER_LIBRARIES)
SLOW_TO_IMPORT = "recap.cli.compose"

MODULES = sorted(PACKAGE.rglob("*.py"))
ROOM_PLACES = {room: (i, j) for i, layer in enumerate(LAYERS) for j, room in enumerate(layer)}


def dotted(path: Path) -> str:
    """Return ``data.readers.tables`` for ``recap/data/readers/tables.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def canonical(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


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
    room = inner.split(".")[0]
    return room if room in ROOM_PLACES else "__init__"


def faults_in(source: str, module: str) -> list[str]:
    """Return what a module's imports break, one line each."""
    room = module.split(".")[0]
    layer, place = ROOM_PLACES[room]
    allowed = frozenset().union(*LAYER_LIBRARIES[: layer + 1]) | sys.stdlib_module_names
    if module in KNOW_HYDRA:
        allowed |= HYDRA
    issues = []
    for line, name in imports_of(ast.parse(source), module):
        where = f"recap.{module}:{line}"
        target = imported_room(name)
        if target is None:
            if name.split(".")[0] not in allowed:
                issues.append(f"{where}: layer {layer} may not use {name.split('.')[0]}")
        elif target != room:
            if {target, room} <= VERBS:
                issues.append(f"{where}: a verb never imports a verb, and {target} is one")
            elif ROOM_PLACES[target] > (layer, place):
                issues.append(f"{where}: {room} may not import {target}, above it or to its right")
    return issues


def circles_in(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle."""
    left, circles = dict(arrows), []
    while True:
        free = [name for name, targets in left.items() if not targets & left.keys()]
        if not free:
            break
        for name in free:
            del left[name]
    if left:
        # What is left reaches a circle; drop what only leads to one.
        reached = set().union(*left.values()) & left.keys()
        circles.append(sorted(name for name in left if name in reached))
    return circles


def module_arrows() -> dict[str, set[str]]:
    """Return which modules each module imports, at the top or inside a function."""
    names = {f"recap.{dotted(path)}" for path in MODULES}
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        module = f"recap.{dotted(path)}"
        found = imports_of(ast.parse(path.read_text(encoding="utf-8")), dotted(path))
        reached = {name if name in names else name.rpartition(".")[0] for _, name in found}
        arrows[module] = (reached & names) - {module}
    return arrows


def test_the_package_is_where_this_test_looks() -> None:
    assert len(MODULES) > 5


def test_every_module_has_a_room() -> None:
    homeless = {dotted(path).split(".")[0] for path in MODULES} - set(ROOM_PLACES)
    assert not homeless, f"place {sorted(homeless)} on a layer here and in docs/architecture.md"


def test_imports_point_down_or_left_and_verbs_never_import_verbs() -> None:
    issues = [
        fault
        for path in MODULES
        for fault in faults_in(path.read_text(encoding="utf-8"), dotted(path))
    ]
    assert not issues, "\n".join(issues)


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = module_arrows()
    assert sum(map(len, arrows.values())) > len(arrows)
    assert circles_in(arrows) == []


def test_the_walk_finds_a_planted_circle() -> None:
    planted = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}
    assert circles_in(planted) == [["a", "b", "c"]]


def test_a_verb_has_its_command_in_main_and_nothing_of_the_work() -> None:
    for verb in sorted(VERBS):
        main = PACKAGE / verb / "__main__.py"
        tree = ast.parse(main.read_text(encoding="utf-8"))
        public = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
        assert public == ["main"], main
        assert not [n for n in tree.body if isinstance(n, ast.ClassDef)], main


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


def test_the_architecture_page_shows_these_layers() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", page, re.MULTILINE)
    packages = {room for room in ROOM_PLACES if (PACKAGE / room).is_dir()}
    shown = [tuple(re.findall(r"`([^`]*)`", cell)) for _, cell in rows]
    assert shown == [
        tuple(f"{room}/" if room in packages else room for room in layer) for layer in LAYERS[:-1]
    ]


def test_what_imports_hydra_is_imported_only_inside_functions() -> None:
    # Hydra costs time, and --help, errors and `import recap` must not wait for it.
    for path in MODULES:
        if f"recap.{dotted(path)}" == SLOW_TO_IMPORT:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name for _, name in imports_of(node, dotted(path))]
                assert not [name for name in names if name.startswith(SLOW_TO_IMPORT)], path


def test_a_detector_loads_no_trainer() -> None:
    # Lightning and torchmetrics cost seconds; only what trains or scores folds waits for them.
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import recap.runs.detector, sys; print(*sys.modules)",
        ],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "recap.models.engine.label_scoring" in loaded
    assert not {"lightning", "torchmetrics", "peft", "wandb"} & set(loaded)


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
        ("import recap.folds.fold", "tasks", "folds"),
        ("from recap.data import batches", "data", "data"),
        ("from recap.data.readers import tables", "data", "data"),
        ("from recap import errors", "folds", "errors"),
        ("from recap import Detector", "folds", "__init__"),
        ("def f():\n    from recap.models.backbone import build", "prompt", "models"),
    ],
)
def test_the_walk_sees_every_way_of_importing(source: str, room: str, reached: str) -> None:
    [(_, name)] = imports_of(ast.parse(source), room)
    assert imported_room(name) == reached


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import recap.folds.fold", "tasks.task"),
        ("from recap import data", "tasks.task"),
        ("from recap import Detector", "folds.fold"),
        ("from recap.folds import fold", "runs.folder"),
        ("from recap.corpus.ratings import blank_sheet", "report.rationales"),
        ("def f():\n    import matplotlib", "data.encode"),
        ("import numpy", "taxonomy"),
        ("from omegaconf import OmegaConf", "train.__main__"),
    ],
)
def test_the_walk_finds_a_planted_fault(source: str, module: str) -> None:
    assert len(faults_in(source, module)) == 1
