"""Every file under conf/experiment: against the paper, and run on a shrunk model of its own."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fake_servers import serving
from safetensors.torch import load_file
from shrunk import write_family

import recap
from recap.cli.compose import expand_sweep
from recap.config import RunConfig, flatten, result_options
from recap.data.batches import BatchLimits, plan_epoch
from recap.data.encode import EncodedExample
from recap.errors import ConfigError
from recap.prompt import __main__ as prompt
from recap.prompt.compose import load_prompted
from recap.prompt.options import PromptedConfig
from recap.runs.folder import read_prompted
from recap.train import __main__ as train

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "conf" / "experiment"
PUBLISHED = ROOT / "recap" / "report" / "published.csv"
PAGE = ROOT / "docs" / "reproduce.md"
SHARED = {"paper/table7", "paper/prompted"}
TASKS = {"binary": "binary", "fine": "fine_grained"}
BACKBONES = {"llama8b": "llama", "qwen7b": "qwen2"}

FINE_TUNED = [
    f"paper/{backbone}_{tuning}{answer}_{task}"
    for backbone in BACKBONES
    for tuning in ("full", "lora")
    for answer in ("", "_labelonly")
    for task in TASKS
]
"""Table 5 for both tasks; its first row of each backbone stands in Table 4 too."""

TUNED = [name.replace("paper/", "tuned/") for name in FINE_TUNED if "_lora" in name]

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
ELSEWHERE = {
    "gpt4o": ("openai", "gpt-4o-2024-08-06"),
    "claude35sonnet": ("anthropic", "claude-3-5-sonnet-20241022"),
}


def prompted_rows(*models: str) -> list[str]:
    return [
        f"paper/{model}_{shots}_{task}"
        for model in models
        for shots in ("zeroshot", "fewshot")
        for task in TASKS
    ]


PROMPTED = prompted_rows(*ELSEWHERE, *LOCAL, *SERVED)
"""The baselines of Table 4, for both tasks."""

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

ONE_OF_EACH = {
    "paper/llama8b_full_fine",
    "paper/llama8b_lora_labelonly_binary",
    "paper/qwen7b_full_labelonly_binary",
    "tuned/qwen7b_lora_fine",
    "paper/llama8b_fewshot_binary",
    "paper/qwen14b_zeroshot_fine",
    "paper/llama70b_zeroshot_binary",
    "paper/qwen72b_fewshot_fine",
    "paper/gpt4o_zeroshot_binary",
    "paper/claude35sonnet_fewshot_fine",
}
"""The runs of the default suite: each architecture, tuning, task, form of answers and client."""

SMALL = (
    *("logger=none", "cv.fold=0", "cv.max_examples=30", "decoding.max_new_tokens=2"),
    *("data.options.size=300", "trainer=cpu", "trainer.progress=false"),
)
TWO_STEPS = ("global_batch_size=12", "trainer.max_epochs=1", "trainer.log_every_steps=1")


def names_of_files() -> list[str]:
    files = [file.relative_to(FOLDER).with_suffix("") for file in FOLDER.rglob("*.yaml")]
    assert files, f"nothing lies under {FOLDER}"
    return sorted(file.as_posix() for file in files)


def flat(config: RunConfig) -> dict[str, Any]:
    return flatten(asdict(config))


@pytest.fixture(scope="module")
def trained() -> dict[str, RunConfig]:
    """Return every preset of recap.train, composed."""
    names = [name for name in names_of_files() if name not in PROMPTED]
    return {name: recap.load_config([f"experiment={name}"]) for name in names}


@pytest.fixture(scope="module")
def asked() -> dict[str, PromptedConfig]:
    """Return every preset of recap.prompt, composed."""
    names = [name for name in names_of_files() if name in PROMPTED]
    return {name: load_prompted([f"experiment={name}"]) for name in names}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder of a shrunk model for each family."""
    folder = tmp_path_factory.mktemp("models")
    return {family: write_family(folder / family, family) for family in ("llama", "qwen2")}


def test_there_is_one_file_for_each_row_of_tables_4_and_5() -> None:
    assert len(FINE_TUNED) == 16
    assert len(PROMPTED) == 32
    expected = [*FINE_TUNED, *TUNED, *PROMPTED, *SHARED, "ablation", "smoke"]
    assert names_of_files() == sorted(expected)


def test_every_row_that_a_report_sets_beside_the_papers_has_a_preset() -> None:
    published = set()
    for row in csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines()):
        task = "fine" if row["task"] == "fine_grained" else row["task"]
        shots = {"0": "zeroshot", "1": "fewshot", "": row["tuning"]}[row["shots"]]
        answer = "_labelonly" if row["rationale"] == "false" else ""
        published.add(f"paper/{row['system']}_{shots}{answer}_{task}")
    assert published == {*FINE_TUNED, *PROMPTED}


