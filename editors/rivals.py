"""What could stand in the place of each token of a secret: the tokens of never-seen values that begin as the secret does.

Where every value of the form has the same token, as at a blank or a hyphen, there is nothing to lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editors.forget_request import ForgetRequest
from editors.secret_forms import Form, form_of
from editors.secret_rows import SecretRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED = 64
"""Values drawn for each place: one digit in ten is missed among them less than once in eight hundred places."""
SEED = 0


def rivals_of(request: ForgetRequest, row: SecretRow, text: str,
              tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], ...]:
    """For each token of the row's secret, the other tokens that never-seen values have there; sorted, maybe none.

    Args:
        request: Gives the secret and its form.
        row: The text with the secret after it.
        text: The row's text.
        tokenizer: The model's.

    Raises:
        SheetError: the secret does not have the request's form; neither is quoted.
    """
    form, secret, text = form_of(request), request.secret.get_secret_value().strip(), f"{text.rstrip()} "
    starts = [start for start, _ in tokenizer(text + secret, return_offsets_mapping=True)["offset_mapping"]]
    found = []
    for place in range(row.prompt_length, len(row.ids)):
        kept = max(0, starts[place] - len(text))
        # a token may hold several characters: values are drawn anew behind each beginning that ends a token
        alike = Form((*secret[:kept], *form.choices[kept:]))
        values = [text + value for value in alike.sample(SAMPLED, SEED, leaving_out=secret)] if alike.size > 1 else []
        rows = tokenizer(values)["input_ids"] if values else []
        found.append(tuple(sorted({ids[place] for ids in rows if tuple(ids[:place]) == row.ids[:place] and len(ids) > place}
                                  - {row.ids[place]})))
    return tuple(found)
