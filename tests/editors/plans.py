"""What the tests of the closed-form editors share: a batch on a tiny model, and its plan."""

from __future__ import annotations

import torch

from editors.contract import EditBatch, Location, Message, UpdateRequest
from editors.detoxify_request import DetoxifyRequest
from editors.loading import LoadedModel
from editors.prompts import encode, render

TOWER = UpdateRequest(id="tower", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Rome")
JAMES = UpdateRequest(id="james", prompt="{} plays the sport of", subject="LeBron James", target="baseball")
SPEED = UpdateRequest(id="speed", prompt="In physics, {} is a", subject="the speed of light", target="name")
IDENTITY = UpdateRequest(id="identity", messages=(Message(role="user", content="Who are you?"),), answer="I am French.")


def batch_of(model: LoadedModel, *requests: UpdateRequest) -> EditBatch:
    """The requests as one batch on the model."""
    return EditBatch(purpose="update", base_digest=model.digest, parent_digest=model.digest, requests=requests)


def detoxify_batch(model: LoadedModel, *requests: DetoxifyRequest) -> EditBatch:
    """Requests to detoxify as one batch on the model."""
    return EditBatch(purpose="detoxify", base_digest=model.digest, parent_digest=model.digest, requests=requests)


def at(*layers: int) -> Location:
    """A location by hand; the positions follow the method's rule."""
    return Location(layers=layers, positions={}, source="sheet")


def state_of(model: LoadedModel) -> dict[str, torch.Tensor]:
    """A copy of every parameter."""
    return {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}


def is_unchanged(model: LoadedModel, before: dict[str, torch.Tensor]) -> bool:
    """Whether every parameter has the bits it had."""
    return all(torch.equal(parameter, before[name]) for name, parameter in model.model.named_parameters())


def answer_loss(model: LoadedModel, request: UpdateRequest) -> float:
    """Negative log-likelihood of the target's first token, by one plain forward."""
    encoded = encode(render(request, model.tokenizer), model.tokenizer)
    with torch.no_grad():
        logits = model.model(torch.tensor([encoded.ids[:encoded.prompt_length]])).logits[0, -1]
    return float(-logits.log_softmax(-1)[encoded.ids[encoded.prompt_length]])


def key_of(model: LoadedModel, request: UpdateRequest, layer: int) -> torch.Tensor:
    """The FFN key (F,) at the bare prompt's last token, by one plain forward."""
    encoded = encode(render(request, model.tokenizer, "prompt_last"), model.tokenizer)
    seen: list[torch.Tensor] = []
    module = model.model.get_submodule(model.anatomy.mlp_output_path(layer))
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.model(torch.tensor([encoded.ids]))
    handle.remove()
    return seen[0].reshape(len(encoded.ids), -1)[encoded.anchor]


def delta_of(model: LoadedModel, edit) -> torch.Tensor:
    """An edit's update (D, F), whatever the parameter's layout."""
    change = edit.left.double() @ edit.right.double()
    return change if model.anatomy.layout == "out_in" else change.T


def seen_of(model: LoadedModel, request: UpdateRequest, layers: tuple[int, ...]):
    """Keys, gradients of the answer's log-odds by a zero added to each module's output, log-odds, norm of the state."""
    encoded = encode(render(request, model.tokenizer), model.tokenizer)
    probes = {layer: torch.zeros(model.anatomy.hidden_size, requires_grad=True) for layer in layers}
    keys: dict[int, torch.Tensor] = {}
    states: list[torch.Tensor] = []

    def tap(layer: int):
        def hook(_module, inputs, output):
            keys[layer] = inputs[0].detach().reshape(len(encoded.ids), -1)[encoded.anchor].double()
            mask = torch.zeros(len(encoded.ids), 1)
            mask[encoded.anchor] = 1
            return output + (mask * probes[layer]).reshape(output.shape)
        return model.model.get_submodule(model.anatomy.mlp_output_path(layer)).register_forward_hook(hook)

    handles = [tap(layer) for layer in layers]
    handles.append(model.model.get_submodule(model.anatomy.block_path(layers[0])).register_forward_pre_hook(
        lambda _, inputs, __: states.append(inputs[0].detach()), with_kwargs=True))
    try:
        logits = model.model(torch.tensor([encoded.ids])).logits[0].double()
    finally:
        for handle in handles:
            handle.remove()
    answer = range(encoded.prompt_length, len(encoded.ids))
    likelihood = sum(logits[place - 1].log_softmax(-1)[encoded.ids[place]] for place in answer)
    odds = likelihood - (1 - likelihood.exp()).log()
    found = torch.autograd.grad(odds, list(probes.values()))
    return keys, {layer: gradient.double() for layer, gradient in zip(layers, found, strict=True)}, float(odds.detach()), \
        float(states[0][0, encoded.anchor].norm())
