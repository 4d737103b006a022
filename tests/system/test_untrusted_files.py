"""Files from elsewhere are data: none of them runs anything, and each is refused with a message."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectors import small_task, write_adapter, write_model
from faults import record_fault
from payloads import Touch, name_own_code, pickle_bytes, templates, torch_file
from shrunk import qwen2_tokenizer, write_family
from torch.distributed.checkpoint.state_dict_saver import save

from recap.cli.command import main
from recap.cli.compose import load_config
from recap.config import RunConfig, to_dict, validated
from recap.data.encode import ChatEncoder
from recap.data.readers.archives import annotator_files
from recap.data.readers.registry import check_options, get_reader
from recap.errors import ConfigError, UserError
from recap.models.backbone import load_backbone, load_tokenizer
from recap.models.checkpoints import (
    REST,
    digests_of,
    fault_of,
    read_checkpoint,
    read_progress,
    read_sharded,
    write_sums,
)
from recap.models.encoder import load_encoder
from recap.models.export import SETTINGS_FILE, ModelSettings, load_trained, read_settings
from recap.models.hub import read_model_config
from recap.records import Message
from recap.runs.detector import Detector
from recap.runs.folder import read_config
from recap.tasks.library import get_task
from recap.tasks.task import read_prompt_file

ROW = "malicious files"
PACKAGE = Path(__file__).resolve().parents[2] / "recap"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return the file that a payload would create."""
    return tmp_path / "canary"


def refuse(canary: Path, read: Callable[[], Any], match: str) -> None:
    """Assert that reading ends with a message for the user, and that nothing ran."""
    with pytest.raises(UserError, match=match):
        read()
    survived = not canary.exists()
    record_fault(ROW, tried=1, survived=int(survived), lost=int(not survived))
    assert survived


def accept(canary: Path, read: Callable[[], Any]) -> Any:
    """Assert that reading works, and that the payload beside it did not run."""
    found = read()
    survived = not canary.exists()
    record_fault(ROW, tried=1, survived=int(survived), lost=int(not survived))
    assert survived
    return found


def test_the_payload_is_live(canary: Path, tmp_path: Path) -> None:
    pickle.loads(pickle_bytes(canary))  # noqa: S301 - to see that the other tests can fail
    assert canary.exists()
    canary.unlink()
    torch.load(torch_file(tmp_path / "x.pt", canary), weights_only=False)
    assert canary.exists()


def sealed(file: Path) -> None:
    """Give a file the checksum that a checkpoint has, as whoever made it could."""
    data = file.read_bytes().removesuffix(bytes(2))
    digest = hashlib.sha256(data + bytes(2)).hexdigest()
    comment = b"sha256:" + digest.encode()
    file.write_bytes(data + len(comment).to_bytes(2, "little") + comment)
    assert fault_of(file) is None


@pytest.mark.parametrize("written", ["as torch writes it", "as a plain pickle"])
def test_a_checkpoint_that_is_a_program_is_not_run(
    written: str, canary: Path, tmp_path: Path
) -> None:
    file = tmp_path / "last.ckpt"
    if written == "as torch writes it":
        torch_file(file, canary, epoch=1, global_step=2, optimizer_states=[Touch(canary)])
    else:
        file.write_bytes(pickle_bytes(canary))
    sealed(file)
    for read in (read_checkpoint, read_progress):
        refuse(canary, lambda read=read: read(file), "cannot be read")  # type: ignore[misc]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return a sound checkpoint in shares, of one weight."""
    folder = tmp_path / "shares"
    save({"weight:a": torch.arange(6.0).view(2, 3)}, checkpoint_id=folder, no_dist=True)
    torch.save({"state_dict": ["a"], "optimizer_states": []}, folder / REST)
    return folder


