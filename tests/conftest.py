"""What every test may use: the shared data, the packaged model, a quiet environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # workers that each start a thread a core would wait for one another
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

pytest_plugins = ["tests.tasks.s3_fixtures", "tests.tasks.registry", "tests.chromium"]
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The benchmark data beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the benchmark data is not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where the packaged model is converted to, once for all test runs."""
    return Path(os.environ.get("SUTURE_TEST_CACHE", "~/.cache/suture")).expanduser()


@pytest.fixture(scope="session")
def packaged_model(model_cache: Path):
    """SmolLM2-135M-Instruct as a checkpoint folder."""
    from editors.loading import Checkpoint
    from editors.packaged import packaged_folder

    return Checkpoint(packaged_folder(model_cache))
