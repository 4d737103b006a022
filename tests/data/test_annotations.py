from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.data.annotation_files import AnnotationLayout, AnnotatorLabels, read_annotations
from recap.data.annotations import AnnotatorLabel
from recap.data.readers import archives
from recap.errors import ConfigError, DataError
from recap.taxonomy import Category, Taxonomy

TAXONOMY = Taxonomy(
    name="small",
    categories=(
        Category(name="Blaming", aliases=("责怪", "否认/Denying-责怪/Blaming")),
        Category(name="Excusing"),
    ),
)


def read(*paths: Path, **layout: Any) -> AnnotatorLabels:
    return read_annotations(paths, layout=AnnotationLayout(**layout), taxonomy=TAXONOMY)


def said(found: AnnotatorLabels) -> list[tuple[str, str, str]]:
    return [(j.id, j.annotator, j.label) for j in found.annotations]


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def export(path: Path, *rows: dict[str, Any]) -> Path:
    return write(path, *(json.dumps(row, ensure_ascii=False) for row in rows))


def test_a_row_an_annotation(tmp_path: Path) -> None:
    file = write(
        tmp_path / "labels.csv",
        "id,annotator,label,session,round,reason",
        "1,ann,责怪,s1,1,because",
        "1,bo,excusing,s1,1,",
        "2,ann,,s1,1,",
        "1,ann,Excusing,s1,2,",
    )
    found = read(file)
    assert found.annotations == (
        AnnotatorLabel(id="1", annotator="ann", label="Blaming", session="s1", rationale="because"),
        AnnotatorLabel(id="1", annotator="bo", label="Excusing", session="s1"),
        AnnotatorLabel(id="1", annotator="ann", label="Excusing", session="s1", round="2"),
    )
    assert (found.rows_read, found.rows_rejected, found.unlabelled) == (4, 0, 1)


def test_a_column_an_annotator(tmp_path: Path) -> None:
    file = write(tmp_path / "wide.csv", "id,ann,bo", "1,Blaming,n/a", "2,Excusing,Blaming")
    found = read(file, annotators=["ann", "bo"])
    assert said(found) == [
        ("1", "ann", "Blaming"),
        ("2", "ann", "Excusing"),
        ("2", "bo", "Blaming"),
    ]
    assert found.unlabelled == 1


def test_ids_of_several_columns_and_of_session_and_turn(tmp_path: Path) -> None:
    rows = ("session,turn,rater,code", "s1,3,ann,Blaming")
    assert said(read(write(tmp_path / "a.csv", *rows))) == [("s1:3", "ann", "Blaming")]
    chosen = {"id": ["turn", "session"]}
    found = read(write(tmp_path / "b.csv", *rows), columns=chosen)
    assert said(found) == [("3:s1", "ann", "Blaming")]


DOCCANO = {
    "ann.jsonl": [
        {"id": 7, "data": "text", "example_id": "e1", "session": "s", "label": ["Blaming"]},
        {"id": 8, "data": "text", "example_id": "e2", "label": []},
    ],
    "bo.1.jsonl": [{"id": 9, "text": "text", "example_id": "e1", "cats": ["Excusing"]}],
    "bo.2.jsonl": [
        {
            "id": 10,
            "text": "text",
            "example_id": "e2",
            "label": "否认/Denying-责怪/Blaming",
            "Comments": [{"text": "since"}],
        }
    ],
}
DOCCANO_SAID = [
    ("e1", "ann", "Blaming"),
    ("e1", "bo", "Excusing"),
    ("e2", "bo", "Blaming"),
]


def test_a_folder_of_doccano_exports_has_one_file_an_annotator(tmp_path: Path) -> None:
    for name, rows in DOCCANO.items():
        export(tmp_path / "round1" / name, *rows)
    found = read(tmp_path / "round1")
    assert said(found) == DOCCANO_SAID
    assert found.unlabelled == 1
    assert found.annotations[0].session == "s"
    assert found.annotations[2].rationale == "since"