def test_a_sound_checkpoint_in_shares_is_read(sharded: Path) -> None:
    assert read_sharded(sharded)["state_dict"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("file", [".metadata", REST])
def test_shares_whose_index_is_a_program_are_not_run(
    file: str, sharded: Path, canary: Path
) -> None:
    (sharded / file).write_bytes(pickle_bytes(canary))
    write_sums(sharded, digests_of(sharded.iterdir()))
    refuse(canary, lambda: read_checkpoint(sharded), "cannot be read")


def test_shares_that_hold_a_program_in_the_place_of_a_tensor_are_not_run(
    sharded: Path, canary: Path
) -> None:
    # torch reads entries that are no tensors without weights_only.
    save({"weight:a": Touch(canary)}, checkpoint_id=sharded, no_dist=True)
    like = {"a": torch.zeros(2, 3)}
    with pytest.raises(BaseException, match=r"tensor|index") as error:
        read_sharded(sharded, like=like)
    assert not isinstance(error.value, SystemExit)
    assert not canary.exists()


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return write_family(tmp_path / "model", "qwen2")


def only_a_pickle(folder: Path, canary: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    torch_file(folder / "pytorch_model.bin", canary)


READINGS: dict[str, Callable[[Path], Any]] = {
    "backbone": lambda f: load_backbone(name="b", family="qwen2", path=f),
    "encoder": lambda f: load_encoder(name="e", labels=["a", "b"], path=f),
    "trained": lambda f: load_trained([f], [ModelSettings(task=small_task("binary"))]),
}


@pytest.mark.parametrize("how", READINGS)
def test_weights_that_are_a_pickle_are_refused(how: str, family: Path, canary: Path) -> None:
    only_a_pickle(family, canary)
    refuse(canary, lambda: READINGS[how](family), r"pytorch_model\.bin, a pickle: a program")


def test_pickles_beside_safetensors_are_not_looked_at(family: Path, canary: Path) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "scheduler.pt"):
        torch_file(family / name, canary)
    accept(canary, lambda: load_backbone(name="b", family="qwen2", path=family))


def test_an_adapter_that_is_a_pickle_is_refused(family: Path, canary: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", small_task("binary"), family)
    accept(canary, lambda: Detector.from_pretrained(adapter))
    (adapter / "adapter_model.safetensors").unlink()
    refuse(canary, lambda: Detector.from_pretrained(adapter), "lacks adapter_model.safetensors")
    torch_file(adapter / "adapter_model.bin", canary)
    refuse(canary, lambda: Detector.from_pretrained(adapter), r"adapter_model\.bin, a pickle")


@pytest.mark.parametrize("how", READINGS)
def test_code_that_a_models_folder_names_is_not_run(how: str, family: Path, canary: Path) -> None:
    name_own_code(family, canary)
    accept(canary, lambda: READINGS[how](family))
    accept(canary, lambda: load_tokenizer(name="b", family="qwen2", path=family))
    name_own_code(family, canary, model_type="evil")
    refuse(canary, lambda: READINGS[how](family), "custom code|cannot be")


def test_attention_kernels_from_the_hub_are_refused(family: Path, canary: Path) -> None:
    file = family / "config.json"
    config = {**json.loads(file.read_text()), "attn_implementation": "somebody/kernel"}
    file.write_text(json.dumps(config), encoding="utf-8")
    refuse(canary, lambda: read_model_config(family), "kernels from the hub")
    refuse(canary, lambda: load_backbone(name="b", family="qwen2", path=family), "kernels")


def test_nothing_of_recap_reads_a_models_folder_in_another_way() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                own = called in ("Detector.from_pretrained", "GenerationConfig.from_pretrained")
                if node.func.attr in ("from_pretrained", "load_adapter") and not own:
                    found.append((path.name, called))
                if called in ("torch.load", "load_from_checkpoint"):
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert options["weights_only"] == "True", path
                assert called not in (
                    *("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load"),
                    *("joblib.load", "marshal.loads", "shelve.open"),
                ), path
    assert {name for name, _ in found} == {"hub.py"}
    assert len(found) == 5


RENDER_NOTHING = ("globals of raise_exception", "subclasses by attr", "format_map")


@pytest.mark.parametrize("name", templates(Path("x")))
def test_a_chat_template_cannot_leave_its_sandbox(name: str, canary: Path) -> None:
    tokenizer, said = qwen2_tokenizer(), [Message(role="user", text="well")]
    expected = ChatEncoder(tokenizer).prompt_ids(said)
    tokenizer.chat_template = templates(canary)[name] + tokenizer.chat_template
    if name in RENDER_NOTHING:
        assert accept(canary, lambda: ChatEncoder(tokenizer).prompt_ids(said)) == expected
    else:
        refuse(canary, lambda: ChatEncoder(tokenizer), "chat template refuses")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "load"),
        ("compute_dtype", "hub"),
        ("max_new_tokens", "9**9**9"),
        ("max_prompt_tokens", [1]),
        ("quantize", "yes"),
        ("task", "os:system"),
        ("task", {"__class__": "evil"}),
        ("more", 1),
    ],
)
def test_a_changed_recap_json_is_refused(
    key: str, value: Any, canary: Path, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model", small_task("binary"))
    file = folder / SETTINGS_FILE
    assert read_settings(folder) is not None
    changed = {**json.loads(file.read_text(encoding="utf-8")), key: value}
    file.write_text(json.dumps(changed), encoding="utf-8")
    refuse(canary, lambda: read_settings(folder), "cannot be used")


TOUCH = "!!python/object/apply:os.system ['touch {}']"
HYDRA = {
    "own key": "trainer._target_=os.system",
    "added key": "+trainer._target_=os.system",
    "mapping": "+data.options._target_=os.system ; +data.options.command='touch {}'",
    "callback": "+callbacks.evil={{_target_: os.system, command: 'touch {}'}}",
    "named callback": "+callbacks.evil={{name: 'os:system', command: 'touch {}'}}",
    "class callback": "+callbacks.evil={{name: 'subprocess:Popen', args: [touch, '{}']}}",
    "reader": "data.reader=os:system ; data.path='touch {}'",
    "launcher": "hydra.launcher._target_=os.system ; +hydra.launcher.command='touch {}'",
    "sweeper": "hydra.sweeper._target_=os.system",
    "hydra callback": "+hydra.callbacks.evil={{_target_: os.system, command: 'touch {}'}}",
    "logging class": "+hydra.hydra_logging={{handlers: {{h: {{class: subprocess.Popen}}}}}}",
    "environment": "data.path=${{oc.env:SECRET}}",
    "hidden environment": "+data.options.a=oc.env ; data.path=${{${{data.options.a}}:SECRET}}",
    "decode": "data.path=${{oc.decode:'[1,2]'}}",
    "create": "data.path=${{oc.create:${{trainer}}}}",
}
"""Overrides; where only the run itself finds the fault, ``--cfg`` prints it as any other text."""

FLAGS = [None, *(pytest.param(f, marks=pytest.mark.slow) for f in ("-m", "--cfg", "--help"))]
FOUND_BY_THE_RUN = ("mapping", "callback", "named callback", "class callback", "reader")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", HYDRA)
def test_overrides_run_nothing_and_read_no_secret(
    name: str,
    flag: str | None,
    canary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SECRET", "sk-secret-4711")
    monkeypatch.chdir(tmp_path)
    given = HYDRA[name].format(canary).split(" ; ")
    flags = {None: [], "-m": ["-m"], "--cfg": ["--cfg", "job"], "--help": ["--help"]}[flag]
    code = main(["train", *flags, "experiment=smoke", "logger=none", *given])
    printed = capfd.readouterr()
    assert not canary.exists()
    if flag is None or flag == "-m" or (flag == "--cfg" and name not in FOUND_BY_THE_RUN):
        assert code == 2, printed
        assert printed.err.startswith("error:")
        assert "Traceback" not in printed.err
    assert "sk-secret-4711" not in printed.out + printed.err
    written = [f for f in tmp_path.rglob("*") if f.is_file() and b"sk-secret" in f.read_bytes()]
    assert not written
    record_fault(ROW, tried=1, survived=1, lost=0)


def yaml_places(tmp_path: Path, canary: Path) -> dict[str, Callable[[], Any]]:
    """Return what reads YAML of others, each place with a tag in it that would build an object."""
    tag = TOUCH.format(canary)
    conf = tmp_path / "conf"
    run = tmp_path / "run"
    texts = {
        conf / "experiment" / "evil.yaml": f"# @package _global_\nrun: {tag}\n",
        conf / "data" / "evil.yaml": f"name: {tag}\nreader: demo\n",
        conf / "taxonomy" / "evil.yaml": f"name: {tag}\n",
        conf / "task" / "evil.yaml": "name: evil\ntaxonomy: evil\n",
        run / "config.yaml": f"task: {tag}\n",
        tmp_path / "prompt.yaml": f"en: {tag}\n",
    }
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    options = {"config_dir": conf}
    return {
        "experiment": lambda: load_config(["experiment=evil"], **options),
        "data": lambda: load_config(["data=evil"], **options),
        "taxonomy": lambda: load_config(["task=evil"], **options),
        "run folder": lambda: read_config(run),
        "prompt": lambda: read_prompt_file(tmp_path / "prompt.yaml", language="en"),
    }


@pytest.mark.parametrize("place", ["experiment", "data", "taxonomy", "run folder", "prompt"])
def test_tags_of_yaml_build_nothing(place: str, canary: Path, tmp_path: Path) -> None:
    refuse(canary, yaml_places(tmp_path, canary)[place], "constructor|YAML|could not")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    "part",
    [
        "callbacks: {evil: {_target_: os.system, command: 'touch CANARY'}}",
        "launcher: {_target_: os.system, command: 'touch CANARY'}",
        "job_logging: {handlers: {h: {(): os.system, command: 'touch CANARY'}}}",
        "hydra_logging: {version: 1, formatters: {f: {(): os.system, command: 'touch CANARY'}}}",
    ],
    ids=lambda part: part.partition(":")[0],
)
def test_an_experiment_of_others_cannot_have_hydra_run_anything(
    part: str, flag: str | None, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "conf" / "experiment" / "evil.yaml"
    file.parent.mkdir(parents=True)
    text = f"# @package _global_\nhydra:\n  {part.replace('CANARY', str(canary))}\n"
    file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    flags = {None: [], "-m": ["-m"], "--cfg": ["--cfg", "job"], "--help": ["--help"]}[flag]
    assert main(["train", *flags, "experiment=evil", "logger=none"]) == 2
    assert not canary.exists()
    record_fault(ROW, tried=1, survived=1, lost=0)


def test_a_run_folders_configuration_is_never_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sk-secret-4711")
    values = to_dict(load_config(["run=x", "logger.project='a'"]))
    values["data"]["path"] = "${oc.env:SECRET}"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert read_config(tmp_path).data.path == "${oc.env:SECRET}"


@pytest.mark.parametrize("name", ["os:system", "builtins:exec", "builtins:print", "os.path:join"])
def test_a_reader_takes_faults_or_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match="is no reader"):
        check_options(name, get_reader(name), {})


def test_a_task_is_a_task_or_refused() -> None:
    for name in ("os:system", "builtins:dict", "subprocess:Popen"):
        with pytest.raises(ConfigError, match="stands for"):
            get_task(name, language="en")


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/tmp/x", "..", ".", "a/b", "a/../../x", "..\\x", "C:x", ".hidden", "~/../x"),
        *("x\n", "a\x00b", "\x1b[31mx", "", "y" * 300, "％/x", "a\u2028b"),
    ],
)
def test_a_runs_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    values = to_dict(load_config(["run=x"]))
    with pytest.raises(ConfigError, match="run: has to be the name of one folder"):
        validated(RunConfig, {**values, "run": name})
    record_fault(ROW, tried=1, survived=1, lost=0)


