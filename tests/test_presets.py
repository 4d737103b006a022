"""The presets: every row of the paper's tables composed, and runs on shrunk models."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_servers import serving
from safetensors.torch import load_file
from shrunk import write_family

import recap
from recap.cli.compose import expand_sweep
from recap.cli.prompted import PromptedConfig, load_prompted
from recap.config import RunConfig, flatten, result_options
from recap.data.batches import BatchLimits, plan_epoch
from recap.data.encode import EncodedExample
from recap.errors import ConfigError
from recap.prompt import __main__ as prompt
from recap.runs.folder import read_prompted
from recap.train import __main__ as train

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "conf" / "experiment"
PUBLISHED = ROOT / "recap" / "report" / "published.csv"
PAGE = ROOT / "docs" / "reproduce.md"

LOCAL = {
    "llama8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen14b": "Qwen/Qwen2.5-14B-Instruct",
    "qwen32b": "Qwen/Qwen2.5-32B-Instruct",
}
SERVED = {
    "llama70b": "meta-llama/Llama-3.1-70B-Instruct",
    "qwen72b": "Qwen/Qwen2.5-72B-Instruct",
}
VENDORS = {
    "gpt4o": ("openai", "gpt-4o-2024-08-06"),
    "claude35sonnet": ("anthropic", "claude-3-5-sonnet-20241022"),
}
FAMILIES = {"llama8b": "llama", "qwen7b": "qwen2"}

TABLE_7 = {
    "trainer.per_device_batch_size": 4,
    "global_batch_size": 4 * 4 * 8,  # per device, accumulation, GPUs (Appendix C.1)
    "optimizer.learning_rate": 5.0e-7,
    "trainer.max_epochs": 10,
    "scheduler.name": "cosine",
    "scheduler.warmup_fraction": 0.1,
    "optimizer.name": "adamw",
}
SECTION_5_2 = {
    "cv.folds": 5,
    "cv.fold": "all",
    "cv.protocol": "paper",
    "cv.group": None,
    "cv.max_examples": None,
    "finetune.rank": 8,
    "decoding.name": "free",
    "sampling": "natural",
    "prompt.style": "full",
    "prompt.history": "full",
    "prompt.layout": "format_last",
    "prompt.max_tokens": None,
}
SILENT = {
    "prompt.cut": "blocks",
    "trainer.patience": 3,
    "trainer.precision": "bf16-mixed",
    "backbone.dtype": "float32",
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": (0.9, 0.999),
    "optimizer.eps": 1e-8,
    "optimizer.gradient_clip": 1.0,
    "scheduler.name": "cosine",
    "decoding.max_new_tokens": 128,
}
"""What the paper does not say and these rows do."""

SMALL = (
    *(
        "logger=none",
        "cv.fold=0",
        "cv.max_examples=30",
        "cv.sample=balanced",
        "decoding.max_new_tokens=2",
    ),
    *("data.options.size=300", "trainer=cpu", "trainer.progress=false"),
)
TWO_STEPS = ("global_batch_size=12", "trainer.max_epochs=1", "trainer.log_every_steps=1")


class Row(NamedTuple):
    """What tells the paper's rows apart, as published.csv writes it."""

    system: str
    shots: str
    tuning: str
    rationale: str
    task: str


def published(table: str) -> set[Row]:
    """Return the rows that a table of the paper prints."""
    cells = csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines())
    rows = {
        Row(*(cell[key] for key in Row._fields))
        for cell in cells
        if table in cell["tables"].split()
    }
    assert rows, f"table {table} has no rows"
    return rows


def row_of(config: RunConfig | PromptedConfig) -> Row:
    if isinstance(config, RunConfig):
        rationale = str(config.rationale).lower()
        return Row(config.backbone.name, "", config.finetune.method, rationale, config.task.name)
    names = {model: name for name, model in SERVED.items()}
    names |= {model: name for name, (_, model) in VENDORS.items()}
    system = names[str(config.client.model)] if config.remote else config.training.backbone.name
    return Row(system, str(config.shots), "none", "", config.training.task.name)


IN_A_TABLE = r"^\| .+ \| `python -m recap\.(.*)` \|$"
IN_A_BLOCK = r"^python -m recap\.(.* experiment=paper/.*)$"