def test_a_zip_holds_the_same_whatever_its_names_lead_to(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in DOCCANO.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            archive.writestr(f"../../{name}", text)
        archive.writestr("__MACOSX/ann.jsonl", "nothing of ours")
        archive.writestr("readme.md", "nothing of ours")
    assert said(read(path)) == DOCCANO_SAID
    assert [p.name for p in tmp_path.iterdir()] == ["export.zip"]


def test_doccanos_csv_joins_several_labels(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    write(folder / "ann.csv", "id,data,label", "1,text,Blaming#Excusing")
    with pytest.raises(DataError, match=r"ann\.csv:2: label: holds 2 labels"):
        read(folder)
    assert said(read(folder, multi_label="first")) == [("1", "ann", "Blaming")]


def test_numbers_stand_for_labels(tmp_path: Path) -> None:
    row = {"id": 1, "text": "text", "annotations": [{"label": 4, "user": 1}]}
    found = read(export(tmp_path / "ann.json", row), label_names={"4": "Excusing"})
    assert said(found) == [("1", "ann", "Excusing")]


def test_of_several_paths_each_is_a_round(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / f"{name}.csv", "id,annotator,label", f"1,ann,{label}")
        for name, label in (("x", "Blaming"), ("y", "Excusing"))
    )
    assert [j.round for j in read(first, second).annotations] == ["1", "2"]


def test_every_fault_is_listed_and_no_text_is_shown(tmp_path: Path) -> None:
    secret = "I told nobody of this before"
    file = write(
        tmp_path / "labels.csv",
        "id,annotator,label",
        f"1,ann,{secret}",
        ",ann,Blaming",
        "2,,Blaming",
        "3,ann,Blaming",
        "3,ann,Blaming",
        "4,ann,Blamin",
    )
    with pytest.raises(DataError) as caught:
        read(file)
    message = str(caught.value)
    assert "5 of 6 rows" in message
    for line, field in ((3, "id"), (4, "annotator"), (6, "id"), (2, "label")):
        assert f"labels.csv:{line}: {field}: " in message
    assert "did you mean 'Blaming'" in message
    assert secret not in message
    layout = AnnotationLayout()
    kept = read_annotations([file], layout=layout, taxonomy=TAXONOMY, skip_faults=True)
    assert said(kept) == [("3", "ann", "Blaming")]
    assert kept.rows_rejected == 5


@pytest.mark.parametrize(
    ("header", "layout", "message"),
    [
        ("id,who,label", {}, "annotations.columns.annotator"),
        ("id,annotator,what", {}, "annotations.columns.label"),
        ("id,ann", {"annotators": ["ann", "bo"]}, "has no column 'bo'"),
        ("id,annotator,label", {"columns": {"label": "lable"}}, "did you mean 'label'"),
    ],
)
def test_a_missing_column_is_named(
    tmp_path: Path, header: str, layout: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(
            write(tmp_path / "labels.csv", header, ",".join("1" for _ in header.split(","))),
            **layout,
        )


def test_a_role_that_no_column_has_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "labels.csv", "id,annotator,label")
    with pytest.raises(ConfigError, match=r"annotations\.columns\.labels.*did you mean 'label'"):
        read(file, columns={"labels": "label"})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.floats(allow_nan=False),
    st.sampled_from(["", "Blaming", "Excusing", "#", "=1", "x" * 40]),
    st.lists(
        st.sampled_from(["Blaming", "Excusing", 4, None, {"label": 4}, [0, 3, "x"]]), max_size=3
    ),
    st.dictionaries(st.sampled_from(["label", "Blaming"]), st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    [
        *("id", "example_id", "turn", "session", "round", "annotator"),
        *("label", "labels", "cats", "annotations", "Comments"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=8), max_size=5))
def test_whatever_an_export_holds_is_an_annotation_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    file = export(tmp_path_factory.mktemp("fuzz") / "ann.jsonl", *rows)
    layout = AnnotationLayout()
    try:
        found = read_annotations([file], layout=layout, taxonomy=TAXONOMY, skip_faults=True)
    except DataError:
        return
    told = found.rows_rejected + found.unlabelled + len(found.annotations)
    assert told == found.rows_read == len(rows)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no label"):
        read(write(tmp_path / "labels.csv", "id,annotator,label", "1,ann,"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one export an annotator"):
        read(tmp_path / "empty")
    write(tmp_path / "broken.zip", "no zip")
    with pytest.raises(DataError, match="no readable zip"):
        read(tmp_path / "broken.zip")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "missing.zip")


def test_a_row_with_a_fault_in_one_column_is_left_out_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "wide.csv", "id,ann,bo", "1,Blaming,Blamin", "2,,Excusing")
    layout = AnnotationLayout(annotators=["ann", "bo"])
    found = read_annotations([file], layout=layout, taxonomy=TAXONOMY, skip_faults=True)
    assert said(found) == [("2", "bo", "Excusing")]
    assert (found.rows_read, found.rows_rejected, found.unlabelled) == (2, 1, 1)
    assert [(fault.line, fault.field) for fault in found.issues] == [(2, "label")]


def test_rows_of_a_list_on_one_line_are_each_rejected(tmp_path: Path) -> None:
    rows = [{"id": n, "text": "a", "label": label} for n, label in enumerate(["x", "Blaming", "y"])]
    file = write(tmp_path / "ann.json", json.dumps(rows))
    layout = AnnotationLayout()
    found = read_annotations([file], layout=layout, taxonomy=TAXONOMY, skip_faults=True)
    assert said(found) == [("1", "ann", "Blaming")]
    assert (found.rows_read, found.rows_rejected) == (3, 2)


def test_half_of_a_character_in_an_id_is_a_fault(tmp_path: Path) -> None:
    file = write(tmp_path / "ann.jsonl", r'{"id": "a\ud83d", "label": "Blaming"}')
    with pytest.raises(DataError, match=r"ann\.jsonl:1: id: holds half of a character"):
        read(file)


def test_a_file_in_a_zip_is_named_as_it_is_called_there(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ann.jsonl", '{"id": 1, "label": "心"}\n'.encode("gbk"))
    with pytest.raises(DataError, match=r"export\.zip/ann\.jsonl:1: the file is not in UTF-8"):
        read(path)


def test_a_zip_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ann.jsonl", b" " * 2_000_000)
    monkeypatch.setattr(archives, "MOST_UNPACKED", 1_000_000)
    with pytest.raises(DataError, match=r"unpacks to 2 MiB.*zip bomb"):
        read(path)
