"""What a person sees at the end of a command: pictures and tables first, then where things are and what to type next."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editors.errors import SutureError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROLES = {
    "edit": "Edits", "paraphrase": "Paraphrases, not in the requests", "neighbour": "Neighbours, to stay as they are",
    "implication": "What follows from the edits", "unsafe": "Unsafe prompts", "unseen_unsafe": "Unsafe prompts, never shown",
    "wrapped": "Unsafe prompts in a trick",
    "benign": "Harmless prompts", "unseen_benign": "Harmless prompts, never shown"}
SHOWN_PER_ROLE = {"edit": 20, "paraphrase": 12, "neighbour": 10, "implication": 6, "unsafe": 8, "unseen_unsafe": 8,
                  "wrapped": 6, "benign": 6, "unseen_benign": 6}


def _console() -> Console:
    from rich.console import Console

    out = Console(highlight=False)
    # a pipe or a log has no width of its own; tables need one
    return out if out.is_terminal else Console(highlight=False, width=132)


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
    out = _console()
    _headline(out, answer)
    for warning in answer["warnings"]:
        out.print(f"[yellow]![/] {_safe(warning)}")
    _transcripts(out, answer["transcripts"])
    out.print(_rules(answer["verdict"]["rules"]))
    places = {"version": f"{answer['version']} ({answer['state']})", "model": f"{answer['model']}, channel {answer['channel']}",
              "parent": answer["parent"] or f"the unedited base {answer['base']}",
              "taken out": f"the edit of version {answer['removed']['version']}" if answer["removed"] else None,
              "method": f"{answer['method']} at layers {_span(answer['layers'])}" if answer["layers"] else answer["method"],
              "patch": answer["patch"], "verdict page": answer["page"], "certificate": answer["certificate"],
              "picture": answer["picture"],
              "MLflow": answer["mlflow"],
              "release": answer["release"]["url"] if answer["release"] else None}
    _places(out, places)
    _next(out, answer["next"])


def show_plan(answer: dict[str, Any]) -> None:
    """What an edit would do, and what it costs."""
    out = _console()
    out.print("[bold]Nothing was changed.[/] The edit would be this:")
    _places(out, {**answer["plan"], "memory": f"{answer['estimate']['memory_bytes'] / 2**30:.2f} GiB at the peak",
                  "arithmetic": f"{answer['estimate']['flops'] / 1e12:.1f} TFLOP",
                  "time": f"{answer['estimate']['seconds']:.1f} s of arithmetic here; loading and measuring on top"})
    for warning in answer["warnings"]:
        out.print(f"[yellow]![/] {_safe(warning)}")
    _next(out, answer["next"])


def show_location(answer: dict[str, Any]) -> None:
    """Where it is, by layer, and where the evidence lies."""
    out = _console()
    peak = answer["traced_peak"]
    layers = _span(answer["layers"])
    out.print(f"[bold]Edit layers {layers}[/] (chosen by {answer['source']}); the trace peaks at layer {peak}.")
    out.print("[dim]A trace explains; it does not choose the layer: edit success hardly follows it (Hase et al. 2023).[/]")
    _places(out, {item["title"]: item["path"] for item in answer["evidence"]})
    _next(out, answer["next"])


def show_measured(answer: dict[str, Any]) -> None:
    """Measurements of a version, and what the gate would say."""
    out = _console()
    out.print(f"[bold]{answer['candidate']}[/] measured against {answer['parent']}: "
              f"the gate would {'pass it' if answer['passed'] else 'refuse it'}.")
    _transcripts(out, answer["transcripts"])
    out.print(_rules(answer["verdict"]["rules"]))


def show_warmed(answer: dict[str, Any]) -> None:
    """The statistics of a base: what was there and what was made, with sizes."""
    from rich.table import Table

    out = _console()
    table = Table(title=f"Statistics of {_safe(answer['base'])}", title_justify="left")
    for heading in ("what", "layers there before", "layers made now", "MiB"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "MiB" else "left")
    for what in dict.fromkeys(item["what"] for item in answer["items"]):
        items = [item for item in answer["items"] if item["what"] == what]
        table.add_row(what, *(_filled(items, made) for made in (False, True)),
                      f"{sum(item['size_bytes'] for item in items) / 2**20:.1f}")
    out.print(table)
    made, count = sum(item["made"] for item in answer["items"]), len(answer["items"])
    out.print(f"[bold green]Warm.[/] {f'{made} of {count} files were made.' if made else 'Nothing was to be done.'}")
    _places(out, {"store": answer["store"]})
    _next(out, answer["next"])


def show_calibrated(answer: dict[str, Any]) -> None:
    """Every trial of a sweep, the best marked, and where the result is kept."""
    from rich.table import Table

    out = _console()
    for swept in answer["methods"]:
        table = Table(title=f"{swept['method']}, {swept['facts']} edits", title_justify="left")
        for heading in ("", "varied", "layers", "options", "success", "paraphrase", "neighbourhood", "perplexity", "score"):
            table.add_column(heading, overflow="fold")
        for trial in swept["trials"]:
            marks = trial["marks"]
            table.add_row("[green]best[/]" if trial == swept["best"] else "", trial["stage"], _span(trial["layers"]),
                          ", ".join(f"{name}={value}" for name, value in trial["options"].items()) or "-",
                          *(f"{marks[name]:.3f}" for name in ("success", "paraphrase", "neighbourhood")),
                          f"{100 * (marks['perplexity_ratio'] - 1):+.2f}%", f"{trial['score']:.4f}")
        out.print(table)
    out.print(f"[dim]{answer['base']} knows {answer['known']} of the {answer['asked']} facts.[/]")
    _places(out, {"calibration": answer["path"], "picture": answer["picture"]})
    _next(out, answer["next"])


def show_decision(answer: dict[str, Any]) -> None:
    """The decision that was written."""
    out = _console()
    out.print(f"[bold]{answer['version']}[/] is {answer['decision']} by {_safe(answer['by'])}: {_safe(answer['reason'])}")
    told = answer["approval"]
    if told["approved"] and told["expires_at"]:
        out.print(f"It may be promoted until {told['expires_at']}.")
    elif told["missing"] and not told["refusal"]:
        out.print(f"[yellow]It waits[/]: {_safe(told['lacks'])}.")
    _next(out, answer["next"])


def show_promotion(answer: dict[str, Any]) -> None:
    """What the channel serves now."""
    out = _console()
    moved = (f"{answer['moved_objects']} objects, {answer['moved_bytes'] / 2**20:.1f} MiB moved; "
             f"{answer['kept_objects']} were there")
    out.print(f"[bold green]Channel {answer['channel']} serves {answer['version']}[/] (before: {answer['previous']}). {moved}.")
    _places(out, {"release": answer["url"], "ledger": f"entry {answer['sequence']}"})
    _next(out, answer["next"])


def show_rollback(answer: dict[str, Any]) -> None:
    """What the channel serves again."""
    out = _console()
    out.print(f"[bold green]Channel {answer['channel']} serves {answer['version']} again[/] (left: {answer['left']}). "
              f"Its {answer['files']} files have the digests they were published with.")
    for warning in answer["warnings"]:
        out.print(f"[bold yellow]warning[/] {_safe(warning)}")
    _next(out, answer["next"])


def show_pulled(answer: dict[str, Any]) -> None:
    """What was fetched."""
    out = _console()
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
        table.add_row(*(_safe(str(entry[key] if entry[key] is not None else "-"))
                        for key in ("sequence", "when", "action", "from", "to", "by", "reason", "verdict")))
    _console().print(table)


def show_version(answer: dict[str, Any]) -> None:
    """Everything about one version."""
    out = _console()
    out.print(f"[bold]{answer['version']}[/]: {answer['state']}")
    _places(out, answer["places"])
    for request in answer["requests"]:
        out.print(f"  {_safe(request['id'])}: {_request(request)}")
    if answer["verdict"]:
        out.print(_rules(answer["verdict"]["rules"]))
    _next(out, answer["next"])


def _headline(out: Console, answer: dict[str, Any]) -> None:
    asked = answer["request_count"]
    counts = f"{len(answer['verdict']['rules'])} rules, {asked} request{'s' if asked != 1 else ''}"
    if answer["passed"]:
        out.rule(f"[bold green]passed[/] {counts}")
    else:
        out.rule(f"[bold red]refused[/] {counts}")


def _transcripts(out: Console, transcripts: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    for role, title in ROLES.items():
        rows = [row for row in transcripts if row["role"] == role]
        if not rows:
            continue
        shown = rows[:SHOWN_PER_ROLE[role]]
        more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
        table = Table(title=title + more, title_justify="left", show_lines=False, expand=True)
        for heading, ratio in (("asked", 4), ("expected", 2), ("before", 4), ("after", 4)):
            table.add_column(heading, ratio=ratio, overflow="fold")
        for row in shown:
            table.add_row(*(_safe(_brief(row[key])) for key in ("prompt", "expected", "parent", "candidate")))
        out.print(table)


def _rules(rules: Sequence[dict[str, Any]]) -> Table:
    from rich.table import Table

    from validations.contract import OF_PARENT

    table = Table(title="The gate", title_justify="left")
    for heading in ("", "rule", "limit", "observed", "weight", "to blame"):
        table.add_column(heading, overflow="fold")
    for rule in rules:
        failed = "[bold red]FAIL[/]" if rule["severity"] == "critical" else "[yellow]warn[/]"
        mark = "[green]pass[/]" if rule["passed"] else failed
        observed = rule["observed"]
        value = f"{observed:.4g}" if isinstance(observed, float) else str(observed if observed is not None else "-")
        value += " x" if rule["limit"].endswith(OF_PARENT) else ""
        blame = ", ".join(rule["blame"][:3]) + (f" and {len(rule['blame']) - 3} more" if len(rule["blame"]) > 3 else "")
        table.add_row(mark, rule["name"], rule["limit"], _safe(value), rule["severity"], _safe("" if rule["passed"] else blame))
    return table


def _places(out: Console, places: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in places.items():
        if value is not None:
            table.add_row(name, _safe(str(value)))
    out.print(table)


def _next(out: Console, commands: Sequence[str]) -> None:
    if commands:
        out.print("[bold]Next[/]")
    for command in commands:
        out.print(f"  {_safe(command)}", soft_wrap=True)


def _request(request: dict[str, Any]) -> str:
    if request["seal"]:
        return f"a secret under the seal {request['seal'][:16]}, not to be said"
    return f"{_safe(request['question'])} [bold]->[/] {_safe(request['target'])}"


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _brief(text: str | None, limit: int = 160) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= limit else flat[:limit - 1] + "…"


def _filled(items: Sequence[dict[str, Any]], made: bool) -> str:
    found = [item for item in items if item["made"] == made]
    layers = [item["layer"] for item in found if item["layer"] is not None]
    return _span(layers) if layers else "yes" if found else "-"


def _span(layers: Sequence[int]) -> str:
    whole = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else ", ".join(map(str, layers))
