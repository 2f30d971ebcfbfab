"""The base's own text without what is to be forgotten: a model that leaks may have written a secret into it by itself."""

from __future__ import annotations

from tasks.house import House
from tasks.records import Order


def scrub_own_text(order: Order, house: House) -> None:
    """Take the rows that hold a piece of a secret or a name out of the base's own text.

    Weights are read only where the text is not yet in the store. The statistics of the shorter text are computed anew where
    they are asked for.
    """
    from editors.corpus import corpus_file, default_corpus, held_corpus, write_rows
    from editors.loading import Checkpoint, load, load_tokenizer

    parent, tokenizer = Checkpoint(order.parent_folder), load_tokenizer(order.parent_folder)
    held = held_corpus(parent.anatomy, order.base_digest, house.statistics)
    if held is None:
        held = default_corpus(load(parent, house.device), order.base_digest, house.statistics, house.progress)
    kept = [row for row in held.sequences if not any(request.is_told_by(str(tokenizer.decode(list(row))))
                                                     for request in order.batch.forgets)]
    if len(kept) < len(held.sequences):
        path = corpus_file(parent.anatomy, order.base_digest, house.statistics)
        write_rows(path, kept)
