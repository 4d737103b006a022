"""PsyFIRE as data: the paper's tree and order, every spelling, texts in two languages."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from recap.errors import ConfigError, DataError
from recap.system.files import conf_dir
from recap.tasks.library import load_taxonomy
from recap.taxonomy import taxonomy_from_dict

# The list of answers at the end of the paper's Table 9, with the pattern of Section 3.2.
TABLE_9 = [
    ("Challenging", "Arguing"),
    ("Discounting", "Arguing"),
    ("Blaming", "Denying"),
    ("Disagreeing", "Denying"),
    ("Excusing", "Denying"),
    ("Minimizing", "Denying"),
    ("Pessimism", "Denying"),
    ("Reluctance", "Denying"),
    ("Unwillingness", "Denying"),
    ("Minimum Talk", "Avoiding"),
    ("Limit Setting", "Avoiding"),
    ("Inattention", "Ignoring"),
    ("Sidetracking", "Ignoring"),
]

AUTHORS_CHINESE = {
    "争辩-挑战": "Challenging",
    "争辩-贬低": "Discounting",
    "否认-责怪": "Blaming",
    "否认-不认同": "Disagreeing",
    "否认-找借口": "Excusing",
    "否认-最小化": "Minimizing",
    "否认-悲观": "Pessimism",
    "否认-犹豫": "Reluctance",
    "否认-不愿改变": "Unwillingness",
    "回避-最小的回应": "Minimum Talk",
    "回避-界限设定": "Limit Setting",
    "忽视-不关注": "Inattention",
    "忽视-岔开话题": "Sidetracking",
    "合作-无阻抗": "Collaboration",
    "阻抗": "Resistance",
    "合作": "Collaboration",
}

OTHER_SPELLINGS = {
    "争辩/Arguing-挑战/Challenging": "Challenging",
    "回避/Avoidance-最小的回应/Minimal Talk": "Minimum Talk",
    "否认/Denying-悲观/Pessimistic": "Pessimism",
    "合作/Collaboration-未阻抗/NA": "Collaboration",
    "Avoidance": "Avoiding",
    "Avoidance - Minimum Talk": "Minimum Talk",
    "Avoiding - Minimal Talk": "Minimum Talk",
    "Avoidance-Limit Setting": "Limit Setting",
    "Cooperation": "Collaboration",
    "Pessimistic": "Pessimism",
    "Denying - Pessimistic": "Pessimism",
    "minimal talk": "Minimum Talk",
    "LIMIT SETTING": "Limit Setting",
    "Ｂｌａｍｉｎｇ": "Blaming",
}


@pytest.fixture(scope="module")
def psyfire():
    return load_taxonomy("psyfire")


def test_leaves_stand_in_the_order_of_table_9_with_collaboration_last(psyfire):
    assert list(psyfire.leaves) == [name for name, _ in TABLE_9] + ["Collaboration"]


def test_every_behavior_lies_below_its_pattern_and_every_pattern_below_resistance(psyfire):
    for name, pattern in TABLE_9:
        assert psyfire.lineage(name) == (name, pattern, "Resistance")
        assert psyfire.written(name) == f"{pattern} - {name}"
    assert psyfire.lineage("Collaboration") == ("Collaboration",)
    assert psyfire.written("Arguing") == "Arguing"


def test_the_authors_chinese_names_are_read_and_written(psyfire):
    for spelling, name in AUTHORS_CHINESE.items():
        assert psyfire.find(spelling) == name
        if name not in ("Collaboration", "Resistance"):
            assert psyfire.written(name, language="zh") == spelling


@pytest.mark.parametrize(("spelling", "name"), OTHER_SPELLINGS.items())
def test_other_spellings_are_read(psyfire, spelling, name):
    assert psyfire.find(spelling) == name


@pytest.mark.parametrize(
    "spelling", ["回避-理智化", "理智化", "回避/Avoidance-理智化/Intellectualization"]
)
def test_the_fifteenth_name_of_the_authors_lists_is_refused_with_the_reason(psyfire, spelling):
    assert psyfire.find(spelling) is None
    with pytest.raises(DataError, match="without a definition"):
        psyfire.resolve(spelling)


def test_a_refused_name_is_accepted_once_a_taxonomy_has_it_as_an_alias(psyfire):
    own = taxonomy_from_dict(
        {
            "name": "own",
            "categories": [{"name": "Limit Setting", "aliases": ["回避-理智化"]}],
            "rejected": dict(psyfire.rejected),
        }
    )
    assert own.resolve("回避-理智化") == "Limit Setting"


def test_an_unknown_label_is_not_quoted_when_it_may_be_client_text(psyfire):
    secret = "My sister said that I should never have told anyone about it"
    with pytest.raises(DataError, match=f"a text of {len(secret)} characters") as raised:
        psyfire.resolve(secret)
    assert "sister" not in str(raised.value)


def test_every_category_is_defined_in_both_languages(psyfire):
    for category in psyfire.categories:
        for language in ("en", "zh"):
            assert category.definition[language]
            assert category.name_in(language)
        if category.name in psyfire.leaves:
            assert set(category.example) == {"en", "zh"}


def test_texts_are_in_the_script_of_their_language(psyfire):
    han = re.compile(r"[\u4e00-\u9fff]")
    for category in psyfire.categories:
        for texts in (category.definition, category.example, category.contrast):
            if texts:
                assert not han.search(texts["en"])
                assert han.search(texts["zh"])
                assert not re.search("[a-zA-Z]", texts["zh"])


def test_inattention_and_sidetracking_point_at_each_other(psyfire):
    assert "Sidetracking" in psyfire["Inattention"].contrast["en"]
    assert "Inattention" in psyfire["Sidetracking"].contrast["en"]
    assert "岔开话题" in psyfire["Inattention"].contrast["zh"]
    assert "不关注" in psyfire["Sidetracking"].contrast["zh"]


def test_colors_are_distinct_hex_and_one_hue_per_pattern(psyfire):
    colors = [category.color for category in psyfire.categories]
    assert len(set(colors)) == len(colors)
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)
    channel = {"Arguing": 0, "Denying": 2, "Avoiding": 1}
    for name, pattern in TABLE_9:
        if pattern in channel:
            rgb = _rgb(psyfire[name].color)
            assert rgb[channel[pattern]] == max(rgb)


def test_behaviors_of_a_pattern_differ_in_lightness(psyfire):
    for (a, pattern_a), (b, pattern_b) in combinations(TABLE_9, 2):
        if pattern_a == pattern_b:
            assert abs(_lightness(psyfire[a].color) - _lightness(psyfire[b].color)) > 4


def test_no_two_categories_share_a_spelling():
    with pytest.raises(ConfigError, match="stands for both"):
        taxonomy_from_dict(
            {"name": "t", "categories": [{"name": "A"}, {"name": "B", "aliases": ["a"]}]}
        )


def test_taxonomies_and_tasks_ship_as_yaml():
    assert {path.stem for path in (conf_dir() / "task").glob("*.yaml")} >= {
        "binary",
        "fine_grained",
        "flat",
        "annomi_talk",
    }


def _rgb(color):
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _lightness(color):
    """CIE L* from sRGB, IEC 61966-2-1 and CIE 15."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in _rgb(color))
    ]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y
