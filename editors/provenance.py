"""What a patch says about its making: enough to make it again, no time, and no text of requests."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import transformers

from editors.contract import EditBatch, Location
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.patch import TensorEdit
from editors.target_search import Search


def provenance_of(method: str, config: Any, model: LoadedModel, batch: EditBatch, location: Location,
                  edits: Sequence[TensorEdit], corpus: Corpus | None, search: Search) -> dict[str, Any]:
    """The provenance of an edit, as JSON values; `corpus` None for a method that holds no text."""
    held = corpus and {"corpus": corpus.name, "corpus_digest": corpus.digest, "tokens": corpus.tokens}
    names = dict.fromkeys(edit.parameter for edit in edits)
    return {
        "method": method, "config": asdict(config), "layers": sorted(location.layers), "layers_source": location.source,
        "base": batch.base_digest, "parent": batch.parent_digest, "model": model.digest, "batch": batch.digest,
        "pre_image": {name: model.tensor_digests[name] for name in names},
        "second_moment": held,
        "search": {"facts": len(search.loss), "worst_loss": round(float(search.loss.max()), 4),
                   "most_steps": int(search.steps.max())},
        "seed": 0, "device": model.device.type, "dtype": str(model.model.dtype).removeprefix("torch."),
        "environment": {"torch": torch.__version__, "transformers": transformers.__version__,
                        "python": platform.python_version()},
    }
