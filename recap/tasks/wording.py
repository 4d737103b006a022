"""The words of the built-in prompts, in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Every fixed text of a prompt in one language."""

    role: str
    """Who the model is, unless the task says otherwise."""
    instruction: str
    """What it is to do, unless the task says otherwise."""
    brief: str
    """The same in a handful of words, for ``style=brief``."""
    role_heading: str
    task_heading: str
    taxonomy_heading: str
    labels_heading: str
    examples_heading: str
    example_title: str
    """Takes the example's number."""
    format_heading: str
    history_heading: str
    response_heading: str
    no_history: str
    response_brief: str
    """What stands before the response in the brief style."""
    format_with_reason: str
    """How an answer is to look, in words: a form with gaps would be copied, gaps and all."""
    format_label_only: str
    brief_with_reason: str
    brief_label_only: str
    counselor: str
    client: str
    colon: str
    """Between a speaker or a label and what follows, with the space that the language wants."""
    comma: str
    space: str
    """Between two sentences."""
    quotes: tuple[str, str]


WORDING = {
    "en": Wording(
        role=(
            "You supervise text-based psychological counseling and read closely how a client "
            "answers each move of the counselor."
        ),
        instruction=(
            "You get part of a counseling dialogue and the client's last response. Judge what "
            "that response does with what the counselor has just said: the earlier turns explain "
            "it, but only the last response is labeled. "
            "Choose the one label that fits best by the definitions below."
        ),
        brief="Label the client's response.",
        role_heading="# Role",
        task_heading="# Task",
        taxonomy_heading="# Definitions",
        labels_heading="# Labels",
        examples_heading="# Examples",
        example_title="## Example {number}",
        format_heading="# Output format",
        history_heading="# Dialogue",
        response_heading="# Response to label",
        no_history="(nothing before)",
        response_brief="Response: ",
        format_with_reason=(
            'Answer with exactly two lines. The first is "Behavior:" and one label, copied from '
            'the list; the second is "Reason:" and why it fits, in one or two sentences.'
        ),
        format_label_only=(
            'Answer with exactly one line: "Behavior:" and one label, copied from the list.'
        ),
        brief_with_reason='Write "Behavior:" and label, below "Reason:" and why.',
        brief_label_only='Write "Behavior:" and the label.',
        counselor="Counselor",
        client="Client",
        colon=": ",
        comma=", ",
        space=" ",
        quotes=('"', '"'),
    ),
    "zh": Wording(
        role="你是文字心理咨询的督导，善于细致地观察来访者如何回应咨询师的每一步。",
        instruction=(
            "下面会给出一段咨询对话和来访者的最后一句回应。请判断这句回应如何对待咨询师刚才说的话：前面的对话帮助理解，"
            "只给最后一句回应打标签。请按照下面的定义，选出最合适的一个标签。"
        ),
        brief="判断来访者的回应。",
        role_heading="# 角色",
        task_heading="# 任务",
        taxonomy_heading="# 定义",
        labels_heading="# 标签",
        examples_heading="# 示例",
        example_title="## 示例{number}",
        format_heading="# 输出格式",
        history_heading="# 对话",
        response_heading="# 待判断的回应",
        no_history="（此前没有对话）",
        response_brief="回应：",
        format_with_reason=(
            "请只输出两行：第一行写“行为：”和照抄自列表的一个标签；第二行写“理由：”，用一两句话说明为什么。"
        ),
        format_label_only="请只输出一行：“行为：”和照抄自列表的一个标签。",
        brief_with_reason="写“行为：”和标签，另起一行写“理由：”和原因。",
        brief_label_only="写“行为：”和标签。",
        counselor="咨询师",
        client="来访者",
        colon="：",
        comma="、",
        space="",
        quotes=("“", "”"),
    ),
}
