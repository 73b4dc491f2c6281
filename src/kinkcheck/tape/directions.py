"""Which branches stay active along a direction: the choices of a limit.

A limit of gradients is the gradient under the branches that stay active when what is differentiated
moves along a direction (Nesterov 2005; Griewank 2013; Khan and Barton 2013, 2015). The tangents
that tell them go through the recorded program once, from the first operation to the last: a
backward pass is linear in the gradient that it starts from, and its own backward pass, its adjoint,
carries tangents forwards. No operation is carried out again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from kinkcheck.errors import InputError
from kinkcheck.interrupts import let_through


def direction(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Where tensors move: one normal draw an entry, from the seed, in their order.

    Drawn on the CPU in float64, so that a direction is the same in every precision but for its
    rounding, and on every device.

    >>> x = torch.zeros(2)
    >>> torch.equal(direction([x], 7)[0], direction([x.double()], 7)[0].float())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            each.shape,
            dtype=torch.complex128 if each.is_complex() else torch.float64,
            generator=generator,
        ).to(each)
        for each in tensors
    ]


def decide(loss: Tensor, tensors: Sequence[Tensor], seed: int) -> None:
    """Let sites where a limit is chosen see which branches stay active along a direction.

    Args:
        loss: a single number.
        tensors: what moves.
        seed: of the direction.

    Raises:
        InputError: an operation on the way has no forward mode that can be had from its backward
            pass.
    """
    start = torch.ones_like(loss, requires_grad=True)
    try:
        with let_through(), torch.enable_grad():
            gradients = _run(loss, start, tensors, create_graph=True)
            along = [
                (gradient.conj() * moved).real.sum()
                for gradient, moved in zip(gradients, direction(tensors, seed), strict=True)
                if gradient is not None and gradient.requires_grad
            ]
            if along:
                moved = sum(along[1:], along[0])
                _run(moved, torch.ones_like(moved), [start], create_graph=False)
    except RuntimeError as error:
        raise InputError(
            f"limit: the program cannot be differentiated in forward mode: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _run(
    of: Tensor, gradient: Tensor, inputs: Sequence[Tensor], create_graph: bool
) -> tuple[Tensor | None, ...]:
    # torch.autograd.grad would switch function modes off, which activation checkpointing needs on.
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        (of,), (gradient,), True, create_graph, tuple(inputs), True, accumulate_grad=False
    )
    return found
