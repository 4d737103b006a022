from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import recap
from recap.cli.compose import compose, expand_sweep, load_config
from recap.cli.prompted import load_prompted
from recap.config import RunConfig, result_options, to_dict, validated
from recap.errors import ConfigError


def test_the_default_run_is_the_demo_on_the_tiny_model() -> None:
    config = recap.load_config()
    assert (config.task.name, config.data.name, config.backbone.name) == (
        "fine_grained",
        "demo",
        "tiny",
    )
    assert config.run == "demo-fine_grained-tiny-full"


def test_the_tiny_backbone_takes_the_brief_prompt_unless_told_otherwise() -> None:
    assert recap.load_config().prompt.style == "brief"
    assert recap.load_config(["prompt=full"]).prompt.style == "full"
    assert recap.load_config(["backbone=qwen7b"]).prompt.style == "full"


def test_a_run_is_named_after_its_choices_and_a_hash_of_what_differs() -> None:
    name = recap.load_config(["task=binary", "finetune=lora", "rationale=false", "seed=3"]).run
    assert name.startswith("demo-binary-tiny-lora-labelonly-")
    assert len(name.rpartition("-")[2]) == 8
    assert recap.load_config(["seed=3"]).run != recap.load_config(["seed=4"]).run


@pytest.mark.parametrize(
    "free",
    [
        *("runs_dir=elsewhere", "logger=csv", "trainer=cpu", "cv.fold=2", "resume=never"),
        *("batching=padded", "trainer.max_tokens_per_device=9000", "keep_models=best"),
    ],
)
def test_options_that_change_no_result_do_not_change_the_name(free: str) -> None:
    assert recap.load_config([free]).run == "demo-fine_grained-tiny-full"


def test_balanced_sampling_changes_results_and_so_the_name() -> None:
    assert recap.load_config(["sampling=natural"]).run == "demo-fine_grained-tiny-full"
    name = recap.load_config(["sampling=balanced"]).run
    assert name.startswith("demo-fine_grained-tiny-full-")


def test_a_name_of_ones_own_is_taken_as_it_is() -> None:
    assert recap.load_config(["run=mine", "seed=5"]).run == "mine"


def test_a_taxonomy_given_by_name_is_written_out_in_the_configuration() -> None:
    taxonomy = recap.load_config(["task=binary"]).task.taxonomy
    assert isinstance(taxonomy, dict)
    assert len(taxonomy["categories"]) == 19  # Resistance, 4 patterns, 13 behaviours, Collaboration


def test_a_configuration_survives_the_way_to_yaml_and_back() -> None:
    config = recap.load_config(["task=flat", "finetune=lora"])
    assert validated(RunConfig, to_dict(config)) == config


def test_runs_of_other_seeds_share_their_folds_unless_told_otherwise() -> None:
    assert recap.load_config(["seed=7"]).cv.seed == 0
    assert recap.load_config(["seed=7", "cv.seed=1"]).cv.seed == 1


def test_finetuning_and_the_tiny_model_bring_learning_rates_of_their_own() -> None:
    def rate(*overrides: str) -> float:
        return recap.load_config(overrides).optimizer.learning_rate

    assert rate("backbone=qwen7b") == 1e-5
    assert rate("backbone=qwen7b", "finetune=lora") == 1e-4
    assert rate("finetune=lora") == rate()  # random weights need their own, adapters or not
    assert rate("backbone=qwen7b", "finetune=lora", "optimizer.learning_rate=5e-7") == 5e-7


def test_choices_of_ones_own_over_one_method_get_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    wide = "method: lora\nrank: 16\n"
    (tmp_path / "finetune" / "lora16.yaml").write_text(wide, encoding="utf-8")
    name = recap.load_config(["finetune=lora16"], config_dir=tmp_path).run
    assert name == "demo-fine_grained-tiny-lora16"


