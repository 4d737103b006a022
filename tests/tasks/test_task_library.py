"""Tasks from YAML: the built-in ones, one's own from a single file, and what a faulty file says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from recap.corpus.__main__ import main
from recap.errors import ConfigError, UnknownNameError
from recap.records import Answer, Example
from recap.system.files import conf_dir
from recap.tasks.library import (
    TASK_KEYS,
    builtin_task,
    load_task_file,
    load_taxonomy,
    task_from_dict,
)
from recap.tasks.task import read_prompt_file

OWN = """
taxonomy:
  name: moods
  categories:
    - {name: Bright, definition: The client sounds cheerful., aliases: [cheerful]}
    - {name: Dark, definition: The client sounds low.}
    - {name: Bleak, parent: Dark, names: {zh: 惨淡}, definition: Nothing is left.}
    - {name: Grey, parent: Dark}
role: You listen for moods.
"""


def test_a_task_and_its_taxonomy_come_from_one_yaml_file(tmp_path):
    (tmp_path / "moods.yaml").write_text(OWN, encoding="utf-8")
    task = load_task_file(tmp_path / "moods.yaml", language="zh")
    assert task.name == "moods"
    assert task.labels == ("Bright", "Bleak", "Grey")
    assert task.render(Answer(label="Bleak", rationale="r")) == "行为：Dark-惨淡\n理由：r"
    assert task.parse("Behavior: Cheerful").label == "Bright"
    system, _ = task.messages(Example(id="e", history=(), response="Fine."))
    assert "You listen for moods." in system.text
    assert "Nothing is left." in system.text


def test_a_taxonomy_file_of_ones_own_is_found_beside_the_task(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "taxonomy").mkdir()
    (tmp_path / "task" / "mood.yaml").write_text(
        "taxonomy: moods\nwithin: Dark\n", encoding="utf-8"
    )
    moods = yaml.safe_dump(yaml.safe_load(OWN)["taxonomy"])
    (tmp_path / "taxonomy" / "moods.yaml").write_text(moods, encoding="utf-8")
    assert load_task_file(tmp_path / "task" / "mood.yaml").labels == ("Bleak", "Grey")


def test_a_file_that_also_sets_options_of_the_run_has_its_task_under_a_key(tmp_path):
    indented = "".join(f"  {line}\n" for line in OWN.strip().splitlines())
    text = f"# @package _global_\ntask:\n{indented}rationale: false\n"
    (tmp_path / "moods.yaml").write_text(text, encoding="utf-8")
    assert load_task_file(tmp_path / "moods.yaml").labels == ("Bright", "Bleak", "Grey")


def test_every_yaml_in_the_tree_is_a_task_with_a_prompt_in_both_languages():
    files = sorted((conf_dir() / "task").glob("*.yaml"))
    assert files
    for path in files:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert set(data.get("task", data)) <= set(TASK_KEYS)
        for language in ("en", "zh"):
            task = load_task_file(path, language=language)
            assert task.name == path.stem
            assert len(task.messages(Example(id="e", history=(), response="Fine."))) == 2


def test_annomi_talk_has_a_taxonomy_and_a_role_of_its_own():
    task = builtin_task("annomi_talk")
    assert task.labels == ("change", "neutral", "sustain")
    assert "motivational interviewing" in task.role_text
    assert task.render(Answer(label="sustain")) == "Behavior: sustain"
    assert task.parse("Behavior: Sustain talk\nReason: r") == Answer(label="sustain", rationale="r")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "t"}, "lacks 'name' or 'taxonomy'"),
        (
            {"name": "t", "taxonomy": "psyfire", "label": ["A"]},
            "unknown key 'label'.*did you mean 'labels'",
        ),
        ({"name": "t", "taxonomy": "psyfir"}, "did you mean 'psyfire'"),
        ({"name": "t", "taxonomy": {"name": "x"}}, "'categories'"),
        (
            {"name": "t", "taxonomy": {"name": "x", "categories": [{"name": "A", "color ": "#1"}]}},
            "unknown key 'color '",
        ),
        ({"name": "t", "taxonomy": "psyfire", "role": ["a"]}, "role: is a list, and has to be"),
    ],
)
def test_a_mapping_that_is_no_task_is_refused_with_the_mend(data, message):
    with pytest.raises(ConfigError, match=message):
        task_from_dict(data)


def test_a_misspelt_task_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="did you mean 'fine_grained'"):
        builtin_task("fine_graned")
    with pytest.raises(UnknownNameError, match="did you mean 'psyfire'"):
        load_taxonomy("psifire")


@pytest.mark.parametrize("content", [b"a: [", b"- a\n- b\n", b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_task_file(path)


def test_a_prompt_file_is_a_text_or_yaml_with_a_text_per_language(tmp_path):
    (tmp_path / "p.txt").write_text("标签 {labels}\n{dialogue}", encoding="utf-8")
    assert read_prompt_file(tmp_path / "p.txt", language="zh") == "标签 {labels}\n{dialogue}"
    (tmp_path / "p.yaml").write_text("en: |\n  Now\n  {dialogue}\n", encoding="utf-8")
    assert read_prompt_file(tmp_path / "p.yaml", language="en") == "Now\n{dialogue}\n"
    with pytest.raises(ConfigError, match="no text for language 'zh'"):
        read_prompt_file(tmp_path / "p.yaml", language="zh")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "No place for it", r"p\.txt lacks the placeholder \{dialogue\}"),
        ("p.txt", None, r"p\.txt cannot be read"),
        ("p.yaml", "en: [", r"p\.yaml is not valid YAML"),
        ("p.yaml", "just text", "no text for language"),
    ],
)
def test_an_unusable_prompt_file_is_refused_by_name(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_prompt_file(tmp_path / name, language="en")


def test_tasks_need_no_torch_transformers_or_hydra():
    code = (
        "import sys, recap.tasks.library as r; r.get_task('flat');"
        "heavy = ('torch', 'transformers', 'lightning', 'hydra', 'numpy');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


Refused = Callable[[str, Mapping[str, str | bytes]], str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Return what the command says of a task that it refuses; its files are put into ``conf/``."""
    monkeypatch.chdir(tmp_path)

    def message(task: str, files: Mapping[str, str | bytes]) -> str:
        for name, content in files.items():
            file = tmp_path / "conf" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        assert main(["action=describe", f"task={task}"]) == 2
        return capsys.readouterr().err

    return message


