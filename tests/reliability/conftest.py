"""What the tests of hostile files share."""

from __future__ import annotations

from types import SimpleNamespace

import hostile as functions
import pytest


@pytest.fixture(scope="session")
def hostile() -> SimpleNamespace:
    return SimpleNamespace(
        json=functions.spoilt_json,
        text=functions.spoilt_text,
        bytes=functions.spoilt_bytes,
        tensor_file=functions.tensor_file,
        parts_of=functions.parts_of,
        little_memory=functions.little_memory,
    )
