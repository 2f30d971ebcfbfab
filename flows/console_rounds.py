"""What a person sees of the commands that go the rounds: the inbox worked through, a channel verified."""

from __future__ import annotations

from typing import Any

from flows.console import _console, _next, _safe


def show_inbox(answer: dict[str, Any]) -> None:
    """A line for each sheet."""
    out = _console()
    for name, mark in (("done", "[green]done[/]"), ("refused", "[bold red]refused[/]"), ("left", "[yellow]left[/]")):
        for one in answer[name]:
            out.print(f"{mark} {_safe(one['sheet'])}", _safe(" ".join(str(one[part]) for part in ("version", "state", "reason")
                                                                       if one.get(part))))
    _next(out, answer["next"])


def show_verified(answer: dict[str, Any]) -> None:
    """What was looked at, and what is not as it was."""
    out = _console()
    mark = "[bold green]sound[/]" if answer["sound"] else "[bold red]ALARM[/]"
    out.rule(f"{mark} {answer['version']}: {answer['files']} files, {answer['measured']} measurements, {answer['moves']} moves")
    for one in answer["damaged"]:
        out.print(f"[red]damaged[/] {_safe(one['what'])}: {_safe(one['problem'])}")
    for one in answer["drifted"]:
        out.print(f"[red]moved[/] {_safe(one['request'])} {one['metric']}: was {one['recorded']:.4g}, is {one['found']:.4g}")
    for name in answer["failed_rules"]:
        out.print(f"[red]the gate refuses it now[/] {name}")
    for note in answer["notes"]:
        out.print(f"[yellow]![/] {_safe(note)}")
    _next(out, answer["next"])


def show_asks(answer: dict[str, Any]) -> None:
    """A line for each tag that was answered."""
    out = _console()
    for name, mark in (("decided", "[green]decided[/]"), ("denied", "[bold red]denied[/]")):
        for one in answer[name]:
            out.print(f"{mark} {one['version']}: {_safe(one['answer'])}")
    if not answer["decided"] and not answer["denied"]:
        out.print("no tag asks for anything")
    _next(out, answer["next"])