@cache
def jobs(table: str, line: str) -> tuple[tuple[str, list[str]], ...]:
    """Return the verb and words of every job of the commands that ``line`` finds under a table."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## Table {table}\n")[2]
    commands = [shlex.split(c) for c in re.findall(line, text.partition("\n## ")[0], re.MULTILINE)]
    assert commands, f"the page has no command for table {table}"
    return tuple(
        (verb, job)
        for verb, *words in commands
        for job in (expand_sweep(words[1:], config_name=verb) if words[0] == "-m" else [words])
    )


@cache
def composed(table: str) -> tuple[tuple[Row, Any], ...]:
    """Return the page's rows of a table; runs get a name, which would be composed once more."""
    load = {"train": recap.load_config, "prompt": load_prompted}
    configs = [load[verb]([*job, "run=r"]) for verb, job in jobs(table, IN_A_TABLE)]
    return tuple((row_of(config), config) for config in configs)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder of a shrunk model for each family."""
    folder = tmp_path_factory.mktemp("models")
    return {family: write_family(folder / family, family) for family in FAMILIES.values()}


def flat(config: RunConfig) -> dict[str, Any]:
    return flatten(asdict(config))


def test_there_are_five_presets() -> None:
    files = [file.relative_to(FOLDER).with_suffix("") for file in FOLDER.rglob("*.yaml")]
    names = {file.as_posix() for file in files}
    assert names == {"paper/finetuned", "paper/prompted", "tuned", "ablation", "smoke"}


@pytest.mark.parametrize(("table", "n"), [("4", 34), ("5", 16)])
def test_the_commands_of_a_table_are_its_printed_rows_for_both_tasks(table: str, n: int) -> None:
    rows = [row for row, _ in composed(table)]
    assert len(rows) == len(set(rows)) == n
    assert set(rows) == published(table)


def test_the_tables_of_categories_need_no_runs_of_their_own() -> None:
    rows = {row for row, _ in composed("4") + composed("5")}
    assert published("10") | published("11") <= rows


@pytest.mark.parametrize("table", ["4", "5"])
def test_the_commands_for_a_whole_table_stand_for_its_rows(table: str) -> None:
    more = re.compile("data|keep_models|privacy")
    whole = [
        (verb, *sorted(word.lower() for word in job if not more.match(word)))
        for verb, job in jobs(table, IN_A_BLOCK)
        if "dry_run=true" not in job
    ]
    rows = [(verb, *sorted(word.lower() for word in job)) for verb, job in jobs(table, IN_A_TABLE)]
    assert sorted(whole) == sorted(rows)


def test_every_fine_tuned_row_has_the_values_of_table_7() -> None:
    for row, config in composed("5"):
        values = flat(config)
        for key, value in (TABLE_7 | SECTION_5_2 | SILENT).items():
            assert values[key] == value, (row, key)
        assert config.backbone.hub_id == LOCAL[row.system]
        assert config.backbone.family == FAMILIES[row.system]


@pytest.mark.parametrize("preset", ["paper/finetuned", "ablation"])
def test_any_other_backbone_takes_the_values_of_table_7(preset: str) -> None:
    values = flat(recap.load_config([f"experiment={preset}", "run=r"]))
    assert {key: values[key] for key in TABLE_7} == TABLE_7


def test_eight_devices_accumulate_four_micro_batches_of_four() -> None:
    config = composed("5")[0][1]
    examples = [EncodedExample(id=f"e{i}", prompt=(3, 4), answer=(5, 6)) for i in range(256)]
    for rank in range(8):
        plan = plan_epoch(
            examples,
            global_batch_size=config.global_batch_size,
            limits=BatchLimits(examples=config.trainer.per_device_batch_size),
            seed=0,
            epoch=0,
            world_size=8,
            rank=rank,
        )
        assert [len(batch.indices) for batch in plan] == [4] * 8, "two steps of four"


def test_tuned_adapters_differ_from_the_papers_in_their_learning_rate_alone() -> None:
    tuned = recap.load_config(["experiment=tuned", "backbone=qwen7b", "task=binary"])
    papers = dict(composed("5"))[Row("qwen7b", "", "lora", "true", "binary")]
    ours, theirs = result_options(tuned), result_options(papers)
    differing = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert differing == {"optimizer.learning_rate"}
    assert ours["optimizer.learning_rate"] == 1e-4
    assert tuned.run.startswith("demo-binary-qwen7b-lora-")


def test_prompted_rows_are_asked_greedily_under_the_folds_of_a_training() -> None:
    asked = [(row, config) for row, config in composed("4") if row.tuning == "none"]
    assert len(asked) == 32
    for row, config in asked:
        values = flat(config.training)
        assert config.shot_categories == "labels"
        assert config.training.rationale
        assert not config.privacy.allow_external
        assert values["finetune.method"] == "none"
        for key, value in SECTION_5_2.items():
            assert key == "finetune.rank" or values[key] == value, (row, key)
        client = config.client
        if row.system in LOCAL:
            assert client.name == "local"
            assert config.training.backbone.hub_id == LOCAL[row.system]
            assert config.training.backbone.dtype == "bfloat16"
            continue
        assert client.temperature == 0
        # top_p 1 is what Anthropic's API takes it for where it is not sent.
        assert client.top_p == (None if row.system == "claude35sonnet" else 1.0)
        if row.system in SERVED:
            assert (client.name, client.base_url) == ("openai", "http://127.0.0.1:8000/v1")
        else:
            assert ((client.name, client.model), client.base_url) == (VENDORS[row.system], None)


def test_folders_have_names_that_say_what_they_hold() -> None:
    finetuned = ["experiment=paper/finetuned", "task=binary"]
    one = recap.load_config([*finetuned, "backbone=llama8b", "finetune=full"]).run
    other = [*finetuned, "backbone=qwen7b", "finetune=lora", "rationale=false"]
    # The eight digits stand for Table 7: the same in every row, whatever it is made of.
    digits = one.removeprefix("demo-binary-llama8b-full-")
    assert re.fullmatch("[0-9a-f]{8}", digits)
    assert recap.load_config(other).run == f"demo-binary-qwen7b-lora-labelonly-{digits}"
    vendor = ["experiment=paper/prompted", "client=openai", "client.model=gpt-4o-2024-08-06"]
    asked = load_prompted([*vendor, "shots=1"])
    assert asked.run == "demo-fine_grained-openai-gpt-4o-2024-08-06-oneshot"


def test_one_word_takes_a_row_to_another_machine_and_not_to_another_folder() -> None:
    row = ["experiment=paper/finetuned", "backbone=qwen7b", "finetune=lora"]
    rented, laptop = recap.load_config(row), recap.load_config([*row, "trainer=cpu"])
    assert (rented.trainer.strategy, rented.trainer.devices) == ("fsdp", "auto")
    assert (laptop.trainer.strategy, laptop.trainer.accelerator) == ("auto", "cpu")
    assert laptop.trainer.max_epochs == 10
    assert laptop.run == rented.run


def test_an_override_stands_above_a_preset() -> None:
    config = recap.load_config(["experiment=tuned", "finetune=full", "trainer.max_epochs=2"])
    assert (config.finetune.method, config.trainer.max_epochs) == ("full", 2)
    asked = load_prompted(["experiment=smoke", "shots=1"])
    assert (asked.training.cv.folds, asked.shots) == (2, 1)


@pytest.mark.parametrize("own", ["client=openai", "shots=1", "privacy.allow_external=true"])
def test_a_prompted_row_given_to_another_command_is_answered_with_the_right_one(own: str) -> None:
    with pytest.raises(ConfigError, match=r"only recap\.prompt has this option"):
        recap.load_config(["experiment=paper/prompted", own])


def test_an_experiment_of_ones_own_that_sets_an_option_of_prompting_is_for_prompting(
    tmp_path: Path,
) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [/experiment/paper/prompted, _self_]\nshots: 1\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert load_prompted(["experiment=mine"], config_dir=tmp_path).shots == 1
    with pytest.raises(ConfigError, match=r"shots: only recap\.prompt has this option"):
        recap.load_config(["experiment=mine"], config_dir=tmp_path)


@pytest.mark.parametrize(
    ("family", "row", "rate"),
    [
        ("llama", "paper/finetuned backbone=llama8b finetune=full task=fine_grained", 5e-7),
        ("llama", "paper/finetuned backbone=llama8b finetune=lora rationale=false", 5e-7),
        ("qwen2", "paper/finetuned backbone=qwen7b rationale=false task=binary", 5e-7),
        ("qwen2", "tuned backbone=qwen7b", 1e-4),
    ],
)
def test_a_fine_tuned_row_makes_two_steps_on_a_shrunk_model_of_its_own(
    family: str, row: str, rate: float, models: dict[str, Path], tmp_path: Path
) -> None:
    weights = models[family]
    given = [*f"experiment={row}".split(), f"backbone.path={weights}", f"runs_dir={tmp_path}"]
    assert train.main([*given, "run=r", *SMALL, *TWO_STEPS]) == 0
    fold = tmp_path / "r" / "fold0"
    with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert max(steps) == 2
    # The first two steps of AdamW are at most the learning rate each.
    assert 0 < _moved(fold / "model", weights) < 2.2 * rate
    template = "chat_template.jinja"
    assert (fold / "model" / template).read_text() == (weights / template).read_text()
    rows = (fold / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert rows
    assert all(json.loads(row)["probabilities"] for row in rows)


def _moved(model: Path, start: Path) -> float:
    """Return the largest change of a weight; an adapter's second matrix begins at zero."""
    if (model / "adapter_model.safetensors").is_file():
        adapters = load_file(model / "adapter_model.safetensors")
        return max(float(w.abs().max()) for name, w in adapters.items() if "lora_B" in name)
    before = load_file(start / "model.safetensors")
    after = load_file(model / "model.safetensors")
    assert before.keys() == after.keys()
    return max(float((after[name] - before[name]).abs().max()) for name in before)