CATEGORIES = """\
name: mine
taxonomy:
  name: mine
  categories:
    - name: Change
      {first}
    - name: {second}
"""


@pytest.mark.parametrize(
    ("first", "second", "line", "found"),
    [
        ("parent: null", "Yes", 7, "categories[1].name: is the truth value true"),
        ("parent: null", "No", 7, "categories[1].name: is the truth value false"),
        ("parent: null", "1", 7, "categories[1].name: is the number 1"),
        ("parent: null", "1.5", 7, "categories[1].name: is the number 1.5"),
        ("parent: null", "null", 7, "categories[1].name: is empty"),
        ("parent: null", "[A]", 7, "categories[1].name: is a list"),
        ("aliases: Cutting down", "B", 6, "categories[0].aliases: is a text, and has to be a list"),
        ("aliases: [Cutting down, 7]", "B", 6, "categories[0].aliases[1]: is the number 7"),
        ("names: {no: Endring}", "B", 6, "categories[0].names: is the truth value false"),
        ("names: {en: 5}", "B", 6, "categories[0].names.en: is the number 5"),
        ("definition: 12", "B", 6, "categories[0].definition: is the number 12"),
        ("parent: 3", "B", 6, "categories[0].parent: is the number 3"),
        ("color: 123456", "B", 6, "categories[0].color: is the number 123456"),
        ("qualifies: 'no'", "B", 6, "categories[0].qualifies: is a text, and has to be true or"),
    ],
)
def test_values_of_another_kind_are_named_with_file_and_line_by_the_command(
    refused: Refused, first: str, second: str, line: int, found: str
) -> None:
    file = "task/mine.yaml"
    message = refused("mine", {file: CATEGORIES.format(first=first, second=second)})
    assert f"{Path('conf', file)}:{line}: {found}" in message.replace("\n", " ")
    with pytest.raises(ConfigError, match=re.escape(f"mine.yaml:{line}: {found}")):
        load_task_file(Path("conf", file))


def test_kinds_are_checked_in_a_taxonomy_file_of_its_own_and_in_the_list_of_labels(
    refused: Refused,
) -> None:
    files = {
        "task/a.yaml": "name: a\ntaxonomy: own\n",
        "taxonomy/own.yaml": "name: own\ncategories:\n  - name: A\n  - name: 2026-01-02\n",
        "task/b.yaml": "name: b\ntaxonomy: psyfire\nlabels: [Arguing, Yes]\n",
    }
    message = refused("a", files).replace("\n", "")
    assert "taxonomy/own.yaml:4: categories[1].name: is the date" in message
    assert "task/b.yaml:3: labels[1]" in refused("b", {}).replace("\n", "")


TWO = "name: mine\ntaxonomy:\n  name: mine\n  categories:\n    - name: A\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (TWO + "    - name: A\n", ":6: taxonomy 'mine': 'A' stands for both 'A' and 'A'"),
        (TWO + '    - name: "A\\u200b"\n', ":6: taxonomy 'mine': 'A\\u200b' stands for both"),
        (TWO + "    - name: ''\n", ":6: taxonomy 'mine': a name or an alias is empty"),
        (TWO + "      parent: B\n", ":6: taxonomy 'mine': 'A' has the unknown parent 'B'"),
        (TWO + "      parent: A\n", ":6: taxonomy 'mine': 'A' is its own ancestor"),
        (TWO + "      colour: red\n", ":6: taxonomy 'mine': category 'A' has the unknown key"),
        (TWO + "      color: '#12'\n", ":6: taxonomy 'mine': category 'A' has no colour"),
        (TWO + "    - aliases: [B]\n", ":6: taxonomy 'mine': every category needs a 'name'"),
        (TWO + "      name: B\n", ":6: found duplicate key name"),
        (TWO + "\t- name: B\n", ":6: found character"),
        ("- name: A\n", ":1: describes no task"),
        ("", ":1: describes no task"),
        (TWO.replace("name: A", "name: 防御"), ": is not in UTF-8"),
    ],
)
def test_a_file_that_describes_no_task_is_refused_with_its_line_by_the_command(
    refused: Refused, content: str, found: str
) -> None:
    message = refused("mine", {"task/mine.yaml": content.encode("gbk")})
    assert f"{Path('conf/task/mine.yaml')}{found}" in message.replace("\n", " ")


def test_a_key_that_a_taxonomy_file_has_twice_is_named(refused: Refused) -> None:
    files = {
        "task/a.yaml": "name: a\ntaxonomy: own\n",
        "taxonomy/own.yaml": "name: own\ncategories:\n  - name: A\n    name: B\n",
    }
    message = refused("a", files).replace("\n", "")
    assert "taxonomy/own.yaml:4: key 'name' is there twice" in message
