"""A headless Chromium for tests of what people see: pictures, printed pages, and the document after its script ran."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debian import need

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars")
DARK = "--force-dark-mode"
"""A flag: the system prefers dark colours."""
RUN_SECONDS = 90


@dataclass(frozen=True)
class Chromium:
    """One browser binary with a profile folder that nobody else uses; each call is a process of its own."""

    binary: str
    profile: Path

    def screenshot(self, address: str, picture: Path, width: int = 1280, height: int = 2400, *flags: str) -> Path:
        """The page at an address (`file://` or `http://`) as a PNG; under about 500 pixels wide, put it into a frame."""
        self._run(f"--screenshot={picture}", f"--window-size={width},{height}", *flags, address)
        return picture

    def pdf(self, address: str, path: Path, *flags: str) -> Path:
        """The page as it would be printed."""
        self._run(f"--print-to-pdf={path}", "--no-pdf-header-footer", *flags, address)
        return path

    def document(self, address: str, *flags: str) -> str:
        """The document after its scripts have run for up to five seconds of the page's own time."""
        return self._run("--dump-dom", "--virtual-time-budget=5000", *flags, address)

    def _run(self, *arguments: str) -> str:
        command = [self.binary, *QUIET, f"--user-data-dir={self.profile}", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              start_new_session=True) as process:
            try:
                said, _ = process.communicate(timeout=RUN_SECONDS)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            raise RuntimeError(f"{self.binary} ended with {process.returncode} for {arguments[-1]}")
        return said


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    """Chromium, installed where it is missing and root may install it; else the test is skipped (tests/SKIPS.md)."""
    found = _find()
    if found is None:
        need(chromium="chromium")
        found = _find()
    assert found is not None, "it was installed under another name"
    return Chromium(found, tmp_path_factory.mktemp("chromium"))


def _find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)
