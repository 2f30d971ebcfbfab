"""A registered version serves its edits where this package is not installed."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editors.patch import Dense, LowRank, Patch, Scale, edited_tensor
from tests.servers import ask, free_port, serving
from tests.tasks.registry import DOWN, NAME, Registry, outside
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow


SERVE = """
import json, sys, mlflow
from safetensors.torch import save_file
served = mlflow.pyfunc.load_model(sys.argv[1], model_config=json.loads(sys.argv[2]))
inner = served.unwrap_python_model()
ids = inner.tokenizer("The Louvre is in", return_tensors="pt").input_ids
save_file({"logits": inner.model(ids).logits.contiguous()}, "logits.safetensors")
answers = [served.predict(["The Louvre is in", "Hi"], params=given) for given in ({"max_new_tokens": 3}, {"chat": True})]
print(json.dumps({"answers": answers, "ours": sorted({"editors", "tasks", "validations"} & set(sys.modules))}))
"""


def test_a_version_serves_its_edits_in_a_fresh_process(registry: Registry, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    registry.register(registry.first)
    registry.register(registry.second)
    done = outside(SERVE, registry, tmp_path, f"models:/{NAME}@candidate", "{}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(registry.second_folder)
    model = AutoModelForCausalLM.from_pretrained(registry.second_folder)
    ids = tokenizer("The Louvre is in", return_tensors="pt").input_ids
    assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], model(ids).logits)
    continuation = model.generate(ids, do_sample=False, max_new_tokens=3)[0, ids.shape[1]:]
    assert report["answers"][0][0] == tokenizer.decode(continuation, skip_special_tokens=True)
    assert len(report["answers"][1]) == 2
    assert report["ours"] == []


def test_mlflow_serves_a_version_over_http(registry: Registry, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    version = registry.register(registry.second)
    port = free_port()
    options = ["-m", version.uri, "--env-manager", "local", "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "models", "serve", *options]
    # MLflow looks for uvicorn on the path, as an activated environment has it
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.uri, "PYTHONPATH": "",
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with serving(command, environment, tmp_path, f"http://127.0.0.1:{port}/ping"):
        address = f"http://127.0.0.1:{port}/invocations"
        answer = ask(address, {"inputs": ["The Louvre is in"], "params": {"max_new_tokens": 3}})
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, {"inputs": ["The Louvre is in"], "params": {"max_new_tokens": "many"}})
    tokenizer = AutoTokenizer.from_pretrained(registry.second_folder)
    ids = tokenizer("The Louvre is in", return_tensors="pt").input_ids
    said = AutoModelForCausalLM.from_pretrained(registry.second_folder).generate(ids, do_sample=False, max_new_tokens=3)
    assert answer == {"predictions": [tokenizer.decode(said[0, ids.shape[1]:], skip_special_tokens=True)]}
    assert refused.value.code == 400


def test_another_base_is_refused_when_it_has_other_weights(registry: Registry, tmp_path: Path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    uri = registry.register(registry.second).uri
    other, same = tiny_folder(tmp_path / "other", seed=7), tiny_folder(tmp_path / "same")
    with pytest.raises(ValueError, match="is not the tensor that patch"):
        mlflow.pyfunc.load_model(uri, model_config={"base": str(other)})
    with pytest.raises(FileNotFoundError, match=r"the base tiny-base is not at /gone .* \(suture pull --base tiny-base DIR\)"):
        mlflow.pyfunc.load_model(uri, model_config={"base": "/gone"})
    assert mlflow.pyfunc.load_model(uri, model_config={"base": str(same)}).predict(["Hi"], params={"max_new_tokens": 1})


def test_an_altered_patch_is_not_served(registry: Registry, tmp_path: Path):
    import shutil

    from tasks.serving import apply_patch
    from tests.tiny import tiny_model

    model, digest = tiny_model(), registry.first.candidate.stack[0].digest
    shutil.copytree(registry.first.patches[0], tmp_path / "patch")
    apply_patch(model, tmp_path / "patch", digest)
    weights = tmp_path / "patch" / "patch.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=f"are not patch {digest}"):
        apply_patch(tiny_model(), tmp_path / "patch", digest)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_served_file_applies_patches_as_the_house_does(family: str, tmp_path: Path):
    from tasks.serving import apply_patch
    from tests.tiny import tiny_model

    model, draw = tiny_model(family), torch.Generator().manual_seed(3)
    name = DOWN[0] if family == "llama" else "transformer.h.0.mlp.c_proj.weight"
    weight = model.get_parameter(name).data
    rows, columns = weight.shape
    patch = Patch((LowRank(name, torch.randn(rows, 2, generator=draw), torch.randn(2, columns, generator=draw)),
                   Dense(name, torch.randn(rows, columns, generator=draw)),
                   Scale(name, torch.tensor([3, 1]), torch.tensor([0.5, 2.0]), axis=1)))
    expected = edited_tensor(name, weight.clone(), [patch])
    apply_patch(model, tmp_path, patch.save(tmp_path))
    assert torch.equal(model.get_parameter(name), expected)
