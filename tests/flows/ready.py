"""Commands as forks of one process that has imported the heavy libraries: the same code, without eight CPU seconds of imports.

Every fork has the environment, the folder and the files of a command of its own, and ends as one does, exit handlers and all.
What reads its environment when it is imported is not imported ahead, but what the product itself sets for it. Commands that
are to be killed or that race, those of the tutorial and those of `make run` are processes of their own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.flows.failing import fail_in

ROOT = Path(__file__).resolve().parents[2]
AHEAD = ("torch", "transformers.models.llama.modeling_llama", "great_expectations.expectations", "mlflow",
         "matplotlib.backends.backend_agg", "boto3")
FILES = ("typed", "printed", "said")
"""Standard input, output and error of a command."""


class Ready:
    """The process, from a test's side; it is the test process's own and ends with it. `settings`: of its imports, too."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        from flows.services import QUIET

        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "AWS_"))}
        self._process = subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT, env={**kept, **QUIET, **settings},
                                         text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self._process.kill)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, typed: str,
            timeout: float, fault: tuple[str, str, str] | None = None) -> tuple[int, str, str]:
        """A command's exit code, and what it wrote to standard output and standard error; `fault`: see `fail_in`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as scratch:
            files = {name: str(Path(scratch) / name) for name in FILES}
            Path(files["typed"]).write_text(typed, encoding="utf-8")
            asked = {"arguments": [*arguments], "environment": dict(environment), "folder": str(folder), "files": files,
                     "fault": fault}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                # its answer may still come, and must not be taken for the next command's
                self._process.kill()
                ready.cache_clear()
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            code = int(self._process.stdout.readline())
            return code, *(Path(files[name]).read_text(encoding="utf-8") for name in FILES[1:])


@cache
def ready(*settings: tuple[str, str]) -> Ready:
    """This test process's, for commands under these settings."""
    return Ready(dict(settings))


def _serve() -> None:
    for name in AHEAD:
        __import__(name)
    gc.freeze()  # a fork that ends does not look through what was imported ahead
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
            return
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(asked: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    files = [asked["files"][name] for name in FILES]
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (path, flag) in enumerate(zip(files, flags, strict=True)):
        opened = os.open(path, flag, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    # what the parent had read ahead is not this command's
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 (open until the end)
    sys.argv = ["suture", *asked["arguments"]]
    if asked["fault"]:
        fail_in(*asked["fault"])
    from flows.cli import main

    main()


if __name__ == "__main__":
    _serve()
