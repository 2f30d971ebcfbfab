"""Programs that come from Debian's packages: installed where they are missing and this is root, as CI is."""

from __future__ import annotations

import os
import shutil
import subprocess

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
    # no cluster of its own is to be started by the package
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
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
