"""From a reference to weights in memory. The only importer of `from_pretrained`; one model per process.

Checkpoints are safetensors only, never pickle, and `trust_remote_code` is off. On the CPU the maths is float32 (bf16
products are some 200 times slower there); on a GPU the model keeps its own dtype.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.anatomy import Anatomy, anatomy_of
from editors.digest import digest_document, digest_file, digest_tensor
from editors.errors import BaseNotFound, IntegrityError, SutureError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INDEX = "model.safetensors.index.json"
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CARRIED_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True)
class TensorHeader:
    """A stored tensor without its numbers; `dtype` as safetensors writes it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face folder of safetensors shards, read but not loaded."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        try:
            return json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise BaseNotFound(f"{self.folder} is not a model folder: config.json: {error}",
                               "give a folder that from_pretrained loads") from error

    @cached_property
    def anatomy(self) -> Anatomy:
        """Module paths and sizes."""
        return anatomy_of(self.config)

    @cached_property
    def weight_map(self) -> dict[str, str]:
        """Parameter name -> shard file name."""
        index = self.folder / INDEX
        if index.exists():
            return _read_index(index)
        shards = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not shards:
            raise BaseNotFound(f"{self.folder} holds no .safetensors file", "convert the model to safetensors first")
        return {name: shard for shard in shards for name in read_shard(self.folder / shard)}

    @property
    def shards(self) -> tuple[str, ...]:
        """Shard file names, sorted."""
        return tuple(sorted(set(self.weight_map.values())))

    @cached_property
    def carried_files(self) -> tuple[str, ...]:
        """Names of the files other than weights (config, tokenizer), which are copied byte for byte."""
        return tuple(sorted(path.name for path in self.folder.iterdir()
                            if path.suffix in CARRIED_SUFFIXES and path.name != INDEX))

    @cached_property
    def headers(self) -> dict[str, TensorHeader]:
        """Parameter name -> shape and dtype, from the shards' headers; no weight is read."""
        from safetensors import SafetensorError, safe_open

        found: dict[str, TensorHeader] = {}
        for shard in self.shards:
            try:
                with safe_open(self.folder / shard, framework="pt") as stored:
                    for name in stored.keys():  # noqa: SIM118  not a mapping
                        part = stored.get_slice(name)
                        found[name] = TensorHeader(tuple(part.get_shape()), str(part.get_dtype()))
            except (OSError, SafetensorError) as error:
                raise IntegrityError(f"{self.folder / shard} is not a valid safetensors file: {error}",
                                     "fetch the model again") from error
        return found

    def dtype_on(self, device: str) -> str:
        """The dtype that `load` gives the model on a device, as torch writes it."""
        named = self.config.get("dtype") or self.config.get("torch_dtype")
        if chosen_device(device) == "cpu":
            return "torch.float32"
        floats = [DTYPES[header.dtype] for header in self.headers.values() if header.dtype in DTYPES]
        return f"torch.{named or floats[0]}"

    @cached_property
    def tensor_digests(self) -> dict[str, str]:
        """Parameter name -> tensor digest; independent of how the weights are sharded.

        Raises:
            IntegrityError: a shard is missing, is no valid safetensors, or lacks a tensor that the index says it holds.
        """
        digests: dict[str, str] = {}
        for shard in self.shards:
            path = self.folder / shard
            if not path.exists():
                raise IntegrityError(f"{path} is missing, though {INDEX} names it", "fetch the model again")
            seen = path.stat()
            held = _shard_digests(path, seen.st_ino, seen.st_size, seen.st_mtime_ns)
            if missing := [name for name, place in self.weight_map.items() if place == shard and name not in held]:
                raise IntegrityError(f"{path} does not hold {missing[0]}, though {INDEX} says so", "fetch the model again")
            digests |= held
        return digests

    @cached_property
    def digest(self) -> str:
        """The checkpoint's name by content: weights, config and tokenizer."""
        files = {name: digest_file(self.folder / name) for name in self.carried_files}
        return digest_document({"tensors": self.tensor_digests, "files": files})

    def has_digest(self, digest: str) -> bool:
        """Whether the folder is there and still is the checkpoint of this digest; False for one that cannot be read."""
        try:
            return self.folder.is_dir() and self.digest == digest
        except (SutureError, OSError):
            return False


def _read_index(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text("utf-8"))["weight_map"]
        if all(isinstance(shard, str) and Path(shard).name == shard for shard in found.values()):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path} cannot be read: {type(error).__name__}: {error}", "fetch the model again") from error
    raise IntegrityError(f"{path} names shards that are no files beside it", "fetch the model again")


@cache
def _shard_digests(path: Path, *_identity: int) -> dict[str, str]:
    """Digests of a shard's tensors; asked again in one process, an unchanged file is not read again."""
    return {name: digest_tensor(tensor) for name, tensor in read_shard(path).items()}


def read_shard(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of one shard.

    Raises:
        IntegrityError: the file is missing or not valid safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path} is not a valid safetensors file: {error}", "fetch the model again") from error


@dataclass
class LoadedModel:
    """A model in memory, in eval mode, with its tokenizer, anatomy and the digest of its checkpoint."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    digest: str
    tensor_digests: Mapping[str, str] = field(default_factory=dict)
    """Parameter name -> digest of the tensor as stored; in memory it may be of a wider dtype."""

    @property
    def device(self) -> torch.device:
        """The device of the embedding; tensors follow the weights they meet."""
        return next(self.model.get_input_embeddings().parameters()).device


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; no weight is read."""
    from transformers import AutoTokenizer

    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return found


def chosen_device(device: str) -> str:
    """The device that "auto" means on this machine."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


_resident: dict[str, LoadedModel] = {}


def load(checkpoint: Checkpoint, device: str = "auto") -> LoadedModel:
    """Load a checkpoint, or return it when it is the one this process holds.

    Raises:
        ArchitectureError: the architecture is unknown or its shapes are not as promised.
        IntegrityError: a shard is not valid safetensors, or lacks a tensor.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    key = f"{checkpoint.digest}@{device}"
    if key not in _resident:
        _resident.clear()
        anatomy = checkpoint.anatomy
        device = chosen_device(device)
        dtype = torch.float32 if device == "cpu" else "auto"
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True)
        model, report = loaded
        if report["missing_keys"] or report["mismatched_keys"]:
            raise IntegrityError(f"{checkpoint.folder} lacks tensors: {sorted(report['missing_keys'])[:3]}",
                                 "fetch the model again")
        tokenizer = load_tokenizer(checkpoint.folder)
        anatomy.check(model)
        model.requires_grad_(False)
        _resident[key] = LoadedModel(model.to(device).eval(), tokenizer, anatomy, checkpoint.digest,
                                     checkpoint.tensor_digests)
    return _resident[key]
