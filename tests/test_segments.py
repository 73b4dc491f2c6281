"""Later backward passes give what a whole pass gives, bit for bit, and run less."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck import networks


class Count(torch.autograd.Function):
    """The identity, counting how often a gradient passes."""

    passed: list[str]

    @staticmethod
    def forward(ctx: object, x: Tensor, name: str) -> Tensor:
        ctx.name = name  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None]:
        Count.passed.append(ctx.name)  # type: ignore[attr-defined]
        return grads[0], None


def few_valued(*shape: int) -> Tensor:
    """Inputs drawn from few values, so that live ties abound."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 3, shape, generator=generator).float()


class Branching(nn.Module):
    """Two paths that meet, a shared weight, a tensor used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        met = F.max_pool2d(self.left(x), 2) + F.relu(F.max_pool2d(self.right(x), 2))
        first = F.max_pool2d(self.shared(met), 2)
        return F.max_pool2d(self.shared(first + first.relu()), 2)


def whole_pass(model: nn.Module, run: Callable[[], Tensor], choose: object) -> dict[str, Tensor]:
    """The first pass of a fresh tape is never cut short."""
    with kinkcheck.record(model) as tape:
        loss = run()
    return tape.gradient(loss, choose=choose)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [("lenet5", False), ("vgg9", True), ("resnet18", True), ("mlp", False), ("branching", False)],
)
def test_any_order_of_choices_gives_whole_passes(name: str, batch_norm: bool) -> None:
    torch.manual_seed(0)
    if name == "branching":
        model: nn.Module = Branching()
        images = few_valued(2, 2, 16, 16)
    else:
        model = networks.build(name, in_channels=2, classes=3, image_size=32, batch_norm=batch_norm)
        images = few_valued(2, 2, 32, 32)

    def run() -> Tensor:
        return model(images).square().sum()

    with kinkcheck.record(model) as tape:
        loss = run()
    choices = ["last", "native", "random:1", "last", "native"]
    for choose in choices:
        later, whole = tape.gradient(loss, choose=choose), whole_pass(model, run, choose)
        assert later.keys() == whole.keys()
        for key in whole:
            assert torch.equal(later[key], whole[key]), (choose, key)


def test_what_lies_above_the_first_difference_runs_once() -> None:
    torch.manual_seed(0)
    lower, upper = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3)
    nn.init.ones_(lower.weight)  # so that different pixels tie
    x = few_valued(1, 2, 12, 12)
    Count.passed = []
    with kinkcheck.record() as tape:
        pooled = F.max_pool2d(Count.apply(lower(x), "lower"), 2)
        loss = Count.apply(upper(pooled), "upper").square().sum()
    inputs = [*lower.parameters(), *upper.parameters()]
    native = tape.gradient(loss, inputs)
    last = tape.gradient(loss, inputs, choose="last")
    assert Count.passed == ["upper", "lower", "lower"]
    assert not torch.equal(native[0], last[0])


def test_dead_ties_cost_no_more_than_the_way_to_the_relu_that_blocks_them() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(1, 1, 3, 3))
    Count.passed = []
    with kinkcheck.record() as tape:
        image = -torch.ones(1, 1, 8, 8)
        active = F.relu(Count.apply(F.conv2d(image, weight), "below the ReLU"))
        loss = F.max_pool2d(active, 2).sum()
    for choose in ("native", "minimal", "last"):
        assert not tape.gradient(loss, [weight], choose=choose)[0].any()
    assert [site.tied for site in tape.sites if site.operation == "max_pool2d"] == [9]
    assert Count.passed == ["below the ReLU"]


def test_gradients_of_two_calls_share_no_memory() -> None:
    x = few_valued(1, 1, 8, 8).requires_grad_()
    with kinkcheck.record() as tape:
        loss = F.max_pool2d(x, 2).sum()
    (first,) = tape.gradient(loss, [x])
    expected = first.clone()
    first.zero_()
    assert torch.equal(tape.gradient(loss, [x])[0], expected)


def test_the_graph_is_freed_with_the_loss() -> None:
    import weakref

    x = few_valued(1, 1, 8, 8).requires_grad_()
    with kinkcheck.record() as tape:
        loss = F.max_pool2d(x, 2).sum()
    tape.gradient(loss, [x])
    node = weakref.ref(loss.grad_fn.next_functions[0][0])
    del loss
    assert node() is None
    assert tape.sites


def test_inputs_inside_the_graph_are_differentiated_too() -> None:
    x = few_valued(1, 1, 8, 8).requires_grad_()
    with kinkcheck.record() as tape:
        inside = 2 * x
        loss = F.max_pool2d(inside, 2).sum()
    for choose in ("native", "last", "native"):
        at_x, at_inside = tape.gradient(loss, [x, inside], choose=choose)
        assert torch.equal(at_x, 2 * at_inside)
        assert at_inside.sum() == 16
