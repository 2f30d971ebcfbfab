"""What a stage makes of faults that are nobody's words."""

from __future__ import annotations

import errno
import os

import pytest

from editors.errors import IntegrityError, StoreError
from flows.stages import roomy


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/x"),
                                   RuntimeError("I/O error: No space left on device (os error 28)")])
def test_a_full_disk_is_told_whichever_library_met_it(error: Exception) -> None:
    with pytest.raises(StoreError, match="stage measure could not write: No space left on device") as caught, roomy("measure"):
        raise error
    assert "free some space in SUTURE_HOME" in caught.value.hint


@pytest.mark.parametrize("error", [KeyError("x"), IntegrityError("No space left on device")])
def test_other_faults_pass(error: Exception) -> None:
    with pytest.raises(type(error)), roomy("measure"):
        raise error
