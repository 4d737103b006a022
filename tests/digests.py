"""Digests of everything that a fixed list of commands writes, to set two versions side by side.

``python tests/digests.py FOLDER`` runs the commands with the package that this file belongs to, or
with ``--tree CHECKOUT``, each in ``FOLDER/<name>``, and writes ``FOLDER/digests.json``.
``python tests/digests.py --compare OLD NEW`` says what differs, and ends with 1 where figures do.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
INPUTS = "inputs"
HOME = "home"
RECORD = "digests.json"
LISTED = 8
"""Differing keys, and differing lines, that are shown of one file."""

FIGURES = frozenset({".json", ".jsonl", ".csv", ".npz", ".safetensors", ".xlsx", "exit", "mode"})
"""Endings of files whose difference ends the comparison with 1; all others are prose."""

NOT_LOOKED_AT: Mapping[str, str] = {
    "*/wandb/*": "W&B's own files hold times, process numbers and random names",
    "*.lock": "locks are empty",
    "*.model-digests.json": "times of files, and where they lie",
    "*/checkpoints/*": "pickles for resuming; the weights stand in model/ as well",
    "/predict-adapter/*.state.json": "a digest of the model's folder, so of target_modules (below)",
}
"""Patterns of files, below the folder of all commands, that have no digest, and why."""

LEFT_OUT_KEYS: Mapping[str, str] = {
    r"(train|test|selection)_seconds": "how long it took",
    r"(tokens|examples)_per_second": "how long it took",
    r"memory_gib": "what else the process held in memory",
    r"git_commit|git commit of recap": "it is another one with every change",
}
"""Keys of JSON and columns of CSV without a digest, as whole regular expressions, and why."""

SORTED_KEYS: Mapping[str, str] = {
    "target_modules": "PEFT writes a set, in another order with every process",
}
"""Keys of lists whose order says nothing, and why."""

_TIME = r"(?:\d+ h \d\d min|\d+ min|\d+ s)\b"
REPLACED: Sequence[tuple[str, str, str]] = (
    (rf", about {_TIME}.* left$", "", "an estimate of the time that is left"),
    (rf"\b{_TIME}", "<time>", "how long it took, on the console and in reports"),
)
"""Patterns of texts, what stands in their place, and why; paths and the commit go as well."""


# ---------------------------------------------------------------- what the commands read

LABELS = (
    *("Challenging", "Discounting", "Blaming", "Disagreeing", "Excusing", "Minimizing"),
    *("Pessimism", "Reluctance", "Unwillingness", "Minimum Talk", "Limit Setting"),
    *("Inattention", "Sidetracking", "Collaboration"),
)
SYLLABLES = ("ba", "lo", "mi", "ru", "ten", "sha", "vo", "ki", "dul", "pe", "fra", "nim")
SIGNS = "风山水火木石云月星雨雪河"
WRONG_SHARE = {"ann": 0.1, "bo": 0.3, "cy": 0.4}
"""Annotators, and how often each takes another label."""


def invented(rng: random.Random, n: int, *, chinese: bool = False) -> str:
    """Return a sentence of invented words."""
    if chinese:
        return "".join(rng.choice(SIGNS) for _ in range(2 * n)) + "。"
    words = ("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3))) for _ in range(n))
    return " ".join(words).capitalize() + "."


def dialogues(n: int, *, labelled: bool = True, chinese: bool = False) -> list[dict[str, Any]]:
    """Return dialogues of three exchanges, whose labels go round, with ids for the client turns."""
    rng, rows = random.Random(7), []
    for number in range(n):
        turns: list[dict[str, Any]] = []
        for exchange in range(3):
            asked, said, why = (invented(rng, k, chinese=chinese) for k in (5, 4 + number % 5, 6))
            client = {"speaker": "client", "text": said, "id": f"t{number}-{exchange}"}
            if labelled:
                label = LABELS[(3 * number + exchange) % len(LABELS)]
                client |= {"label": label, "rationale": why}
            turns += [{"speaker": "counselor", "text": asked}, client]
        meta = {"topic": ("sleep", "work")[number % 2], "goal": (number * 5) % 11}
        people = {"client": f"K{number % 9}", "counselor": f"C{number % 3}"}
        rows.append({"session": f"S{number}", **people, "meta": meta, "turns": turns})
    return rows


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write rows as JSON lines, or as one list where the name ends with .json."""
    found = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = f"[{','.join(found)}]" if path.suffix == ".json" else "\n".join(found) + "\n"
    path.write_text(text, encoding="utf-8")


