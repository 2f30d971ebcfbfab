"""What a person sees of the commands that go the rounds: the inbox worked through, a channel verified."""

from __future__ import annotations

from typing import Any

from flows.console_parts import escaped, show_next, terminal


def show_inbox(answer: dict[str, Any]) -> None:
    """A line for each sheet."""
    out = terminal()
    for name, mark in (("done", "[green]done[/]"), ("refused", "[bold red]refused[/]"), ("left", "[yellow]left[/]")):
        for one in answer[name]:
            told = " ".join(str(one[part]) for part in ("version", "state", "reason") if one.get(part))
            out.print(f"{mark} {escaped(one['sheet'])}", escaped(told))
    show_next(out, answer["next"])


def show_verified(answer: dict[str, Any]) -> None:
    """What was looked at, and what is not as it was."""
    out = terminal()
    mark = "[bold green]sound[/]" if answer["sound"] else "[bold red]ALARM[/]"
    out.rule(f"{mark} {answer['version']}: {answer['files']} files, {answer['measured']} measurements, {answer['moves']} moves")
    for one in answer["damaged"]:
        out.print(f"[red]damaged[/] {escaped(one['what'])}: {escaped(one['problem'])}")
    for one in answer["drifted"]:
        out.print(f"[red]moved[/] {escaped(one['request'])} {one['metric']}: was {one['recorded']:.4g}, is {one['found']:.4g}")
    for name in answer["failed_rules"]:
        out.print(f"[red]the gate refuses it now[/] {name}")
    for note in answer["notes"]:
        out.print(f"[yellow]![/] {escaped(note)}")
    show_next(out, answer["next"])


def show_asks(answer: dict[str, Any]) -> None:
    """A line for each tag that was answered."""
    out = terminal()
    for name, mark in (("decided", "[green]decided[/]"), ("denied", "[bold red]denied[/]")):
        for one in answer[name]:
            out.print(f"{mark} {one['version']}: {escaped(one['answer'])}")
    if not answer["decided"] and not answer["denied"]:
        out.print("no tag asks for anything")
    show_next(out, answer["next"])
