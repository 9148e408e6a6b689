"""Boards of the tests: one per core and run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.arm.boards import Board, Core, make_board

MakeBoard = Callable[[Core], Board]


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> MakeBoard:
    """Gives the board with a core."""

    @cache
    def make(core: Core) -> Board:
        return make_board(tmp_path_factory.mktemp("board"), core)

    return make