def write_table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_inputs(folder: Path) -> None:
    """Write the small files that the commands read."""
    folder.mkdir(parents=True, exist_ok=True)
    talks = dialogues(28)
    said = [
        (turn["id"], row["session"], turn["text"], turn["label"], turn["rationale"])
        for row in talks
        for turn in row["turns"]
        if turn["speaker"] == "client"
    ]
    write_lines(folder / "talks.jsonl", talks)
    write_lines(folder / "new.jsonl", dialogues(4, labelled=False))
    write_lines(folder / "new_zh.jsonl", dialogues(2, labelled=False, chinese=True))
    _write_for_readers(folder, said)
    _write_faulty(folder)
    _write_judgements(folder, said)
    _write_measures(folder, talks)


Said = Sequence[tuple[str, str, str, str, str]]
"""Id, session, text, label and rationale of client turns."""


def _write_for_readers(folder: Path, said: Said) -> None:
    history = [{"speaker": "counselor", "text": "Tensha voki?"}]
    examples, documents, alpaca, messages, annomi = [], [], [], [], []
    for number, (name, session, text, label, why) in enumerate(said[:42]):
        context = f"Counselor: Voki?\n\nClient: {text}"
        examples.append(
            {"id": name, "session": session, "history": history, "response": text}
            | {"label": label, "rationale": why}
        )
        documents.append({"id": number, "text": context, "label": label})
        answer = f"Behavior: {label}\nReason: {why}"
        alpaca.append({"instruction": "?", "input": context, "output": answer, "id": name})
        messages.append({"idx": number, "text": text, "labels": [label], "data_source": "web"})
        talk, begins = number // 7, (("high", "low")[number // 21], number // 7, "sleep")
        asked = ("therapist", "Voki?", talk, "question", "n/a")
        told = ("client", text, talk, "n/a", ("change", "sustain", "neutral")[number % 3])
        annomi += [(*begins, 2 * number, *asked), (*begins, 2 * number + 1, *told)]
    write_lines(folder / "examples.jsonl", examples)
    write_lines(folder / "client_resistance.json", documents)
    write_lines(folder / "doccano.jsonl", [{**row, "label": [row["label"]]} for row in documents])
    write_lines(folder / "alpaca.json", alpaca)
    write_lines(folder / "psyguard.json", messages)
    columns = "mi_quality,transcript_id,topic,utterance_id,interlocutor,utterance_text"
    columns += ",annotator_id,main_therapist_behaviour,client_talk_type"
    write_table(folder / "annomi.csv", columns, annomi)
    rows = []
    for _, session, text, label, _ in said[:24]:
        rows += [(session, "counselor", "Voki?", "", 1), (session, "client", text, label, 2)]
    write_table(folder / "table.csv", "session,speaker,text,label,room", rows)
    spoken = "".join(f"咨询师：Voki?\n来访者：{text}\n" for _, _, text, _, _ in said[:5])
    (folder / "talk.txt").write_text(spoken, encoding="utf-8")


def _write_faulty(folder: Path) -> None:
    good = {"id": "a", "response": "Call 13812345678 dul.", "label": "Blaming"}
    unknown = {**good, "id": "b", "label": "Blamming"}
    speaker = {"session": "s", "turns": [{"speaker": "Th", "text": "Ba."}]}
    conflict, named = {"id": "d", "label": "Excusing"}, {"rationale": "This is Excusing."}
    rows = [good, unknown, {**good, "id": "c", "response": ""}, good, {**good, **conflict}]
    rows += [{**good, "id": "e", **named}, speaker]
    write_lines(folder / "faulty.jsonl", [*rows, [1]])
    write_lines(folder / "unknown_label.jsonl", [unknown])


