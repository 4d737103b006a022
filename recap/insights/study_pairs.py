"""``study_materials.step=pairs``: what counselors wrote first, and with feedback (Table 12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recap.errors import DataError, quote_cell
from recap.insights.options import InsightsConfig
from recap.insights.source import NO_COLOR, card_words
from recap.insights.study_rating import KEY, all_responses, drawn_names, left_out_notes, own_rows
from recap.output.excel import sheet_file
from recap.output.report import Report
from recap.output.tables import table_of
from recap.output.templates import render
from recap.tasks.library import configured_task
from recap.taxonomy import Category, Taxonomy

COLUMNS = (
    *("participant", "group", "scenario", "context", "client", "behavior", "meaning", "rationale"),
    *("original", "rewritten"),
)
"""Of the table of pairs, under these names in every language."""


def read_pairs(config: InsightsConfig, folder: Path) -> tuple[list[dict[str, Any]], int, int]:
    """Return the pairs, how many responses have no other, and how many rows are left out.

    A pair has :data:`COLUMNS`, the behavior's ``color``, and whether the second response is
    ``unchanged``, but for white space.

    Raises:
        DataError: When sheets are missing or have faults, or a label is not in the taxonomy.
    """
    groups = {who: row["group"] for who, row in own_rows(folder, "participants").items()}
    scenarios = own_rows(folder, "scenarios", "label", "rationale")
    language = config.study_materials.language or config.data.prompt_language
    taxonomy = configured_task(config.task, language=language).taxonomy
    found, left_out = all_responses(config, folder, groups, scenarios)
    said = {(one.participant, one.scenario, one.phase): one.text for one in found}
    first, second = drawn_names(folder, "phases")
    pairs = []
    for who, code, phase in said:
        if phase != first or (who, code, second) not in said:
            continue
        category = _category(scenarios[code]["label"], taxonomy, folder)
        original, rewritten = said[who, code, first], said[who, code, second]
        pairs.append(
            {
                **scenarios[code],
                "participant": who,
                "group": groups[who],
                "behavior": taxonomy.written(category.name, language=language),
                "color": category.color or NO_COLOR,
                "meaning": category.definition.get(language, ""),
                "original": original,
                "rewritten": rewritten,
                "unchanged": original.split() == rewritten.split(),
            }
        )
    pairs.sort(key=lambda pair: (pair["participant"], pair["scenario"]))
    return pairs, len(said) - 2 * len(pairs), left_out


def _category(label: str, taxonomy: Taxonomy, folder: Path) -> Category:
    found = taxonomy.find(label)
    if found is None:
        raise DataError(
            f"{folder / KEY}: label {quote_cell(label)} of a scenario is not in the taxonomy "
            f"{taxonomy.name!r}; name the task that the scenarios were drawn with, as task=NAME"
        )
    return taxonomy[found]


def make_pairs(config: InsightsConfig, folder: Path) -> Report:
    """Return the table of all pairs, and a page of those that were written with feedback.

    Raises:
        DataError: As :func:`read_pairs`, and when nobody has responded twice.
    """
    pairs, single, left_out = read_pairs(config, folder)
    if not pairs:
        raise DataError(f"{folder}: nobody has responded to one scenario in both phases")
    language = config.study_materials.language or config.data.prompt_language
    words, groups = card_words()[language], drawn_names(folder, "groups")
    excel = config.study_materials.excel
    rows = [[pair[name] for name in COLUMNS] for pair in pairs]
    of_group = {group: [pair for pair in pairs if pair["group"] == group] for group in groups}
    counts = {
        group: {"pairs": len(own), "unchanged": sum(pair["unchanged"] for pair in own)}
        for group, own in of_group.items()
    }
    page = render(
        "insights/templates/study_pairs.html",
        title=words["pairs"],
        language=language,
        words=words,
        pairs=of_group[groups[1]],
    )
    return Report(
        action="study_materials_pairs",
        title=f"{len(pairs)} pairs of responses",
        figures={
            "pairs": len(pairs),
            "groups": counts,
            "responses_without_another": single,
            "rows_left_out": left_out,
        },
        sheets=(
            table_of(
                "Responses before and with feedback",
                groups,
                {
                    "group": str,
                    "pairs": lambda group: str(counts[group]["pairs"]),
                    "unchanged": lambda group: str(counts[group]["unchanged"]),
                },
            ),
        ),
        notes=(
            *left_out_notes(left_out),
            *([f"{single} responses have no other to stand beside."] if single else []),
            f"pairs.html shows those of group {groups[1]}, which had feedback.",
        ),
        rows=[
            {name: pair[name] for name in (*COLUMNS[:3], "behavior", "unchanged")} for pair in pairs
        ],
        private_pages={
            "pairs.html": page,
            f"pairs.{'xlsx' if excel else 'csv'}": sheet_file(COLUMNS, rows, excel=excel),
        },
    )
