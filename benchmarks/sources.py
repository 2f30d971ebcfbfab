"""Which code a number came from: a method's module and all of ours that it imports."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Sequence
from pathlib import Path

import editors

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("editors", "benchmarks")


def method_sources(method: str, besides: Sequence[str] = ()) -> dict[str, str]:
    """Module name -> text, for the method and the modules named `besides`, with everything that these import.

    The packages' doors are left out: they name every method and so change with each.
    """
    kind = editors.get(method)
    found: dict[str, str] = {}
    waiting = [kind.__module__, *besides]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name not in found and path is not None:
            found[name] = path.read_text(encoding="utf-8")
            waiting += _imported(found[name])
    return dict(sorted(found.items()))


def _path(module: str) -> Path | None:
    if module.partition(".")[0] not in PACKAGES:
        return Path(str(importlib.import_module(module).__file__))
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _imported(text: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.partition(".")[0] in PACKAGES]