def _write_judgements(folder: Path, said: Said) -> None:
    """Write what annotators, candidates and a model said of the turns."""
    rng = random.Random(11)
    long, wide, exams, answers = [], [], [], []
    for place, (name, session, _, label, _) in enumerate(said):
        given = {
            person: rng.choice(LABELS) if rng.random() < wrong else label
            for person, wrong in WRONG_SHARE.items()
        }
        if place < len(said) - 2:
            answers.append((name, given["bo"]))
        if place < 40:
            long += [(name, session, who, said_so, "Ru ten.") for who, said_so in given.items()]
            wide.append((name, *given.values()))
            exams += [(name, who, 1 + place // 20, said_so) for who, said_so in given.items()]
    write_table(folder / "judgements.csv", "id,session,annotator,label,rationale", long)
    write_table(folder / "wide.csv", "id,ann,bo,cy", wide)
    write_table(folder / "exams.csv", "id,candidate,exam,label", exams)
    write_table(folder / "answers.csv", "id,label", answers)
    write_table(folder / "key.csv", "id,label", [(row[0], row[3]) for row in said[:40]])
    scores = [(who, exam, f"0.{exam + 4}{len(who)}") for who in WRONG_SHARE for exam in (1, 2, 3)]
    write_table(folder / "exam_scores.csv", "candidate,exam,accuracy", scores)


def _write_measures(folder: Path, talks: list[dict[str, Any]]) -> None:
    """Write what goes with sessions, and the scores of a study."""
    rng = random.Random(13)
    rows = [(row["session"], rng.randint(1, 7), rng.randint(1, 7)) for row in talks]
    write_table(folder / "outcomes.csv", "session,bond,task", rows)
    groups = ("control", "experimental")
    study = [
        (f"P{who}", groups[who % 2], phase, rng.randint(-9, 9) / 10 + who % 2 * gain)
        for who in range(12)
        for phase, gain in (("pre", 0), ("post", 1))
    ]
    write_table(folder / "study.csv", "participant,group,phase,score", study)


# ---------------------------------------------------------------- what is filled in between


def fill(sheet: Path, target: Path, value: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Write a sheet with some of its columns filled in."""
    rows = [{**row, **value(row)} for row in read_table(sheet)]
    write_table(target, ",".join(rows[0]), [tuple(row.values()) for row in rows])


def copy(folder: Path, source: str) -> Path:
    """Copy a folder of an earlier command, and return the copy."""
    return Path(shutil.copytree(folder.parent / source, folder / Path(source).name))


def fill_responses(folder: Path) -> None:
    """Respond to every scenario of a study."""
    for sheet in sorted(copy(folder, "materials-draw/out").glob("participants/*/*.csv")):
        fill(sheet, sheet, lambda row: {"response": f"Balo {row['scenario']} miru {row['order']}."})


def fill_ratings_of_responses(folder: Path) -> None:
    """Rate every response of a study."""
    for sheet in sorted(copy(folder, "materials-rate/out").glob("ratings/*.csv")):
        fill(sheet, sheet, lambda row: {"rating": str(len(row["response"]) % 3 - 1)})


def fill_ratings(folder: Path) -> None:
    """Rate every rationale, each rater in a way of one's own."""
    criteria = ("label_alignment", "context_relevance", "rationality", "clarity")
    for place, name in enumerate(("ratings_ann.csv", "ratings_bo.csv")):
        fill(
            folder.parent / "ratings-blank/out" / name,
            folder / name,
            lambda row, place=place: {  # type: ignore[misc]
                each: str(1 + (len(row["id"] + each) + int(row["id"][-1]) * place) % 5)
                for each in criteria
            },
        )


def decide(folder: Path) -> None:
    """Fill in the to-do file of an adjudication."""
    sheet = folder.parent / "adjudicate/out/todo.csv"
    fill(sheet, folder / "todo.csv", lambda row: {"final_label": "Excusing"})


PREPARED: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "train-final": ("train-binary", lambda folder: copy(folder, "train-binary/runs")),
    "train-again": ("train-fine", lambda folder: copy(folder, "train-fine/runs")),
    "wrong-reuse": ("train-fine", lambda folder: copy(folder, "train-fine/runs")),
    "materials-rate": ("materials-draw", fill_responses),
    "materials-score": ("materials-rate", fill_ratings_of_responses),
    "ratings": ("ratings-blank", fill_ratings),
    "adjudicate-decided": ("adjudicate", decide),
}
"""Commands to the earlier one whose files they go on with, and what is done with them before."""


# ---------------------------------------------------------------- the commands

SHORT: Mapping[str, str] = {
    "SMOKE": "experiment=smoke cv.sample=natural logger=csv",
    "LEARNS": "optimizer.learning_rate=4e-3 trainer.max_epochs=5",
    "EVENLY": "task=binary sampling=balanced",
    "TALKS": "data=dialogues data.path=../inputs/talks.jsonl",
    "NEW": "input=../inputs/new.jsonl",
    "BINARY": "../train-binary/runs/binary",
    "FINE": "../train-fine/runs/fine",
    "STAGES": "binary=../train-binary/runs/binary fine_grained=../train-fine/runs/fine",
    "ANSWERED": "data.path=../inputs/talks.jsonl predictions=../predict-cascade/a.jsonl",
    "FAST": "resamples=100 out=out",
    "UNTUNED": "../prompt-zero/runs/zero,../evaluate-encoder/runs/encoder",
    "OTHERS": "../train-scored/runs/scored,../evaluate-tfidf/runs/tfidf"
    ",../evaluate-encoder-fine/runs/encoder-fine",
    "MATERIALS": "action=study_materials data=dialogues data.path=../inputs/talks.jsonl"
    " study_materials.participants=4 study_materials.per_behavior=1"
    " study_materials.collaborative=2 resamples=50 out=out",
}
"""What stands in the list for words that many commands have."""

LIST = """
train-fine: train SMOKE run=fine LEARNS decoding=constrained
train-binary: train SMOKE run=binary EVENLY LEARNS decoding=constrained
train-seed: train SMOKE run=seed EVENLY LEARNS decoding=constrained seed=1
train-free: train SMOKE run=free EVENLY LEARNS
train-scored: train SMOKE run=scored decoding=scored
train-label-only: train SMOKE run=label-only rationale=false LEARNS
train-chinese: train SMOKE run=chinese data.language=zh task=flat decoding=constrained
train-lora: train SMOKE run=lora finetune=lora optimizer.learning_rate=4e-3 decoding=constrained
train-merged: train SMOKE finetune=lora merge=true cv.fold=0 trainer.log_every_steps=1
train-qlora: train SMOKE run=qlora task=binary backbone=qwen0_5b prompt=brief cv.fold=0
    backbone.path=BINARY/fold0/model finetune=qlora decoding=constrained
train-wandb: train experiment=smoke logger=wandb run=tracked task=binary cv.fold=0
train-untuned: train SMOKE run=untuned finetune=none decoding=scored cv.fold=0
train-own-data: train SMOKE run=own-data TALKS task=binary cv.group=client cv.protocol=nested
    batching=padded decoding=constrained
train-packed: train SMOKE task=binary batching=packed cv.fold=1 prompt=full prompt.max_tokens=900
    keep_models=best cv.max_examples=60 run=packed
train-examples: train SMOKE run=examples data=dialogues data.path=../inputs/examples.jsonl
    task=flat prompt.layout=format_first cv.fold=1 trainer.log_every_steps=1
train-annomi: train SMOKE run=annomi data=annomi data.path=../inputs/annomi.csv task=annomi_talk
train-final: train SMOKE run=binary EVENLY LEARNS decoding=constrained cv.fold=final
train-again: train SMOKE run=fine LEARNS decoding=constrained
train-sweep: train -m SMOKE cv.fold=0 rationale=true,false seed=3 decoding=constrained
    cv.max_examples=60

prompt-zero: prompt SMOKE run=zero task=binary decoding.max_new_tokens=8
prompt-one: prompt SMOKE run=one shots=1 decoding=scored prompt.max_tokens=900 cv.max_examples=60
prompt-leaves: prompt SMOKE run=leaves shots=1 shot_categories=leaves task=binary
    data.language=zh decoding=constrained prompt.max_tokens=1200 decoding.max_new_tokens=8
    cv.max_examples=60
prompt-dry: prompt SMOKE task=binary client=openai client.model=m dry_run=true

evaluate-tfidf: evaluate SMOKE run=tfidf method=tfidf
evaluate-tfidf-nested: evaluate SMOKE run=tfidf-nested method=tfidf task=binary
    tfidf.context=full cv.protocol=nested
evaluate-tfidf-chinese: evaluate SMOKE method=tfidf task=flat data.language=zh
evaluate-encoder: evaluate SMOKE run=encoder method=encoder task=binary encoder.max_epochs=2
evaluate-encoder-fine: evaluate SMOKE run=encoder-fine method=encoder encoder.max_epochs=2
    encoder.history=full sampling=balanced
evaluate-model: evaluate model=BINARY TALKS out=out
evaluate-fold: evaluate model=FINE cv.fold=1 out=out
evaluate-final: evaluate model=../train-final/runs/binary/final/model TALKS out=out
evaluate-file: evaluate predictions=../inputs/answers.csv TALKS task=flat on_missing=invalid
    out=out
evaluate-rows-of-a-fold: evaluate predictions=FINE/fold0/predictions.jsonl experiment=smoke
    on_missing=drop out=out
evaluate-cascade: evaluate STAGES out=out
evaluate-cascade-unasked: evaluate STAGES false_alarms=invalid

predict-one: predict model=BINARY NEW output=a.jsonl
predict-table: predict model=FINE input=../inputs/table.csv output=a.csv rationale=true
predict-cascade: predict STAGES input=../inputs/talks.jsonl output=a.jsonl
predict-cascade-csv: predict STAGES NEW output=a.csv threshold=0.3 rationale=true
predict-transcript: predict model=../train-chinese/runs/chinese input=../inputs/talk.txt
    output=a.jsonl decoding=free
predict-chinese: predict model=../train-chinese/runs/chinese input=../inputs/new_zh.jsonl
    output=a.jsonl decoding=constrained rationale=true privacy.replace_text=true
predict-adapter: predict model=../train-lora/runs/lora NEW output=a.csv
predict-shards: predict -m model=BINARY NEW output=a.jsonl shard=0/2,1/2
evaluate-predicted: evaluate predictions=../predict-cascade/a.jsonl TALKS task=flat out=out
predict-skip: predict model=BINARY input=../inputs/faulty.jsonl output=a.jsonl data.on_error=skip

describe-demo: corpus action=describe data.options.size=120 out=out
describe-tokens: corpus TALKS describe.tokenizer=tiny out=out
describe-examples: corpus TALKS describe.unit=examples task=binary out=out
describe-alpaca: corpus data=alpaca data.path=../inputs/alpaca.json out=out
describe-annomi: corpus data=annomi data.path=../inputs/annomi.csv task=annomi_talk out=out
describe-authors: corpus data=client_resistance data.path=../inputs/client_resistance.json out=out
describe-doccano: corpus data=doccano data.path=../inputs/doccano.jsonl out=out
describe-psyguard: corpus data=psyguard data.path=../inputs/psyguard.json labels=raw out=out
describe-table: corpus data=table data.path=../inputs/table.csv out=out
describe-transcript: corpus data=transcript data.path=../inputs/talk.txt out=out
describe-sweep: corpus -m action=describe,codebook data.options.size=60 out=out
validate: corpus action=validate TALKS out=out
validate-faulty [2]: corpus action=validate data=dialogues data.path=../inputs/faulty.jsonl out=out
validate-skip: corpus action=validate data=dialogues data.path=../inputs/faulty.jsonl out=out
    data.on_error=skip
codebook: corpus action=codebook out=out
codebook-zh: corpus action=codebook codebook.language=zh out=out
lexicon: corpus action=lexicon TALKS lexicon.minimum_count=2 out=out
lexicon-zh: corpus action=lexicon data.language=zh data.options.size=200 task=binary
    lexicon.contrast=Collaboration lexicon.prior=uniform out=out
agreement: corpus action=agreement data.path=../inputs/judgements.csv agreement.replicates=200
    out=out
agreement-wide: corpus action=agreement data.path=../inputs/wide.csv task=binary
    annotations.annotators=[ann,bo,cy] agreement.replicates=0 out=out
assign: corpus action=assign TALKS assign.annotators=[ann,bo,cy] assign.size=40
    assign.batch_size=10 out=out
assign-predicted: corpus action=assign TALKS assign.annotators=[ann,bo]
    assign.predictions=../evaluate-predicted/out/predictions.jsonl out=out
adjudicate: corpus action=adjudicate TALKS annotations.path=../inputs/judgements.csv
    adjudicate.annotators=[ann,bo,cy,di] out=out
adjudicate-decided: corpus action=adjudicate TALKS annotations.path=../inputs/judgements.csv
    adjudicate.decisions=todo.csv adjudicate.rule=majority adjudicate.extra=0 out=out
exam: corpus action=exam TALKS annotations.path=../inputs/exams.csv exam.key=../inputs/key.csv
    exam.top=2 out=out
exam-scores: corpus action=exam exam.scores=../inputs/exam_scores.csv exam.ddof=0 out=out
ratings-blank: corpus action=ratings TALKS ratings.size=12 ratings.raters=[ann,bo] out=out
ratings: corpus action=ratings ratings.path=[ratings_ann.csv,ratings_bo.csv] out=out

sessions: insights TALKS sessions.by=topic FAST
sessions-corrected: insights data.path=../predict-cascade/a.jsonl sessions.timeline=S1
    sessions.confusion=BINARY FAST
alliance: insights action=alliance TALKS outcomes.path=../inputs/outcomes.csv
    outcomes=[bond,task] FAST
alliance-tables: insights action=alliance data.path=../inputs/outcomes.csv predictors=[bond]
    outcomes=[task] alliance.method=bh FAST
study: insights action=study data.path=../inputs/study.csv study.welch=true FAST
study-size: insights action=study study.f=0.3 out=out
materials-draw: insights MATERIALS study_materials.step=draw
materials-rate: insights MATERIALS study_materials.step=rate
materials-score: insights MATERIALS study_materials.step=score
card: insights action=card ANSWERED card.id=t3-1 out=out
card-zh: insights action=card ANSWERED card.id=t3-2 card.language=zh card.context=2
supervision: insights action=supervision ANSWERED supervision.excel=true out=out

report-binary: report resamples=200 prior=0.17 by=session verify=true out=out
    runs=BINARY,../train-seed/runs/seed,../train-free/runs/free,UNTUNED
report-fine: report resamples=200 compare_to=fine reference=paper out=out
    runs=FINE,../train-label-only/runs/label-only,../train-lora/runs/lora,OTHERS
report-both: report runs=BINARY,FINE resamples=50 privacy.include_text=true out=out
report-own-data: report runs=../train-own-data/runs resamples=50 by=[topic,client] out=out
report-partial: report runs=../train-packed/runs/packed resamples=0 verify=true

plan-tiny: plan experiment=smoke out=out plan.device_memory_gib=16
plan-lora: plan backbone=qwen7b trainer=gpu finetune=lora out=out
plan-qlora: plan backbone=llama8b trainer=gpu finetune=qlora task=binary out=out
plan-sharded: plan backbone=qwen7b trainer=gpu trainer.strategy=fsdp trainer.devices=8
    finetune=full plan.tflops=989 out=out
audit-plant: audit step=plant plant.n=4 plant.copies=2 task=binary out=out
audit-measure: audit model=BINARY most=12 prefix_tokens=[4] out=out
audit-canaries: audit model=BINARY canaries=../audit-plant/out/canaries.jsonl candidates=15 most=4
    out=out

wrong-label [2]: train SMOKE data=dialogues data.path=../inputs/unknown_label.jsonl
wrong-rows [2]: train SMOKE data=dialogues data.path=../inputs/faulty.jsonl
wrong-file [2]: train SMOKE data=dialogues data.path=nowhere.jsonl
wrong-option [2]: train SMOKE trainer.max_epoch=1
wrong-choice [2]: train SMOKE task=fine_graned
wrong-value [2]: train SMOKE cv.folds=one
wrong-reasons [2]: train SMOKE data=table data.path=../inputs/table.csv
wrong-tuning [2]: train SMOKE finetune=qlora
wrong-weights [2]: train SMOKE backbone=qwen7b
wrong-fold [2]: train SMOKE cv.fold=7
wrong-reuse [2]: train SMOKE run=fine seed=5
wrong-sending [2]: prompt SMOKE client=openai client.model=m
wrong-missing [2]: evaluate predictions=../inputs/answers.csv TALKS task=flat
wrong-both [2]: evaluate method=tfidf predictions=../inputs/answers.csv
wrong-model [2]: predict model=nowhere NEW output=a.jsonl
wrong-output [2]: predict model=BINARY NEW output=a.txt
wrong-threshold [2]: predict model=BINARY NEW output=a.jsonl threshold=0.1 decoding=free
wrong-action [2]: corpus action=descrbe
wrong-path [2]: corpus data=dialogues
wrong-exam [2]: corpus action=exam
wrong-insight [2]: insights action=sesions
wrong-column [2]: insights action=alliance data.path=../inputs/outcomes.csv predictors=[bond]
    outcomes=[tsk]
wrong-folder [2]: insights action=study_materials
wrong-runs [2]: report runs=nowhere
wrong-two-data [2]: report runs=BINARY,../train-own-data/runs/own-data
wrong-plan [2]: plan plan.utilisation=0.3
wrong-audit [2]: audit step=mesure
"""
"""A line a command: its name, its exit code where that is not 0, verb and options."""

VERBS = ("train", "prompt", "evaluate", "predict", "report", "corpus", "insights", "plan", "audit")


@dataclass(frozen=True, kw_only=True)
class Command:
    """``python -m recap.<verb> …``, run in a folder of its own, beside those of the others."""

    name: str
    words: tuple[str, ...]
    code: int = 0
    """The exit code that it should have."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The commands that have to be run before."""
        found = re.findall(r"\.\./([\w-]+)/", " ".join(self.words))
        before = [PREPARED[self.name][0]] if self.name in PREPARED else []
        return tuple(name for name in dict.fromkeys([*before, *found]) if name != INPUTS)


def _commands() -> dict[str, Command]:
    shown = [f"help-{verb}: {verb} --help\nconfig-{verb}: {verb} --cfg job" for verb in VERBS]
    text = re.sub(r"\n +", " ", "\n".join([LIST, *shown]))
    for short, words in SHORT.items():
        text = re.sub(rf"\b{short}\b", words, text)
    found = re.findall(r"^([\w-]+)(?: \[(\d)\])?: (.+)$", text, re.MULTILINE)
    return {
        name: Command(name=name, words=tuple(words.split()), code=int(code or 0))
        for name, code, words in found
    }


COMMANDS = _commands()


# ---------------------------------------------------------------- running them


def environment(out: Path, tree: Path) -> dict[str, str]:
    """Return the variables of every command: the same home, width and threads wherever it runs."""
    home = out / HOME
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "COLUMNS": "160",
        "NO_COLOR": "1",
    }


def prepare_tree(out: Path, tree: Path) -> str:
    """Check that a tree is what Python imports from it, and return its commit."""
    said = "import recap, matplotlib.font_manager; print(recap.__file__)"  # builds the font cache
    found = subprocess.run(
        [sys.executable, "-c", said],
        env=environment(out, tree),
        cwd=out,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(found).is_relative_to(tree):
        sys.exit(f"recap is imported from {found}, not from {tree}")
    git = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def run(each: Command, out: Path, tree: Path) -> int:
    """Run a command in a folder of its own, and return its exit code."""
    folder = out / each.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if each.name in PREPARED:
        PREPARED[each.name][1](folder)
    verb, *words = each.words
    with (folder / "stdout.txt").open("wb") as printed, (folder / "stderr.txt").open("wb") as said:
        return subprocess.run(
            [sys.executable, "-m", f"recap.{verb}", *words],
            cwd=folder,
            env=environment(out, tree),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=said,
            check=False,
        ).returncode


def run_all(out: Path, tree: Path, only: Sequence[str]) -> int:
    """Run the commands and write their digests; return 1 where an exit code was not right."""
    record_file = out / RECORD
    if out.exists() and any(out.iterdir()) and not record_file.exists():
        sys.exit(f"{out} holds other files; name an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"commands": {}}
    if only and record_file.exists():
        record = json.loads(record_file.read_text("utf-8"))
    record |= {"tree": str(tree), "out": str(out), "python": sys.prefix}
    record_file.write_text(json.dumps(record), encoding="utf-8")
    record["commit"] = prepare_tree(out, tree)
    write_inputs(out / INPUTS)
    began, wrong = time.monotonic(), []
    for each in _chosen(only, record["commands"]):
        start = time.monotonic()
        code = run(each, out, tree)
        kept = Kept(out, record)
        files = {path: kept.digest(out / each.name / path) for path in kept.paths(each.name)}
        record["commands"][each.name] = {"words": each.words, "exit": code, "files": files}
        record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{each.name}: exit {code}  ({time.monotonic() - start:.1f} s)", flush=True)
        for path, digest in files.items():
            print(f"  {digest}  {path}")
        if code != each.code:
            wrong.append(f"{each.name} ended with {code}, not {each.code}: {' '.join(each.words)}")
    print(f"{len(record['commands'])} commands, {(time.monotonic() - began) / 60:.1f} min")
    for said in wrong:
        print(said)
    return int(bool(wrong))


def _chosen(only: Sequence[str], done: Mapping[str, Any]) -> list[Command]:
    """Return the commands to run: those asked for, and what they need and is not there."""
    wanted = set(only or COMMANDS)
    for each in reversed(COMMANDS.values()):
        if each.name in wanted:
            wanted |= {name for name in each.needs if name not in done}
    return [each for each in COMMANDS.values() if each.name in wanted]


# ---------------------------------------------------------------- what a file says


class Kept:
    """A folder of digests, and what its files say without times and places."""

    def __init__(self, out: Path, record: Mapping[str, Any]) -> None:
        self.out = out
        self.record = record
        places = [(record[key], f"<{key}>") for key in ("out", "tree", "python", "commit")]
        self._places = sorted(filter(all, places), key=lambda place: -len(place[0]))

    @classmethod
    def read(cls, out: Path) -> Kept:
        """Return the folder that commands were run in."""
        return cls(out, json.loads((out / RECORD).read_text("utf-8")))

    def paths(self, name: str) -> list[str]:
        """Return what a command has left in its folder, less what is not looked at."""
        folder = self.out / name
        found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return sorted(
            path
            for path in found
            if not any(fnmatch(f"/{name}/{path}", pattern) for pattern in NOT_LOOKED_AT)
        )

    def text(self, text: str) -> str:
        """Return a text without places and times."""
        for place, name in self._places:
            text = text.replace(place, name)
        for pattern, name, _ in REPLACED:
            text = re.sub(pattern, name, text, flags=re.MULTILINE)
        return text

    def content(self, path: Path) -> Any:
        """Return what a file holds: lists and mappings where it has rows and keys, else a text."""
        read = READERS.get(path.suffix)
        if read is not None:
            return read(path)
        try:
            text = path.read_text("utf-8")
            found = _parsed(path.suffix, text)
        except (ValueError, csv.Error, yaml.YAMLError):
            return _sha(path.read_bytes())
        return self._plain(found)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self._plain(_ordered(str(key), inner))
                for key, inner in value.items()
                if not _is_left_out(str(key))
            }
        if isinstance(value, list):
            return [self._plain(inner) for inner in value]
        return value

    def digest(self, path: Path) -> str:
        """Return twelve hexadecimal digits for what a file says."""
        return _sha(json.dumps(self.content(path), sort_keys=True, ensure_ascii=False).encode())


def _is_left_out(key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in LEFT_OUT_KEYS)


def _ordered(key: str, value: Any) -> Any:
    return sorted(value) if key in SORTED_KEYS and isinstance(value, list) else value


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _parsed(suffix: str, text: str) -> Any:
    """Return the text of a file as rows and keys, where it has them."""
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    if suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        return [list(rows.fieldnames or []), *rows]
    if suffix in (".yaml", ".yml"):
        return yaml.safe_load(text)
    return text


def read_tensors(path: Path) -> dict[str, str]:
    """Return name, type and shape of every tensor of a safetensors file, and a digest of each."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, tensor in sorted(header.items()):
        first, end = tensor["data_offsets"]
        digest = _sha(content[start + first : start + end])
        found[name] = f"{tensor['dtype']} {tensor['shape']} {digest}"
    return found


def read_picture(path: Path) -> str:
    """Return a digest of a PNG file's picture, less what it says of the program that drew it."""
    content, place, picture = path.read_bytes(), 8, b""
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] in (b"IHDR", b"PLTE", b"IDAT"):
            picture += content[place:end]
        place = end
    return _sha(picture)


def read_archive(path: Path) -> dict[str, str]:
    """Return a digest of every member of a workbook or .npz, less when it was written."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name != "docProps/core.xml")
        return {name: _sha(archive.read(name)) for name in names}


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".safetensors": read_tensors,
    ".png": read_picture,
    **dict.fromkeys((".npz", ".xlsx", ".zip"), read_archive),
}


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A file, or an exit code, that is not what it was."""

    command: str
    path: str
    kind: str
    """The file's ending, or ``exit`` or ``mode``."""
    lines: list[str]


def differences(old: Kept, new: Kept, only: Sequence[str] = ()) -> Iterator[Difference]:
    """Yield what differs between two folders, of the commands that are named, or of all."""
    first, second = old.record["commands"], new.record["commands"]
    for name in only or {**first, **second}:
        if name not in first or name not in second:
            where = "new" if name in second else "old"
            yield Difference(command=name, path="", kind="exit", lines=[f"run in {where} alone"])
            continue
        if first[name]["words"] != second[name]["words"]:
            yield Difference(command=name, path="", kind="exit", lines=["has other options now"])
        codes = [record[name]["exit"] for record in (first, second)]
        if codes[0] != codes[1]:
            said = [f"exit code {codes[0]}, now {codes[1]}"]
            yield Difference(command=name, path="", kind="exit", lines=said)
        yield from _differing_files(name, old, new)


def _differing_files(name: str, old: Kept, new: Kept) -> Iterator[Difference]:
    before, after = set(old.paths(name)), set(new.paths(name))
    for path in sorted(before | after):
        kind = Path(path).suffix
        if path not in before or path not in after:
            said = ["is no more"] if path in before else ["was not there"]
            yield Difference(command=name, path=path, kind=kind, lines=said)
            continue
        files = [kept.out / name / path for kept in (old, new)]
        modes = [f"{stat.S_IMODE(file.stat().st_mode):o}" for file in files]
        if modes[0] != modes[1]:
            said = [f"mode {modes[0]}, now {modes[1]}"]
            yield Difference(command=name, path=path, kind="mode", lines=said)
        found = list(_differing(old.content(files[0]), new.content(files[1])))
        if found:
            more = len(found) - LISTED
            said = found[:LISTED] + ([f"and {more} more"] if more > 0 else [])
            yield Difference(command=name, path=path, kind=kind, lines=said)


def _differing(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield the keys, or the lines of a text, whose values differ."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        old, new = old.splitlines(), new.splitlines()
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{key or 'file'}: {len(old)} rows or lines, now {len(new)}"
        for number, (first, second) in enumerate(zip(old, new, strict=False), start=1):
            yield from _differing(first, second, f"{key}[{number}]")
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            inner = f"{key}.{name}" if key else str(name)
            if name not in old or name not in new:
                yield f"{inner}: {'was not there' if name in new else 'is no more'}"
            else:
                yield from _differing(old[name], new[name], inner)
    elif old != new or type(old) is not type(new):
        first, second = (json.dumps(value, ensure_ascii=False) for value in (old, new))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
        start = max(0, len(list(alike)) - 30)
        yield f"{key or 'file'}: {_part(first, start)}, now {_part(second, start)}"


def _part(text: str, start: int, longest: int = 100) -> str:
    """Return a text, or of a longer one what stands around the first difference."""
    if len(text) <= longest:
        return text
    return f"{'…' if start else ''}{text[start : start + longest]}…"


def compare(old: Path, new: Path, only: Sequence[str]) -> int:
    """Print what differs, figures first; return 1 where figures do."""
    found = list(differences(Kept.read(old), Kept.read(new), only))
    figures = [each for each in found if each.kind in FIGURES]
    for title, part in (("Figures", figures), ("Prose", [e for e in found if e not in figures])):
        if part:
            print(f"{title} that differ: {len(part)}")
        for each in part:
            print(f"  {each.command} {each.path}", *each.lines, sep="\n      ")
    if not found:
        print("nothing differs")
    return int(bool(figures))


def main() -> int:
    """Run or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, help="folder for what the commands write")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose recap is run")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these commands")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    given = parser.parse_args()
    if given.list:
        for each in COMMANDS.values():
            print(f"{each.name}: python -m recap.{' '.join(each.words)}")
        return 0
    if unknown := [name for name in given.only if name not in COMMANDS]:
        parser.error(f"no such command: {', '.join(unknown)}; --list prints them all")
    if given.compare:
        return compare(*given.compare, given.only)
    if given.out is None:
        parser.error("name a folder for what the commands write, or --compare OLD NEW")
    return run_all(given.out.resolve(), given.tree.resolve(), given.only)


if __name__ == "__main__":
    sys.exit(main())
