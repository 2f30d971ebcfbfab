"""Many continuations of one text in a single pass: a tree of tokens whose paths share what they have in common.

A text with a secret and 64 other values after it is one sequence, in which each token sees its own ancestors only and
stands at the position of its depth. Whatever values begin alike is run once, and every logarithm is that of a plain
run of the path alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from editors.loading import LoadedModel

TREE_TOKENS = 1024
"""Tokens of one pass, padding included."""
HEAD_READS = 256
"""Positions whose logits are alive at once."""


@dataclass(frozen=True)
class Path:
    """One continuation. `ids[start:]` is what is scored; the text before it is only read."""

    ids: tuple[int, ...] = field(repr=False)
    start: int

    def __post_init__(self) -> None:
        if not 0 < self.start < len(self.ids):
            raise ValueError(f"start must be in [1, {len(self.ids) - 1}], got {self.start}")


@dataclass(frozen=True)
class TokenTree:
    """Nodes are the tokens that a model reads, parents before children; private like the texts that it was made of.

    `edges[p]` are (node, next token) of each scored token of path p.
    """

    tokens: tuple[int, ...] = field(repr=False)
    parents: tuple[int, ...]
    """Index of the node before; -1 for the first."""
    depths: tuple[int, ...]
    edges: tuple[tuple[tuple[int, int], ...], ...] = field(repr=False)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> TokenTree:
        """The tree of the paths, in their order; a path's last token is no node, nothing is read after it."""
        nodes: dict[tuple[int, int], int] = {}
        edges: list[tuple[tuple[int, int], ...]] = []
        tokens, parents, depths = list[int](), list[int](), list[int]()
        for path in paths:
            node, scored = -1, list[tuple[int, int]]()
            for depth, token in enumerate(path.ids):
                if depth >= path.start:
                    scored.append((node, token))
                if depth == len(path.ids) - 1:
                    break
                if (node, token) not in nodes:
                    nodes[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    depths.append(depth)
                node = nodes[node, token]
            edges.append(tuple(scored))
        return cls(tuple(tokens), tuple(parents), tuple(depths), tuple(edges))

    @property
    def size(self) -> int:
        """Nodes."""
        return len(self.tokens)

    def visible(self) -> Tensor:
        """(nodes, nodes) bool: row i sees its ancestors and itself."""
        seen = torch.eye(self.size, dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass(frozen=True)
class Forest:
    """Trees that run together, padded on the right. `inputs` are the arguments of the model's body."""

    inputs: dict[str, Any] = field(repr=False)
    read_tree: Tensor
    """(Q,) the tree of each node that is read; `read_node` (Q,) its place there."""
    read_node: Tensor
    edge_read: Tensor
    """(E,) which read each scored token belongs to; `edge_token` (E,) the token; `edge_path` (E,) its path, counted
    through all trees."""
    edge_token: Tensor = field(repr=False)
    edge_path: Tensor
    path_count: int


def forest_of(model: LoadedModel, trees: Sequence[TokenTree]) -> Forest:
    """The trees as one batch for this model."""
    width, device = max(tree.size for tree in trees), model.device
    ids, positions = torch.zeros(len(trees), width, dtype=torch.int64), torch.zeros(len(trees), width, dtype=torch.int64)
    # padding sees itself, so that no row of the softmax is empty
    seen = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)
    for number, tree in enumerate(trees):
        ids[number, :tree.size], positions[number, :tree.size] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
        seen[number, :tree.size, :tree.size] = tree.visible()
    dtype = model.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    scored = [(number, node, token, path) for path, (number, edges) in enumerate(
        (number, edges) for number, tree in enumerate(trees) for edges in tree.edges) for node, token in edges]
    reads = {read: place for place, read in enumerate(dict.fromkeys((number, node) for number, node, _, _ in scored))}
    read_tree, read_node = torch.tensor(list(reads), device=device).T
    edge = torch.tensor([(reads[number, node], token, path) for number, node, token, path in scored], device=device).T
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "position_ids": positions.to(device),
              "use_cache": False}
    return Forest(inputs, read_tree, read_node, edge[0], edge[1], edge[2], sum(len(tree.edges) for tree in trees))


@dataclass(frozen=True)
class PathScore:
    """log P of one path's scored tokens, in nats, and whether each of them is the model's first choice."""

    logarithm: float
    is_first_choice: bool


@torch.no_grad()
def scores(model: LoadedModel, trees: Sequence[TokenTree], token_budget: int = TREE_TOKENS) -> list[list[PathScore]]:
    """Score every path of every tree under the weights as they are."""
    found: dict[int, list[PathScore]] = {}
    for group in grouped_trees(trees, token_budget):
        forest = forest_of(model, [trees[number] for number in group])
        edges, firsts = edge_logarithms(model, forest)
        empty = torch.zeros(forest.path_count, dtype=torch.float64, device=edges.device)
        totals = empty.index_add(0, forest.edge_path, edges.double())
        missed = empty.index_add(0, forest.edge_path, (~firsts).double())
        values = iter([PathScore(total, miss == 0) for total, miss in zip(totals.tolist(), missed.tolist(), strict=True)])
        for number in group:
            found[number] = [next(values) for _ in trees[number].edges]
    return [found[number] for number in range(len(trees))]


def edge_logarithms(model: LoadedModel, forest: Forest) -> tuple[Tensor, Tensor]:
    """Log P (E,) float32 of each scored token, with its graph where grad is on, and whether (E,) it is the first choice."""
    body = model.model.get_submodule(model.anatomy.body)
    states = body(**forest.inputs).last_hidden_state[forest.read_tree, forest.read_node]
    logarithms, firsts = torch.zeros(len(forest.edge_read), device=states.device), torch.zeros_like(forest.edge_read) > 0
    head, cap = model.model.get_output_embeddings(), getattr(model.model.config, "final_logit_softcapping", None)
    for first in range(0, len(states), HEAD_READS):
        logits = head(states[first:first + HEAD_READS]).float()
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        here = ((forest.edge_read >= first) & (forest.edge_read < first + HEAD_READS)).nonzero()[:, 0]
        reads, tokens = forest.edge_read[here] - first, forest.edge_token[here]
        chosen = logits[reads, tokens]
        logarithms = logarithms.index_add(0, here, chosen - logits.logsumexp(-1)[reads])
        firsts = firsts.index_copy(0, here, logits.argmax(-1)[reads] == tokens)
    return logarithms, firsts


def grouped_trees(trees: Sequence[TokenTree], budget: int) -> Iterator[list[int]]:
    """Indices of like trees, in groups that padded to their largest hold at most `budget` tokens; one alone may hold more."""
    group: list[int] = []
    for number in sorted(range(len(trees)), key=lambda number: trees[number].size):
        if group and trees[number].size * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
