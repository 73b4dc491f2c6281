"""A graph network that takes the greatest message of all neighbours: a maximum over indices.

Messages of equal nodes tie. PyTorch's ``scatter_reduce`` shares the gradient among them, which is
the choice of least norm, so that another one is asked for. Batches are objects of a class of one's
own::

    kinkcheck audit examples/graph_max.py:make --selection first
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, HIDDEN, CLASSES = 5, 16, 3


@dataclass
class Graph:
    """Nodes (n, FEATURES), edges (2, m) from a node to a node, and the class of each node (n,)."""

    nodes: Tensor
    edges: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Graph:
        return Graph(self.nodes.to(device), self.edges.to(device), self.labels.to(device))


class GreatestMessage(nn.Module):
    """Each node gets the greatest of its neighbours' messages, entry by entry."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.message = nn.Linear(inputs, outputs)
        self.own = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        sent = self.message(x)[source].relu()
        to = target[:, None].expand_as(sent)
        greatest = torch.zeros(len(x), sent.shape[1]).to(sent).scatter_reduce(0, to, sent, "amax")
        return self.own(x) + greatest


class Network(nn.Module):
    """Two rounds of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GreatestMessage(FEATURES, HIDDEN)
        self.second = GreatestMessage(HIDDEN, CLASSES)

    def forward(self, graph: Graph) -> Tensor:
        return self.second(self.first(graph.nodes, graph.edges).relu(), graph.edges)


def make() -> tuple[nn.Module, list[Graph], Callable[[nn.Module, Graph], Tensor]]:
    """The network, four random graphs of different sizes, and the step."""
    return Network(), [graph(nodes) for nodes in (6, 9, 12, 20)], step


def graph(nodes: int) -> Graph:
    """A ring with some more edges, and features of few values, so that messages tie."""
    ring = torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)])
    edges = torch.cat([ring, torch.randint(nodes, (2, nodes))], dim=1)
    features = torch.randint(2, (nodes, FEATURES)).float()
    return Graph(features, edges, torch.randint(CLASSES, (nodes,)))


def step(model: nn.Module, graph: Graph) -> Tensor:
    """The loss over the nodes of one graph."""
    graph = graph.to(next(model.parameters()).device)
    return F.cross_entropy(model(graph), graph.labels)
