"""What a person sees of a place in the model: where the edit goes, what the locator found, and what that does not show."""

from __future__ import annotations

from typing import Any

from flows.console_parts import escaped, show_next, show_places, span, terminal

PEAKS = {"causal_trace": "the trace peaks", "hidden_contrast": "the contrast is greatest",
         "bias_trace": "the group is carried most"}
SHOWN_NEURONS = 8


def show_location(answer: dict[str, Any]) -> None:
    """The layers to be edited, the locator's finding in a line, and where the evidence lies."""
    out = terminal()
    peak, said = answer["traced_peak"], PEAKS.get(answer["locator"])
    found = f"; {said} at layer {peak}" if said and peak is not None else ""
    out.print(f"[bold]Edit layers {span(answer['layers'])}[/] (chosen by {answer['source']}){found}.")
    out.print(f"[bold]{answer['locator']}[/]: {escaped(answer['question'])}")
    if answer["neurons"]:
        neurons = sorted(((score, one["layer"], index) for one in answer["neurons"]
                          for index, score in zip(one["indices"], one["scores"], strict=True)), reverse=True)
        shown = ", ".join(f"{layer}: {index}" for _, layer, index in neurons[:SHOWN_NEURONS])
        more = f" and {len(neurons) - SHOWN_NEURONS} more" if len(neurons) > SHOWN_NEURONS else ""
        out.print(f"Neurons, as layer: neuron, the clearest first: {shown}{more}.")
    out.print(f"[dim]{escaped(answer['caveat'])}[/]")
    show_places(out, {item["title"]: item["path"] for item in answer["evidence"]})
    show_next(out, answer["next"])
