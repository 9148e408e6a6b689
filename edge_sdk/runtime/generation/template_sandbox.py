"""Jinja as chat templates expect it, in a sandbox with bounds.

Imported only where a prompt is rendered: Jinja takes longer to import than a token to draw.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# What a template may hold in one value beside the messages; the longest known are 20 KiB.
LONGEST_TEXT = 1 << 20
MOST_STEPS = 100_000  # of all loops together
_STEPS = "steps left"  # with a space: no name that a template can set


class RefusedError(TemplateError):
    """The template's own ``raise_exception``: it does not take these messages."""


def compile_template(source: str) -> Template:
    """A template whose loops and texts are bounded.

    Raises:
        TemplateError: It is not Jinja.
    """
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters.update(
        tojson=_to_json, bounded_number=_number, bounded_steps=_steps, bounded_text=_text
    )
    del environment.globals["lipsum"]  # writes as much as it is asked to
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    return environment.from_string(_Bounds().visit(environment.parse(source)))


def pieces(template: Template, values: dict[str, Any]) -> Iterator[str]:
    """The rendered text in pieces, so that the reader may stop.

    Raises:
        RefusedError: The template refuses the values.
        Exception: Whatever a wrong template raises.
    """
    return template.generate({**values, _STEPS: iter(range(MOST_STEPS))})


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses private attributes, changes to its values, and huge repetitions."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "*" and not _is_small_product(left, right)):
            raise SecurityError(f"{operator} of these values is more than a prompt needs")
        result = super().call_binop(context, operator, left, right)
        return _text(result) if isinstance(result, str) else result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        for value in (*args, *kwargs.values()):
            _number(value)
        return super().call(__context, __obj, *args, **kwargs)


class _Bounds(NodeTransformer):
    """Puts a bound around every concatenation, loop and number given to a filter."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), "bounded_text")

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.args = [_filtered(value, "bounded_number") for value in node.args]
        for pair in node.kwargs:
            pair.value = _filtered(pair.value, "bounded_number")
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "bounded_steps")
        return node


class _Generation(Extension):
    """``{% generation %} … {% endgeneration %}``: what training learns from; here just text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _is_small_product(left: Any, right: Any) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        text, times = (left, right) if isinstance(left, str) else (right, left)
        return not isinstance(times, int) or len(text) * times <= LONGEST_TEXT
    return all(isinstance(value, (int, float)) and abs(value) < 1 << 64 for value in (left, right))


def _number(value: Any) -> Any:
    """An argument: as a width it would be padded to, as in ``center(10**9)``."""
    if isinstance(value, int) and value > LONGEST_TEXT:
        raise SecurityError("a number is larger than a prompt needs")
    return value


def _text(value: str) -> str:
    if len(value) > LONGEST_TEXT:
        raise SecurityError(f"a text grows beyond {LONGEST_TEXT} characters")
    return value


@pass_context
def _steps(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    left = context.parent[_STEPS]
    for value in values:
        if next(left, None) is None:
            raise SecurityError(f"its loops take more than {MOST_STEPS} steps")
        yield value


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; Jinja's own filter escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise RefusedError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)  # the local day is what a template means
