"""The tiny line, built and observed once."""

from __future__ import annotations

import pytest

from tests.validations.line import Line


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))
