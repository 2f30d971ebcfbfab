"""What a page of `docs/` tells its reader to type, and what it says he will see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXIT = re.compile(r"\s+# exit code (\d+)$")


@dataclass(frozen=True)
class Shown:
    """A command of a page: its words after the prompt, how it is said to end, and the lines shown under it."""

    words: str
    code: int
    lines: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """The lines that are no part of a table, which says what one model on one machine said."""
        return [line for line in self.lines if line and line != "..." and not re.match(r"[│┃┏┡└├─]", line)]


def shown_in(path: Path) -> list[Shown]:
    """Every command of a page, in order: lines of a code block that begin with `$ `, up to the next or the block's end."""
    found: list[tuple[str, list[str]]] = []
    is_open = False
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("    $ "):
            found.append((line.removeprefix("    $ "), []))
            is_open = True
        elif not line.startswith("    "):
            is_open = is_open and not line
        elif is_open:
            found[-1][1].append(line.removeprefix("    ").rstrip())
    return [_shown(words, lines) for words, lines in found]


def alike(text: str) -> str:
    """A text without what differs from run to run: digests, numbers, the home, and how lines were broken."""
    text = re.sub(r"\s+", "", re.sub(r"/\S*?/home/|~/\.suture/", "HOME/", text))
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "#", re.sub(r"[0-9a-f]{12,64}", "DIGEST", text))


def _shown(words: str, lines: list[str]) -> Shown:
    ending = EXIT.search(words)
    return Shown(EXIT.sub("", words), int(ending[1]) if ending else 0, tuple(lines))
