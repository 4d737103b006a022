"""Coverage-guided fuzzing of readers and parser; run as a program, with libFuzzer's arguments.

``python tests/fuzzing.py readers SEEDS -max_total_time=60`` changes the files in the folder SEEDS,
keeps in it what reaches new code, and ends with a file ``crash-…`` when something is wrong. The
first byte of an input says what is fuzzed with the rest of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sample_files import Sample, with_sheet
from sound_files import OTHERS, REGISTERED

SAMPLES: tuple[tuple[str, Sample], ...] = tuple(
    (name, sample) for name, samples in (*REGISTERED.items(), *OTHERS.items()) for sample in samples
)
ANSWERS = (
    "Behavior: Arguing - Challenging\nReason: doubts the advice",
    "行为：否认-责怪\n理由：他们的错",
    "```\n**Label**: Blaming, not Excusing\n```\nExplanation - Behavior: minimal talk",
)


def write_seeds(target: str, folder: Path) -> None:
    """Write what the fuzzer begins with."""
    inputs = (
        [bytes([number]) + answer.encode() for number in range(16) for answer in ANSWERS]
        if target == "parser"
        else [bytes([number]) + inner_of(sample) for number, (_, sample) in enumerate(SAMPLES)]
    )
    for number, content in enumerate(inputs):
        (folder / f"seed{number}").write_bytes(content)


def write_words(path: Path) -> None:
    """Write the words that the fuzzer puts together: keys, labels, and marks of formats."""
    keys = {key for _, sample in SAMPLES for row in sample.rows for key in row}
    words = {
        *(*keys, "speaker", "client", "counselor", "turns", "Blaming", "Arguing - Challenging"),
        *("Behavior: ", "Reason: ", "行为：", "理由：", "责怪", "not ", " or ", "```", "**"),
        *('{"', '": ', '", "', "[{", "}]", "\\u0000", "\\ud83d", "null", "NaN", "1e999", '""'),
        *('<row r="9">', '<c t="s"><v>', "</v></c>", "<f>", "</row>", "#NAME?", "=1+1"),
    }
    quoted = (
        "".join(
            chr(byte) if 32 < byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}"
            for byte in word.encode()
        )
        for word in sorted(words)
    )
    path.write_text("".join(f'"{word}"\n' for word in quoted), encoding="ascii")


def inner_of(sample: Sample) -> bytes:
    """Return what is changed of a sound file: of a packed one, the part that is read."""
    if sample.ending != ".xlsx":
        return sample.inner()
    found: list[str] = []
    with_sheet(sample.content(), lambda xml: found.append(xml) or xml)
    return found[0].encode()


def reader_target() -> Callable[[bytes], None]:
    """Return the function that gives an input to a reader, which must account for it."""
    from input_readers import INPUT_READERS, receive

    readers = {reader.name: reader for reader in INPUT_READERS}
    books = {
        number: sample.content()
        for number, (_, sample) in enumerate(SAMPLES)
        if sample.ending == ".xlsx"
    }
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))

    def read(data: bytes) -> None:
        number = data[0] % len(SAMPLES) if data else 0
        name, sample = SAMPLES[number]
        path = folder / f"input{sample.ending}"
        if number in books:
            sheet = data[1:].decode("utf-8", "replace")
            path.write_bytes(with_sheet(books[number], lambda xml: sheet))
        else:
            path.write_bytes(sample.holding(data[1:]))
        complaint = receive(readers[name], path).complaint
        if complaint and "zanzibar" not in complaint and "quicksilver" not in complaint:
            raise AssertionError(f"{name}{sample.ending}: {complaint}")

    return read


def parser_target() -> Callable[[bytes], None]:
    """Return the function that parses an input, whose answer must survive being written."""
    from recap.records import Answer
    from recap.tasks.library import builtin_task

    tasks = [
        builtin_task(name, language=language, label_form=form)
        for name in ("binary", "fine_grained", "flat", "annomi_talk")
        for language in ("en", "zh")
        for form in ("qualified", "bare")
    ]

    def parse(data: bytes) -> None:
        task = tasks[data[0] % len(tasks) if data else 0]
        answer = task.parse(data[1:].decode("utf-8", "replace"))
        if answer.label is None:
            assert answer == Answer(label=None)
            return
        assert answer.label in task.labels
        plain = Answer(label=answer.label, rationale=(answer.rationale or "").strip() or None)
        assert task.parse(task.render(plain)) == plain, (plain, task.render(plain))

    return parse


TARGETS = {"readers": reader_target, "parser": parser_target}


def main() -> None:
    """Fuzz the target that the first argument names."""
    import atheris

    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["recap"]):
        function = TARGETS[target]()
    atheris.Setup(sys.argv, function)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
