"""The command that shows where a model holds what a sheet is about."""

from __future__ import annotations

from typing import Annotated

import typer

from editors.locators import AUTO
from flows import console_locating
from flows.cli_options import JsonOption, SheetArgument, answering, print_answer


def locate(
    sheet: SheetArgument,
    method: Annotated[str, typer.Option("--method", help="Which locator. Default: the first of its purpose.")] = AUTO,
    as_json: JsonOption = False,
) -> None:
    """Show where the model holds what a sheet is about, as a table and a picture. Edits nothing, and needs no approval.

    What to ask, by the sheet's purpose:

    - update: **causal_trace**, at which tokens and layers today's answer is recalled; **knowledge_neurons**, which FFN neurons
      raise it in every wording; **value_reading**, which FFN values promote it; **hidden_contrast**, where it parts from the
      answer wanted
    - forget: **privacy_neurons**, which FFN neurons raise the secret above values of its form
    - detoxify: **hidden_contrast**, at which layers safe and own answers part; **value_reading**, which FFN values promote the
      words wished for, the default where no unsafe prompt is given
    - debias: **bias_trace**, which modules and heads carry the group; **value_reading**, which FFN values promote one group's
      word

    None of them says where an edit works best: `locate: auto` in the sheet measures that.

    Examples: `suture locate examples/facts.yaml`, `suture locate examples/facts.yaml --method knowledge_neurons`
    """
    with answering(as_json) as settings:
        from flows import run

        print_answer(run.locate(settings, sheet, method, quiet=as_json), console_locating.show_location, as_json)