def test_a_runs_name_on_the_command_line_leads_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for verb, more in (
        ("train", []),
        ("evaluate", ["method=tfidf"]),
        ("prompt", []),
    ):
        for run in ("../x", "../../x", str(tmp_path / "x")):
            assert main([verb, *more, "experiment=smoke", f"run={run}", "logger=none"]) == 2
            assert "run: has to be the name of one folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside"]


def test_links_do_not_lead_out_of_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "model").mkdir(parents=True)
    precious = elsewhere / "precious"
    precious.write_text("precious", encoding="utf-8")
    runs = tmp_path / "runs"
    (runs / "parts").mkdir(parents=True)
    (runs / "whole").symlink_to(elsewhere)
    (runs / "parts" / "fold0").symlink_to(elsewhere)
    (runs / "lock").mkdir()
    (runs / "lock" / ".lock").symlink_to(precious)
    for run in ("whole", "parts", "lock"):
        arguments = ["method=tfidf", "experiment=smoke", f"runs_dir={runs}", f"run={run}"]
        assert main(["evaluate", *arguments, "logger=none"]) == 2
        assert "is a link" in capsys.readouterr().err
        record_fault(ROW, tried=1, survived=1, lost=0)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["model", "precious"]
    assert precious.read_text(encoding="utf-8") == "precious"


def test_a_zip_is_unpacked_under_names_of_our_own(tmp_path: Path) -> None:
    outside = [tmp_path / "escaped.jsonl", Path("/tmp/recap-escaped.jsonl")]
    archive = tmp_path / "in" / "exports.zip"
    archive.parent.mkdir()
    row = json.dumps({"id": 1, "text": "a", "label": ["b"]}) + "\n"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (
            "../escaped.jsonl",
            "/tmp/recap-escaped.jsonl",
            "..\\escaped.jsonl",
            "ok.jsonl",
        ):
            file.writestr(name, row)
        link = zipfile.ZipInfo("link.jsonl")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with annotator_files(archive) as files:
        assert len(files) == 4  # a name that begins with a dot is passed over
        folder = files[0].path.parent
        assert all(one.path.parent == folder for one in files)
        # Where memory holds a file, its name is a link to it; the archive's own link is text.
        assert not any(one.path.resolve() == Path("/etc/passwd") for one in files)
        assert "/etc/passwd" in {one.path.read_text() for one in files}
    assert not folder.exists()
    assert not any(path.exists() for path in outside)
    record_fault(ROW, tried=5, survived=5, lost=0)
