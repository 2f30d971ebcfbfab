"""What a person sees at the end of a command: pictures and tables first, then where things are and what to type next."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editors.errors import SutureError
from flows.console_parts import escaped, gate_table, show_next, show_places, show_transcripts, span, terminal

if TYPE_CHECKING:
    from rich.console import Console


def show_json(answer: dict[str, Any]) -> None:
    """One document on standard output."""
    sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2, default=str) + "\n")


def show_error(error: SutureError, as_json: bool) -> None:
    """The error for people on standard error; with `--json` as a document on standard output."""
    from rich.console import Console
    from rich.text import Text

    if as_json:
        show_json({"error": type(error).__name__, "message": error.message, "next": error.hint})
        return
    out = Console(stderr=True, highlight=False)
    out.print(Text("error: ", "bold red") + Text(error.message), soft_wrap=True)
    if error.hint:
        out.print(Text("next:  ", "bold") + Text(error.hint), soft_wrap=True)


def show_edit(answer: dict[str, Any]) -> None:
    """Before and after, the gate's table, where everything is, what to type next."""
    out = terminal()
    _headline(out, answer)
    for warning in answer["warnings"]:
        out.print(f"[yellow]![/] {escaped(warning)}")
    show_transcripts(out, answer["transcripts"])
    out.print(gate_table(answer["verdict"]["rules"]))
    places = {"version": f"{answer['version']} ({answer['state']})", "model": f"{answer['model']}, channel {answer['channel']}",
              "parent": answer["parent"] or f"the unedited base {answer['base']}",
              "taken out": f"the edit of version {answer['removed']['version']}" if answer["removed"] else None,
              "method": f"{answer['method']} at layers {span(answer['layers'])}" if answer["layers"] else answer["method"],
              "patch": answer["patch"], "verdict page": answer["page"], "certificate": answer["certificate"],
              "picture": answer["picture"],
              "MLflow": answer["mlflow"],
              "release": answer["release"]["url"] if answer["release"] else None}
    show_places(out, places)
    show_next(out, answer["next"])


def show_plan(answer: dict[str, Any]) -> None:
    """What an edit would do, and what it costs."""
    out = terminal()
    out.print("[bold]Nothing was changed.[/] The edit would be this:")
    show_places(out, {**answer["plan"], "memory": f"{answer['estimate']['memory_bytes'] / 2**30:.2f} GiB at the peak",
                      "arithmetic": f"{answer['estimate']['flops'] / 1e12:.1f} TFLOP",
                      "time": f"{answer['estimate']['seconds']:.1f} s of arithmetic here; loading and measuring on top"})
    for warning in answer["warnings"]:
        out.print(f"[yellow]![/] {escaped(warning)}")
    show_next(out, answer["next"])


def show_measured(answer: dict[str, Any]) -> None:
    """Measurements of a version, and what the gate would say."""
    out = terminal()
    out.print(f"[bold]{answer['candidate']}[/] measured against {answer['parent']}: "
              f"the gate would {'pass it' if answer['passed'] else 'refuse it'}.")
    show_transcripts(out, answer["transcripts"])
    out.print(gate_table(answer["verdict"]["rules"]))


def show_warmed(answer: dict[str, Any]) -> None:
    """The statistics of a base: what was there and what was made, with sizes."""
    from rich.table import Table

    out = terminal()
    table = Table(title=f"Statistics of {escaped(answer['base'])}", title_justify="left")
    for heading in ("what", "layers there before", "layers made now", "MiB"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "MiB" else "left")
    for what in dict.fromkeys(item["what"] for item in answer["items"]):
        items = [item for item in answer["items"] if item["what"] == what]
        table.add_row(what, *(_filled(items, made) for made in (False, True)),
                      f"{sum(item['size_bytes'] for item in items) / 2**20:.1f}")
    out.print(table)
    made, count = sum(item["made"] for item in answer["items"]), len(answer["items"])
    out.print(f"[bold green]Warm.[/] {f'{made} of {count} files were made.' if made else 'Nothing was to be done.'}")
    show_places(out, {"store": answer["store"]})
    show_next(out, answer["next"])