ASKED = ("experiment=paper/prompted", *SMALL)


@pytest.mark.parametrize(
    ("family", "row"),
    [
        ("llama", "backbone=llama8b shots=1 task=binary"),
        ("qwen2", "backbone=qwen14b shots=0 task=fine_grained"),
    ],
)
def test_a_prompted_row_asks_a_shrunk_model_of_its_own(
    family: str, row: str, models: dict[str, Path], tmp_path: Path
) -> None:
    given = [*ASKED, *row.split(), "backbone.dtype=bfloat16", f"backbone.path={models[family]}"]
    assert prompt.main([*given, f"runs_dir={tmp_path}", "run=r"]) == 0
    assert (tmp_path / "r" / "fold0" / "scores.json").is_file()
    assert read_prompted(tmp_path / "r")["shots"] == int("shots=1" in row)


@pytest.mark.parametrize(
    ("model", "row", "examples"),
    [
        ("llama70b", "shots=0 task=binary", 0),
        ("qwen72b", "shots=1 task=fine_grained", 13),
    ],
)
def test_a_row_of_a_large_model_asks_a_server_of_this_machine(
    model: str, row: str, examples: int, tmp_path: Path
) -> None:
    with serving() as server:
        client = ["client=openai", f"client.model={SERVED[model]}"]
        client += [f"client.base_url={server.url}/v1", f"runs_dir={tmp_path}"]
        assert prompt.main([*ASKED, *client, *row.split()]) == 0
    assert server.requests
    assert {request.body["model"] for request in server.requests} == {SERVED[model]}
    assert {request.prompt.count("## Example") for request in server.requests} == {examples}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_row_of_a_vendor_counts_its_cost_and_sends_nothing_before_it_may(
    vendor: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    client, model = VENDORS[vendor]
    given = [*ASKED, f"client={client}", f"client.model={model}", f"runs_dir={tmp_path / 'runs'}"]
    assert prompt.main([*given, "dry_run=true"]) == 0
    assert "calls" in capsys.readouterr().out
    assert prompt.main(given) == 2
    assert "privacy.allow_external=true" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_ablation_is_backbone_by_tuning_by_rationale_by_history() -> None:
    jobs = expand_sweep(["experiment=ablation", "task=binary"])
    swept = (
        ("backbone=llama8b", "backbone=qwen7b"),
        ("finetune=full", "finetune=lora", "finetune=none"),
        ("rationale=True", "rationale=False"),
        ("prompt.history=full", "prompt.history=intervention", "prompt.history=none"),
    )
    expected = [[*job, "experiment=ablation", "task=binary"] for job in itertools.product(*swept)]
    assert jobs == expected
    ends = [recap.load_config(job) for job in (jobs[0], jobs[-1])]
    assert [config.prompt.history for config in ends] == ["full", "none"]
    assert [config.rationale for config in ends] == [True, False]
    assert len({config.run for config in ends}) == 2


def test_a_key_on_the_command_line_takes_the_place_of_the_ablations_own() -> None:
    jobs = expand_sweep(["experiment=ablation", "prompt.history=none", "backbone=tiny,qwen3b"])
    assert len(jobs) == 2 * 3 * 2
    assert all("prompt.history=none" in job for job in jobs)
    assert {job[0] for job in jobs} == {"backbone=tiny", "backbone=qwen3b"}


def test_the_ablation_runs_and_ends_with_a_table_of_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrowed = ["backbone=tiny", "finetune=none", "rationale=false"]
    narrowed += ["prompt.history=intervention,none", "prompt=brief", f"runs_dir={tmp_path}"]
    assert train.main(["-m", "experiment=ablation", *narrowed, *SMALL]) == 0
    runs = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert len(runs) == 2
    table = capsys.readouterr().out.partition("All jobs")[2]
    assert sorted(runs) == sorted(run for run in runs if run in table)