def test_the_page_on_reproduction_names_every_preset_and_no_other() -> None:
    commands = "\n".join(
        re.findall(r"^python -m recap\..*$", PAGE.read_text("utf-8"), re.MULTILINE)
    )
    named = set(re.findall(r"(?:paper|tuned)/\w+", commands))
    assert {*FINE_TUNED, *PROMPTED} <= named
    assert named <= set(names_of_files())


def test_every_fine_tuned_row_has_the_values_of_table_7(trained: dict[str, RunConfig]) -> None:
    for name in [*FINE_TUNED, "paper/table7", "ablation"]:
        values = flat(trained[name])
        for key, value in (TABLE_7 | SECTION_5_2).items():
            if name in FINE_TUNED or not key.startswith("prompt."):  # the tiny model has its own
                assert values[key] == value, (name, key)


def test_every_fine_tuned_row_has_what_was_decided_where_the_paper_is_silent(
    trained: dict[str, RunConfig],
) -> None:
    for name in FINE_TUNED:
        values = flat(trained[name])
        assert {key: values[key] for key in SILENT} == SILENT, name


def test_every_fine_tuned_row_is_what_its_name_says(trained: dict[str, RunConfig]) -> None:
    for name in [*FINE_TUNED, *TUNED]:
        backbone, tuning, *answer, task = name.partition("/")[2].split("_")
        config = trained[name]
        assert (config.backbone.name, config.backbone.family) == (backbone, BACKBONES[backbone])
        assert config.backbone.hub_id == LOCAL[backbone]
        assert config.finetune.method == tuning
        assert config.rationale == (answer == [])
        assert config.task.name == TASKS[task]


def test_eight_devices_accumulate_four_micro_batches_of_four(
    trained: dict[str, RunConfig],
) -> None:
    config = trained["paper/llama8b_full_fine"]
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


def test_adapters_of_tuned_rows_differ_from_the_papers_in_their_learning_rate_alone(
    trained: dict[str, RunConfig],
) -> None:
    for name in TUNED:
        ours = result_options(trained[name])
        papers = result_options(trained[name.replace("tuned/", "paper/")])
        differing = {key for key in ours.keys() | papers.keys() if ours.get(key) != papers.get(key)}
        assert differing == {"optimizer.learning_rate"}, name
        assert ours["optimizer.learning_rate"] == 1e-4


def test_prompted_rows_are_asked_greedily_under_the_folds_of_a_training(
    asked: dict[str, PromptedConfig],
) -> None:
    for name in PROMPTED:
        model, shots, task = name.partition("/")[2].split("_")
        config, values = asked[name], flat(asked[name].training)
        assert config.shots == {"zeroshot": 0, "fewshot": 1}[shots]
        assert config.shot_categories == "labels"
        assert config.training.task.name == TASKS[task]
        assert config.training.rationale
        assert not config.privacy.allow_external
        assert values["finetune.method"] == "none"
        for key, value in SECTION_5_2.items():
            assert key == "finetune.rank" or values[key] == value, (name, key)
        if model in LOCAL:
            assert config.client.name == "local"
            assert config.training.backbone.hub_id == LOCAL[model]
            assert config.training.backbone.dtype == "bfloat16"
        else:
            # top_p 1 is what Anthropic's API takes it for where it is not sent.
            assert config.client.temperature == 0
            assert config.client.top_p in ({1.0} if model != "claude35sonnet" else {None})
        if model in SERVED:
            assert (config.client.name, config.client.model) == ("openai", SERVED[model])
            assert config.client.base_url == "http://127.0.0.1:8000/v1"
        if model in ELSEWHERE:
            assert (config.client.name, config.client.model) == ELSEWHERE[model]
            assert config.client.base_url is None


def test_folders_have_names_of_their_own_that_say_what_they_hold(
    trained: dict[str, RunConfig], asked: dict[str, PromptedConfig]
) -> None:
    runs = {name: config.run for name, config in [*trained.items(), *asked.items()]}
    runs.pop("ablation"), runs.pop("paper/prompted")
    twice = [run for run, n in Counter(runs.values()).items() if n > 1]
    assert twice == []
    for name in [*FINE_TUNED, *TUNED]:
        backbone, tuning, *answer, task = name.partition("/")[2].split("_")
        expected = "-".join(["demo", TASKS[task], backbone, tuning, *answer])
        assert runs[name].startswith(f"{expected}-")
        assert len(runs[name]) == len(expected) + 9
    # The eight digits stand for Table 7: the same in every row, whatever it is made of.
    assert len({runs[name].rpartition("-")[2] for name in FINE_TUNED}) == 1
    assert runs["paper/gpt4o_fewshot_fine"] == "demo-fine_grained-openai-gpt-4o-2024-08-06-oneshot"