def show_calibrated(answer: dict[str, Any]) -> None:
    """Every trial of a sweep, the best marked, and where the result is kept."""
    from rich.table import Table

    out = terminal()
    for swept in answer["methods"]:
        table = Table(title=f"{swept['method']}, {swept['facts']} edits", title_justify="left")
        for heading in ("", "varied", "layers", "options", "success", "paraphrase", "neighbourhood", "perplexity", "score"):
            table.add_column(heading, overflow="fold")
        for trial in swept["trials"]:
            marks = trial["marks"]
            table.add_row("[green]best[/]" if trial == swept["best"] else "", trial["stage"], span(trial["layers"]),
                          ", ".join(f"{name}={value}" for name, value in trial["options"].items()) or "-",
                          *(f"{marks[name]:.3f}" for name in ("success", "paraphrase", "neighbourhood")),
                          f"{100 * (marks['perplexity_ratio'] - 1):+.2f}%", f"{trial['score']:.4f}")
        out.print(table)
    out.print(f"[dim]{answer['base']} knows {answer['known']} of the {answer['asked']} facts.[/]")
    show_places(out, {"calibration": answer["path"], "picture": answer["picture"]})
    show_next(out, answer["next"])


def show_decision(answer: dict[str, Any]) -> None:
    """The decision that was written."""
    out = terminal()
    out.print(f"[bold]{answer['version']}[/] is {answer['decision']} by {escaped(answer['by'])}: {escaped(answer['reason'])}")
    told = answer["approval"]
    if told["approved"] and told["expires_at"]:
        out.print(f"It may be promoted until {told['expires_at']}.")
    elif told["missing"] and not told["refusal"]:
        out.print(f"[yellow]It waits[/]: {escaped(told['lacks'])}.")
    show_next(out, answer["next"])


def show_promotion(answer: dict[str, Any]) -> None:
    """What the channel serves now."""
    out = terminal()
    moved = (f"{answer['moved_objects']} objects, {answer['moved_bytes'] / 2**20:.1f} MiB moved; "
             f"{answer['kept_objects']} were there")
    out.print(f"[bold green]Channel {answer['channel']} serves {answer['version']}[/] (before: {answer['previous']}). {moved}.")
    show_places(out, {"release": answer["url"], "ledger": f"entry {answer['sequence']}"})
    show_next(out, answer["next"])


def show_rollback(answer: dict[str, Any]) -> None:
    """What the channel serves again."""
    out = terminal()
    out.print(f"[bold green]Channel {answer['channel']} serves {answer['version']} again[/] (left: {answer['left']}). "
              f"Its {answer['files']} files have the digests they were published with.")
    for warning in answer["warnings"]:
        out.print(f"[bold yellow]warning[/] {escaped(warning)}")
    show_next(out, answer["next"])


def show_pulled(answer: dict[str, Any]) -> None:
    """What was fetched."""
    out = terminal()
    out.print(f"[bold green]{answer['version']}[/] is in {answer['folder']}: {answer['files']} files, "
              f"{answer['bytes'] / 2**20:.1f} MiB, every digest verified.")
    out.print(f'[dim]python -c "from transformers import pipeline; '
              f"print(pipeline('text-generation', '{answer['folder']}')('Hello'))\"[/]")


def show_history(answer: dict[str, Any]) -> None:
    """The ledger of a channel, oldest first."""
    from rich.table import Table

    table = Table(title=f"{answer['model']}, channel {answer['channel']}", title_justify="left")
    for heading in ("#", "when", "what", "from", "to", "by", "why", "verdict"):
        table.add_column(heading, overflow="fold")
    for entry in answer["entries"]:
        table.add_row(*(escaped(str(entry[key] if entry[key] is not None else "-"))
                        for key in ("sequence", "when", "action", "from", "to", "by", "reason", "verdict")))
    terminal().print(table)


def show_version(answer: dict[str, Any]) -> None:
    """Everything about one version."""
    out = terminal()
    out.print(f"[bold]{answer['version']}[/]: {answer['state']}")
    show_places(out, answer["places"])
    for request in answer["requests"]:
        out.print(f"  {escaped(request['id'])}: {_request(request)}")
    if answer["verdict"]:
        out.print(gate_table(answer["verdict"]["rules"]))
    show_next(out, answer["next"])


def _headline(out: Console, answer: dict[str, Any]) -> None:
    asked = answer["request_count"]
    counts = f"{len(answer['verdict']['rules'])} rules, {asked} request{'s' if asked != 1 else ''}"
    if answer["passed"]:
        out.rule(f"[bold green]passed[/] {counts}")
    else:
        out.rule(f"[bold red]refused[/] {counts}")


def _request(request: dict[str, Any]) -> str:
    if request["seal"]:
        return f"a secret under the seal {request['seal'][:16]}, not to be said"
    return f"{escaped(request['question'])} [bold]->[/] {escaped(request['target'])}"


def _filled(items: Sequence[dict[str, Any]], made: bool) -> str:
    found = [item for item in items if item["made"] == made]
    layers = [item["layer"] for item in found if item["layer"] is not None]
    return span(layers) if layers else "yes" if found else "-"
