"""What the documentation says is there, and what it shows can be done."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fake_servers import serving

from recap.cli.command import VERBS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"^`([\w./-]+\.\w+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
TREE_PATH = re.compile(r"`((?:recap|conf|tests|docs)/[\w./-]*)`")
ONLY_IN_THE_WHEEL = "recap/conf"
COMMAND = "python -m recap."
WITHOUT_WEIGHTS = "/models/"
WITHOUT_DATA = "/corpora/"
SERVER = "http://127.0.0.1:8000"
ELSEWHERE = "privacy.allow_external=true"
OF_A_RUN = re.compile(r"^runs?=|=runs/")
WITHOUT_TRAINING = ("corpus", "insights", "report")
SMOKE = (
    *("logger=none", "cv.folds=2", "cv.max_examples=60"),
    *("trainer.max_epochs=1", "decoding.max_new_tokens=16", "trainer.progress=false"),
)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def slug(heading: str) -> str:
    """Return the anchor that GitHub and MyST give a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def headings(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(h) for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def commands(page: Path) -> list[list[str]]:
    """Return every documented ``python -m recap.<verb>``: the verb, then its arguments."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for language, block in FENCE.findall(text)
        if language == "bash"
        for line in block.splitlines()
    ]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(COMMAND)]
    return [[words[2].removeprefix("recap."), *words[3:]] for words in found]


def write_named_files(page: Path, folder: Path) -> set[str]:
    """Write every file that a page shows under its name, as a reader of the page would."""
    files = dict(NAMED_FILE.findall(page.read_text(encoding="utf-8")))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return set(files)


IN_ORDER = {"docs/annotation.md"}
"""Pages whose commands use what the commands above them have made."""


def in_order(page: Path, arguments: list[str]) -> bool:
    """Whether a command makes a run that others of its page take up, or takes one up."""
    return page_id(page) not in IN_ORDER and any(OF_A_RUN.search(word) for word in arguments)


def write_codebook_prompts(arguments: list[str]) -> None:
    """Write the codebook that a command takes as its prompt, as an earlier command would have."""
    from recap.corpus.__main__ import main

    for word in (word for word in arguments if word.endswith("/codebook_prompt.txt")):
        folder = word.partition("=")[2].rpartition("/")[0]
        assert main(["action=codebook", "task=binary", f"out={folder}"]) == 0


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_holds_both_sides_of_a_merge(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("<<<<<<<", ">>>>>>>"))]


def test_there_are_pages_and_commands() -> None:
    assert {"README.md", "docs/own_data.md", "docs/index.md"} <= {page_id(page) for page in PAGES}
    assert {"README.md", "docs/own_data.md"} <= {page_id(page) for page in WITH_COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_internal_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {name for name, _ in NAMED_FILE.findall(text)} | {ONLY_IN_THE_WHEEL}
    paths = set(TREE_PATH.findall(text)) - known
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing, missing


def test_the_paper_map_says_built_only_where_module_and_test_exist() -> None:
    text = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.endswith(("| built |", "| planned |"))]
    assert rows
    for row in rows:
        _, _, modules, tests, status, _ = (cell.strip() for cell in row.split("|"))
        paths = TREE_PATH.findall(modules), TREE_PATH.findall(tests)
        assert all(paths) if status == "built" else (modules, tests) == ("—", "—"), row


def test_documented_make_targets_exist() -> None:
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = set(re.findall(r"(?:^|`)make ([a-z]+)\b(?= +#|`|$)", text, re.MULTILINE))
        assert shown <= rules, page_id(page)


def test_each_recipe_for_contributors_is_under_twenty_lines() -> None:
    sections = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")
    recipes = [section for section in sections if section.startswith("Add a ")]
    things = ("task", "backbone", "reader", "metric")
    assert [r.splitlines()[0] for r in recipes] == [f"Add a {thing}" for thing in things]
    for recipe in recipes:
        for block in FENCE.findall(recipe):
            assert len(block[1].splitlines()) < 20


NAMED = "run=named"
"""Before a page's own words: naming a run composes its defaults too, and takes half of the time."""


def loaders() -> dict[str, Callable[[list[str]], Any]]:
    """Return what reads the words of each verb."""
    from recap.cli.compose import load_config, load_verb
    from recap.cli.prompted import load_prompted
    from recap.evaluate.options import load_evaluation
    from recap.plan.options import load_plan

    return {
        "train": lambda job: load_config([NAMED, *job]),
        "plan": lambda job: load_plan([NAMED, *job]),
        "prompt": lambda job: load_prompted([NAMED, *job]),
        "evaluate": lambda job: load_evaluation([NAMED, *job]),
        "audit": lambda job: load_verb("audit", [NAMED, *job]),
        "predict": lambda job: load_verb("predict", job),
        "corpus": lambda job: load_verb("corpus", job),
        "insights": lambda job: load_verb("insights", job),
        "report": lambda job: load_verb("report", job),
    }


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_id)
def test_documented_commands_compose(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recap.cli.compose import expand_sweep

    write_named_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb, *arguments in commands(page):
        assert verb in VERBS
        jobs = [arguments]
        if "-m" in arguments:
            given = [word for word in arguments if word != "-m"]
            jobs = expand_sweep(given, config_name=verb)
        for job in (jobs[0], jobs[-1]) if len(jobs) > 1 else jobs:
            assert loaders()[verb](job).run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        (page, arguments)
        for page in WITH_COMMANDS
        if page_id(page) not in IN_ORDER
        for arguments in commands(page)
        if not in_order(page, arguments)
    ],
    ids=lambda value: page_id(value) if isinstance(value, Path) else " ".join(value),
)
def test_documented_commands_run(
    page: Path,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb, *arguments = arguments
    main = import_module(f"recap.{verb}.__main__").main
    write_named_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    write_codebook_prompts(arguments)
    smoke = () if verb in WITHOUT_TRAINING else SMOKE
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    with serving() as server:
        code = main([word.replace(SERVER, server.url) for word in (*arguments, *smoke)])
    printed = capsys.readouterr()
    words = " ".join(arguments)
    assert bool(server.requests) == (SERVER in words and WITHOUT_DATA not in words)
    if ELSEWHERE in arguments:
        assert code == 2
        assert "_API_KEY" in printed.err
    elif any(WITHOUT_WEIGHTS in word for word in arguments):
        assert code == 2
        assert "backbone.path" in printed.err or "encoder.path" in printed.err
    elif any(WITHOUT_DATA in word for word in arguments):
        assert code == 2
        assert "data.path" in printed.err
    else:
        assert code == 0, printed.err
        if verb in ("train", "prompt") and "dry_run=true" not in arguments:
            assert list(tmp_path.glob("runs/*/*.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in WITH_COMMANDS if any(in_order(page, each) for each in commands(page))],
    ids=page_id,
)
def test_documented_commands_that_take_up_a_run_follow_the_ones_that_make_it(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_named_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb, *arguments in commands(page):
        # What the sweeps of a page have made, which run for hours, is not there.
        if in_order(page, arguments) and ("runs=runs" not in arguments or Path("runs").is_dir()):
            smoke = () if verb in (*WITHOUT_TRAINING, "predict") else SMOKE
            code = import_module(f"recap.{verb}.__main__").main([*arguments, *smoke])
            lacks_data = any(WITHOUT_DATA in word for word in arguments)
            assert code == (2 if lacks_data else 0), (arguments, capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / name for name in sorted(IN_ORDER)], ids=page_id)
def test_a_page_of_steps_runs_from_top_to_bottom(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_named_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            (tmp_path / "script.py").write_text(block, encoding="utf-8")
            runpy.run_path("script.py")
        for line in block.splitlines() if language == "bash" else ():
            if line.startswith(COMMAND):
                verb, *arguments = shlex.split(line.removeprefix(COMMAND), comments=True)
                smoke = SMOKE if verb == "train" else ()
                code = import_module(f"recap.{verb}.__main__").main([*arguments, *smoke])
                assert code == 0, capsys.readouterr().err
    assert list(tmp_path.glob("answers*.*"))


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    [script] = [block for language, block in blocks if language == "python"]
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("script.py")
    assert 0.0 <= float(capsys.readouterr().out.split()[-1]) <= 1.0


@pytest.mark.slow
def test_the_recipes_for_contributors_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recap.metrics.scalar import SCALAR_METRICS
    from recap.train.__main__ import main

    written = write_named_files(ROOT / "CONTRIBUTING.md", tmp_path)
    assert written == {
        "conf/task/talk_time.yaml",
        "conf/backbone/my_model.yaml",
        "conf/data/diary.yaml",
        "diary_reader.py",
        "weighted_kappa.py",
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = ("Long\tIt began when I was at school and it has gone on since then.", "Short\tNo.")
    diary = "".join(f"{row} {day}\n" for day in range(6) for row in rows)
    (tmp_path / "diary.txt").write_text(diary, encoding="utf-8")
    reader_and_task = ["data=diary", "data.path=diary.txt", "task=talk_time", "rationale=false"]

    import_module("weighted_kappa")
    try:
        assert main([*reader_and_task, *SMOKE, "run=diary"]) == 0, capsys.readouterr().err
    finally:
        del SCALAR_METRICS["weighted_kappa"]
    summary = (tmp_path / "runs" / "diary" / "summary.json").read_text(encoding="utf-8")
    assert "weighted_kappa" in json.loads(summary)["metrics"]
    assert main([*reader_and_task, *SMOKE, "run=diary", "cv.fold=final"]) == 0
    weights = tmp_path / "runs" / "diary" / "final" / "model"
    backbone = ["backbone=my_model", f"backbone.path={weights}"]
    assert main([*reader_and_task, *backbone, *SMOKE]) == 0, capsys.readouterr().err
    for module in ("diary_reader", "weighted_kappa"):
        sys.modules.pop(module)
