"""Programs that come from Debian's packages: installed where they are missing and this is root, as CI is."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest


def need(**packages: str) -> None:
    """See that each program is there, by its package; skip where it is not and cannot be installed.

    Args:
        packages: program -> the package that has it.
    """
    missing = sorted({package for program, package in packages.items() if not _is_there(program)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"not installed, and not root on Debian to install it: {', '.join(missing)}")
    try:
        _install(missing)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"not installed, and apt-get could not install it: {', '.join(missing)} ({error})")


def _install(packages: Sequence[str]) -> None:
    # no cluster of its own is to be started by the package
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # apt-get waits for nobody who updates its lists, and other processes of the same tests may
    with (Path(tempfile.gettempdir()) / "suture-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments], env=environment, check=True,
                           stdout=subprocess.DEVNULL, timeout=900)


def _is_there(program: str) -> bool:
    from editors.errors import ServiceError
    from tasks.postgres import find_programs

    if program != "initdb":
        return shutil.which(program) is not None
    try:
        find_programs()
    except ServiceError:
        return False
    return True
