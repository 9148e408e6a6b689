from __future__ import annotations

from datetime import datetime

import pytest

from edge_sdk.bundle.record import Generation
from edge_sdk.errors import BundleError, DataError
from edge_sdk.runtime.generation.chat_template import MOST_OWN_TEXT, Message, render
from edge_sdk.runtime.generation.template_sandbox import LONGEST_TEXT, MOST_STEPS
from tests.generation import templates

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SYSTEM = Message("system", "Be brief.")
TALK = [Message("user", "Hi <b>\n"), Message("assistant", "Hello"), Message("user", "Täglich?")]


def prompt(template: str, messages=TALK, **options) -> str:
    generation = Generation(
        layers=1,
        kv_heads=1,
        head_dim=8,
        vocab=8,
        context=64,
        chat_template=template,
        tokens=TOKENS,
    )
    return render(generation, messages, **options)


def test_chatml_as_smollm2_has_it():
    turns = "user\nHi <b>\n|assistant\nHello|user\nTäglich?|".replace("|", "<|im_end|>\n\x00")
    marked = "<|im_start|>" + turns.replace("\x00", "<|im_start|>")
    own = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n"
    assert prompt(templates.CHATML) == own + marked + "assistant\n"
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert prompt(templates.CHATML, [SYSTEM, *TALK]) == system + marked + "assistant\n"


def test_chatml_as_qwen_has_it_leaves_past_thoughts_out():
    talk = [SYSTEM, TALK[0], Message("assistant", "<think>hm</think>\n\nHello"), TALK[2]]
    assert prompt(templates.QWEN, talk) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi <b>\n<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nTäglich?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chatml_as_internlm2_has_it():
    assert prompt(templates.INTERNLM2, TALK[:1]) == (
        "<s><|im_start|>user\nHi <b>\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama_3_with_todays_date():
    today = datetime.now().strftime("%d %b %Y")
    found = prompt(templates.LLAMA3, [SYSTEM, *TALK])
    assert found == (
        f"<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: {today}\n\n"
        "Be brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nTäglich?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_mistral():
    assert prompt(templates.MISTRAL, [SYSTEM, *TALK]) == (
        "<s> [INST] Be brief.\n\nHi <b>\n [/INST] Hello</s> [INST] Täglich? [/INST]"
    )


def test_glm_4():
    assert prompt(templates.GLM4, [*TALK, SYSTEM]) == (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi <b>\n"
        "<|assistant|>\nHello<|user|>\nTäglich?<|assistant|>"
    )


def test_no_answer_is_begun_where_none_is_wanted():
    assert prompt(templates.CHATML, answer=False).endswith("Täglich?<|im_end|>\n")


def test_without_a_template_turns_are_plain_paragraphs():
    assert prompt("", [SYSTEM, *TALK[:2]]) == (
        "Be brief.\n\nUser: Hi <b>\n\n\nAssistant: Hello\n\nAssistant:"
    )
    assert prompt("", TALK[2:], answer=False) == "User: Täglich?"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages[2] | tojson }}", '{"role": "user", "content": "Täglich?"}'),
        ("{{ '<b>' | tojson(indent=2) }}", '"<b>"'),
        ("{{ messages[0].content }}", "Hi <b>\n"),
        ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}x{% endfor %}",
         "x"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}!", "Hello!"),
        ("{% for m in messages %}{{ loop.last }} {{ loop.length }} {% endfor %}",
         "False 3 False 3 True 3 "),
        ("{% for m in messages %}{{ loop.previtem.role if not loop.first }},{% endfor %}",
         ",user,assistant,"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{{ bos_token }}{{ pad_token }}{{ messages[0].tool_calls }}", "<s>"),
        ("{{ tools is none }} {{ documents is none }}", "True True"),
        ("{% macro turn(m) %}{% for c in m.role %}{{ c }}{% endfor %}{% endmacro %}"
         "{{ turn(messages[0]) }}", "user"),
        ("{{ messages | map(attribute='role') | join('|') | indent(2) | upper }}",
         "USER|ASSISTANT|USER"),
        ("{{ '-' * 3 + 'x' ~ 2 * 3 }}", "---x6"),
    ],
)  # fmt: skip
def test_what_templates_rely_on(template, expected):
    assert prompt(template) == expected


def test_refused_messages_are_bad_input_in_the_templates_words():
    with pytest.raises(
        DataError, match=r"refuses these messages: .*roles must alternate"
    ) as caught:
        prompt(templates.MISTRAL, [TALK[0], TALK[0]])
    assert caught.value.where == "chat template"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}", "line 1: TemplateSyntaxError"),
        ("\n{{ x | no_such_filter }}", "line 2: TemplateAssertionError: No filter"),
        ("{{ messages[0].content.no.such }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages | tojson(5, 6, 7, 8, 9) }}", "TypeError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
    ],
)
def test_wrong_template_is_a_bundle_error_that_says_what_to_do(template, said):
    with pytest.raises(BundleError, match=said) as caught:
        prompt(template)
    assert "raw" in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ strftime_now.__globals__['datetime'] }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__.x}'.format(messages) }}",
        "{% set f = messages[0].get %}{{ f.__self__.x }}",
        "{{ messages.append('x') }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages.__setitem__(0, 1) }}",
    ],
)
def test_ways_out_of_the_sandbox_are_refused(template):
    with pytest.raises(BundleError, match="SecurityError"):
        prompt(template)


@pytest.mark.parametrize(
    "template",
    [
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'base' %}",
    ],
)
def test_a_template_reads_no_other_file(template):
    with pytest.raises(BundleError):
        prompt(template)


def nested(depth: int, body: str) -> str:
    return "{% for c in range(999) %}" * depth + body + "{% endfor %}" * depth


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10 ** 12) %}{% endfor %}",
        "{% for i in range(999999999) %}{% endfor %}",
        nested(4, ""),
        nested(1, "{{ messages[0].content }}" * 200),
        "{{ 'x' * 99999999999 }}",
        "{{ 99999999999 * 'x' }}",
        "{{ [0] * 99999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ ''.center(9999999999) }}",
        "{{ '' | center(9999999999) }}",
        "{{ 'a\nb' | indent(width=9999999999) }}",
        "{{ lipsum(n=9999999999) }}",
        "{% set n = namespace(x='xx') %}" + nested(1, "{% set n.x = n.x ~ n.x %}"),
        "{% set n = namespace(x='xx') %}" + nested(1, "{% set n.x = n.x + n.x %}"),
        "{% set n = namespace(x=2) %}" + nested(1, "{% set n.x = n.x * n.x %}"),
        "{% for a in 'x' recursive %}{{ loop('xx') }}{% endfor %}",
    ],
)
def test_endless_work_is_refused(template):
    with pytest.raises(
        BundleError, match=r"SecurityError|OverflowError|RecursionError|UndefinedError"
    ):
        prompt(template)


def test_long_messages_are_no_fault_of_the_template():
    long = Message("user", "x" * LONGEST_TEXT)
    assert len(prompt("{{ messages[0].content }}" * 3, [long])) == 3 * LONGEST_TEXT


def test_bounds_leave_room_for_real_prompts():
    many = [Message("user", "x")] * (MOST_STEPS // 100)
    assert prompt(templates.QWEN, many).count("x") == len(many)
    assert len(prompt("{{ 'x' * 9999 }}" * 6)) < MOST_OWN_TEXT
