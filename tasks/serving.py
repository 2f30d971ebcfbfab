"""The served model: MLflow stores a copy of this very file (models-from-code), so it imports nothing of this project.

It loads the base, checks that the base's tensors are those the patches were made for, applies the stack and answers.
Load it with another base folder, for example one that `suture pull --base NAME DIR` wrote:
`mlflow.pyfunc.load_model("models:/NAME@champion", model_config={"base": "DIR"})`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

NEW_TOKENS = 64


class EditedModel(PythonModel):
    """A base model under an ordered stack of patches, behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Load base and patches; `model_config` holds `base` (folder), `reference` and `patches` (digests in order).

        Raises:
            FileNotFoundError: the base folder is not on this machine.
            ValueError: a patch was altered, or was made for other weights.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        config = context.model_config
        if not (Path(config["base"]) / "config.json").is_file():
            raise FileNotFoundError(
                f"the base {config['reference']} is not at {config['base']} on this machine; fetch it (suture pull --base "
                f"{config['reference']} DIR) and load with model_config={{'base': 'DIR'}}")
        place: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(config["base"], **place)
        # in the checkpoint's own dtype, because the patches name the digests of its tensors
        model: Any = AutoModelForCausalLM.from_pretrained(config["base"], dtype="auto", use_safetensors=True, **place)
        folders = sorted(Path(context.artifacts["patches"]).iterdir())
        for folder, digest in zip(folders, config["patches"], strict=True):
            apply_patch(model, folder, digest)
        # half precision is far slower than float32 on processors
        self.model = model.eval().to("cuda") if torch.cuda.is_available() else model.eval().float()

    def predict(self, context: Any, model_input: pd.DataFrame,  # noqa: ARG002
                params: dict[str, Any] | None = None) -> list[str]:
        """Greedy answers to the texts of the first column; from a list of texts MLflow makes such a table.

        `params`: `max_new_tokens`, and `chat` to read each text as a user's turn.
        """
        import torch

        given = params or {}
        texts = [str(text) for text in model_input.iloc[:, 0]]
        if chat := bool(given.get("chat")):
            texts = [str(self.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                                            add_generation_prompt=True)) for text in texts]
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left",
                               add_special_tokens=not chat, return_token_type_ids=False).to(self.model.device)
        with torch.inference_mode():
            tokens = self.model.generate(**batch, do_sample=False, pad_token_id=self.tokenizer.pad_token_id,
                                         max_new_tokens=int(given.get("max_new_tokens", NEW_TOKENS)))
        return list(self.tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1]:], skip_special_tokens=True))


def apply_patch(model: Any, folder: Path, digest: str) -> None:
    """Add one patch to the weights, in float64, with one cast to each weight's dtype.

    Raises:
        ValueError: the files are not the patch `digest`, or the weights are not those it was made for.
    """
    import torch
    from safetensors.torch import load

    document, content = (folder / "patch.json").read_bytes(), (folder / "patch.safetensors").read_bytes()
    patch = json.loads(document)
    if sha256(document) != digest or sha256(content) != patch["tensors_sha256"]:
        raise ValueError(f"the files in {folder} are not patch {digest}")
    tensors, expected = load(content), patch["provenance"].get("pre_image", {})
    by_parameter: dict[str, list[Any]] = {}
    for edit in patch["edits"]:
        by_parameter.setdefault(edit["parameter"], []).append(edit)
    for name, edits in by_parameter.items():
        weight = model.get_parameter(name).data
        if name in expected and tensor_digest(weight) != expected[name]:
            raise ValueError(f"{name} is not the tensor that patch {digest} was made for: this is another base")
        change = sum(delta(edit, {part: tensors[key] for part, key in edit["tensors"].items()}, weight) for edit in edits)
        with torch.no_grad():
            weight.copy_((weight.double() + change).to(weight.dtype))


def delta(edit: dict[str, Any], tensors: dict[str, Any], weight: Any) -> Any:
    """The change of one weight, float64, shaped like it."""
    import torch

    if edit["kind"] == "low_rank":
        return tensors["left"].double() @ tensors["right"].double()
    if edit["kind"] == "dense":
        return tensors["change"].double()
    if edit["kind"] == "scale":
        shape = [-1 if axis == edit["axis"] else 1 for axis in range(weight.ndim)]
        part = weight.index_select(edit["axis"], tensors["neurons"]).double() * (tensors["factor"].double() - 1).reshape(shape)
        return torch.zeros_like(weight, dtype=torch.float64).index_copy_(edit["axis"], tensors["neurons"], part)
    raise ValueError(f"this loader is older than edits of the kind {edit['kind']!r}")


def sha256(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def tensor_digest(tensor: Any) -> str:
    """SHA-256 over dtype, shape and bytes, as patches record it."""
    import torch

    head = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode()
    return sha256(head + tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


mlflow.models.set_model(EditedModel())