def test_a_file_that_a_built_in_choice_hides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / "lora.yaml").write_text("method: lora\n", encoding="utf-8")
    assert recap.load_config([], config_dir=tmp_path).finetune.method == "full"
    with pytest.raises(ConfigError, match="give it another name"):
        recap.load_config(["finetune=lora"], config_dir=tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task=fine_graned", "did you mean 'fine_grained'?"),
        ("cv.fodls=3", "did you mean 'cv.folds'?"),
        ("trainr=cpu", "did you mean 'trainer'?"),
        ("+cv.foo=3", "cv.foo: there is no such option"),
        ("optimizer.learning_rate=high", "optimizer.learning_rate"),
        ("prompt.history=some", "'none', 'intervention' or 'full'"),
        ("seed=1,2", "add -m"),
        ("task.taxonomy=psyfyre", "did you mean 'psyfire'?"),
    ],
)
def test_a_mistake_is_answered_with_what_would_have_been_right(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        recap.load_config([override])
    assert said in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        recap.load_config(["optimizer.learning_rate=-1", "trainer.max_epochs=0"])
    assert "optimizer.learning_rate" in str(caught.value)
    assert "trainer.max_epochs" in str(caught.value)


def test_a_conf_folder_under_the_current_one_adds_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "conf" / "task" / "mood.yaml"
    task.parent.mkdir(parents=True)
    task.write_text(
        "name: mood\ntaxonomy:\n  name: mood\n  categories: [{name: up}, {name: down}]\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert recap.load_config(["task=mood"]).run == "demo-mood-tiny-full"


def test_config_dir_is_searched_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: 11\n", encoding="utf-8"
    )
    assert recap.load_config(["experiment=mine"], config_dir=tmp_path).seed == 11
    with pytest.raises(ConfigError, match="no such folder"):
        recap.load_config([], config_dir=tmp_path / "absent")


def test_a_sweep_stands_for_the_product_of_its_choices() -> None:
    jobs = expand_sweep(["task=binary,flat", "seed=range(1,3)", "cv.folds=2"])
    assert jobs == [
        ["task=binary", "seed=1", "cv.folds=2"],
        ["task=binary", "seed=2", "cv.folds=2"],
        ["task=flat", "seed=1", "cv.folds=2"],
        ["task=flat", "seed=2", "cv.folds=2"],
    ]


def test_result_options_leave_out_what_changes_no_result() -> None:
    options = result_options(recap.load_config())
    assert options["cv.folds"] == 5
    assert not {"runs_dir", "logger.name", "trainer.devices", "cv.fold"} & options.keys()


def test_the_root_file_of_prompting_and_the_group_of_its_name_are_not_confused() -> None:
    config = load_prompted(["prompt=brief", "backbone=qwen7b", "shots=1"])
    assert config.training.prompt.style == "brief"
    assert config.training.prompt.label_form == "bare"
    assert config.shots == 1
    assert recap.load_config(["prompt=brief"]).prompt.style == "brief"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "demo-fine_grained-tiny-zeroshot"),
        (["task=binary", "shots=1"], "demo-binary-tiny-oneshot"),
        (["backbone=qwen7b", "rationale=false"], "demo-fine_grained-qwen7b-zeroshot-labelonly"),
        (["client=openai", "client.model=org/m:7b"], "demo-fine_grained-openai-org_m_7b-zeroshot"),
        (
            ["client=anthropic", "client.model=m", "shots=1"],
            "demo-fine_grained-anthropic-m-oneshot",
        ),
    ],
)
def test_a_prompted_run_is_named_after_its_model_and_shots(overrides: list[str], name: str) -> None:
    assert load_prompted(overrides).run == name
    free = ["runs_dir=elsewhere", "cv.fold=2", "privacy=external", "dry_run=true", "logger=csv"]
    if "client.model=m" in overrides:
        free += ["client.max_in_flight=9", "client.attempts=2", "client.max_total_tokens=5"]
    assert load_prompted([*overrides, *free]).run == name


@pytest.mark.parametrize(
    "changed",
    [
        *("seed=3", "cv.seed=1", "prompt.history=none", "shot_categories=leaves"),
        *("client.temperature=0.5", "client.base_url=http://127.0.0.1:1/v1"),
    ],
)
def test_what_changes_a_prompted_result_changes_its_name(changed: str) -> None:
    name = load_prompted(["client=openai", "client.model=m", changed]).run
    assert name.startswith("demo-fine_grained-openai-m-zeroshot-")
    assert len(name.rpartition("-")[2]) == 8


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_server_gets_the_full_prompt_and_no_backbone_of_this_machine(client: str) -> None:
    training = load_prompted([f"client={client}", "client.model=m"]).training
    assert (training.prompt.style, training.prompt.history) == ("full", "full")
    assert (training.backbone.name, training.backbone.family) == ("m", "remote")
    assert (training.backbone.path, training.backbone.hub_id) == (None, None)


def test_text_stays_on_this_machine_unless_told_otherwise() -> None:
    assert not load_prompted(["client=openai"]).privacy.allow_external
    assert load_prompted(["client=openai", "privacy=external"]).privacy.allow_external


def test_a_fault_in_a_prompted_run_has_the_name_of_its_option() -> None:
    with pytest.raises(ConfigError, match=r"^cv\.folds: "):
        load_prompted(["cv.folds=many"])
    with pytest.raises(ConfigError, match=r"^client\.max_in_flight: "):
        load_prompted(["client=openai", "client.max_in_flight=0"])


def test_a_file_that_has_changed_is_read_again_and_what_was_returned_is_the_callers_own(
    tmp_path: Path,
) -> None:
    choice = tmp_path / "cv" / "mine.yaml"
    choice.parent.mkdir()
    for folds in (3, 4):
        choice.write_text(f"defaults: [paper]\nfolds: {folds}\n", encoding="utf-8")
        for _ in range(2):
            values, choices = compose("train", ["cv=mine"], tmp_path)
            assert values["cv"]["folds"] == folds
            assert choices["cv"] == "mine"
            values["cv"]["folds"], choices["cv"] = 9, None


def test_a_name_tells_models_apart_that_lie_at_the_same_path_and_not_where_they_lie(
    tmp_path: Path,
) -> None:
    def name_of(folder: Path) -> str:
        return load_config([f"backbone.path={folder}"]).run

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    weights = bytearray(3 << 20)
    (folder / "model.safetensors").write_bytes(weights)
    first = name_of(folder)
    assert re.fullmatch(r"demo-fine_grained-mine-full-[0-9a-f]{8}", first)
    moved = tmp_path / "elsewhere" / "mine"
    shutil.copytree(folder, moved)
    (moved / "README.md").write_text("A card.")
    assert name_of(moved) == first
    # As after another tuning: other numbers, the same names, shapes and sizes.
    weights[1 << 20 : 2 << 20] = b"\1" * (1 << 20)
    (folder / "model.safetensors").write_bytes(weights)
    second = name_of(folder)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    assert len({first, second, name_of(folder)}) == 3
