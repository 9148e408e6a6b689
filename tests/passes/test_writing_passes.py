"""The pass in the documentation works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.passes.models import graph, improved, ops

PAGE = Path(__file__).parents[2] / "docs" / "writing-passes.md"


def test_the_documented_pass_works() -> None:
    code = re.search(r"## A pass in full\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {"__name__": "documented"}
    exec(compile(code[1], str(PAGE), "exec"), namespace)
    model = graph(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z)",
        "a = Neg (x) b = Neg (a) y = Relu (b) c = Neg (x) z = Neg (c)",
    )
    after = improved(namespace["RemoveDoubleNegation"](), model)
    assert ops(after) == {"Relu": 1, "Identity": 1}