def test_one_word_takes_a_row_to_another_machine_and_not_to_another_folder(
    trained: dict[str, RunConfig],
) -> None:
    name = "paper/qwen7b_lora_fine"
    assert trained[name].trainer.strategy == "fsdp"
    assert trained[name].trainer.devices == "auto"
    for word in ("trainer=cpu", "trainer=ddp"):
        moved = recap.load_config([f"experiment={name}", word])
        assert moved.trainer.strategy == {"trainer=cpu": "auto", "trainer=ddp": "ddp"}[word]
        assert moved.trainer.max_epochs == 10
        assert moved.run == trained[name].run


def test_an_override_stands_above_a_preset() -> None:
    config = load_prompted(["experiment=paper/gpt4o_fewshot_binary", "client.model=m", "shots=0"])
    assert (config.client.model, config.training.backbone.name, config.shots) == ("m", "m", 0)
    given = ["experiment=paper/llama70b_zeroshot_fine", "client=local", "backbone=llama70b"]
    config = load_prompted(given)
    assert config.client.name == "local"
    assert config.training.backbone.hub_id == SERVED["llama70b"]
    config = load_prompted(["experiment=smoke", "shots=1"])
    assert (config.training.cv.folds, config.shots) == (2, 1)


@pytest.mark.parametrize("row", ["gpt4o_zeroshot_binary", "qwen7b_fewshot_fine"])
def test_a_prompted_row_given_to_another_command_is_answered_with_the_right_one(row: str) -> None:
    with pytest.raises(ConfigError, match=r"only recap\.prompt has this option"):
        recap.load_config([f"experiment=paper/{row}"])


def cases(names: list[str]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in ONE_OF_EACH else pytest.mark.slow) for name in names
    ]


@pytest.mark.parametrize("name", cases([*FINE_TUNED, *TUNED]))
def test_a_fine_tuned_row_makes_two_steps_on_a_shrunk_model_of_its_own(
    name: str, models: dict[str, Path], tmp_path: Path
) -> None:
    weights = models[BACKBONES[name.partition("/")[2].partition("_")[0]]]
    given = [f"experiment={name}", f"backbone.path={weights}", f"runs_dir={tmp_path}", "run=r"]
    assert train.main([*given, *SMALL, *TWO_STEPS]) == 0
    fold = tmp_path / "r" / "fold0"
    with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert max(steps) == 2
    moved = _moved(fold / "model", weights)
    # The first two steps of AdamW are at most the learning rate each.
    rate = 1e-4 if name in TUNED else 5e-7
    assert 0 < moved < 2.2 * rate
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


@pytest.mark.parametrize("name", cases(prompted_rows(*LOCAL)))
def test_a_prompted_row_asks_a_shrunk_model_of_its_own(
    name: str, models: dict[str, Path], tmp_path: Path
) -> None:
    weights = models["llama" if "llama" in name else "qwen2"]
    given = [f"experiment={name}", f"backbone.path={weights}", f"runs_dir={tmp_path}", "run=r"]
    assert prompt.main([*given, *SMALL]) == 0
    assert (tmp_path / "r" / "fold0" / "scores.json").is_file()
    assert read_prompted(tmp_path / "r")["shots"] == int("fewshot" in name)


@pytest.mark.parametrize("name", cases(prompted_rows(*SERVED)))
def test_a_row_of_a_large_model_asks_a_server_of_this_machine(name: str, tmp_path: Path) -> None:
    with serving() as server:
        given = [f"experiment={name}", f"runs_dir={tmp_path}", f"client.base_url={server.url}/v1"]
        assert prompt.main([*given, *SMALL]) == 0
    assert server.requests
    model = SERVED[name.partition("/")[2].partition("_")[0]]
    assert {request.body["model"] for request in server.requests} == {model}
    shown = {request.prompt.count("## Example") for request in server.requests}
    assert shown == ({0} if "zeroshot" in name else {2 if "binary" in name else 13})


@pytest.mark.parametrize("name", cases(prompted_rows(*ELSEWHERE)))
def test_a_row_of_a_vendor_counts_its_cost_and_sends_nothing_before_it_may(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    given = [f"experiment={name}", f"runs_dir={tmp_path / 'runs'}", *SMALL]
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
