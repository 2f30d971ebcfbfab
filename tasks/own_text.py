"""The base's own text without what is to be forgotten: a model that leaks may have written a secret into it by itself."""

from __future__ import annotations

import json

from tasks.house import House
from tasks.records import Order


def scrub_own_text(order: Order, house: House) -> int:
    """Take the rows that hold a piece of a secret or a name out of the base's own text; how many there were.

    The statistics of the shorter text are computed anew where they are asked for.
    """
    from editors.corpus import corpus_file, default_corpus
    from editors.loading import Checkpoint, load
    from editors.stored import write_whole

    model = load(Checkpoint(order.parent_folder), house.device)
    rows = default_corpus(model, order.base_digest, house.statistics, house.progress).sequences
    kept = [row for row in rows if not any(request.is_told_by(str(model.tokenizer.decode(list(row))))
                                           for request in order.batch.forgets)]
    if len(kept) < len(rows):
        path = corpus_file(model.anatomy, order.base_digest, house.statistics)
        write_whole(path, lambda scratch: scratch.write_text(json.dumps(kept)))
    return len(rows) - len(kept)
