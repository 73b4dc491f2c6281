"""The standing of gradients against all limits, enumerated over the rationals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from germs import limits, straight
from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Forward
from kinkcheck.measure.standing import (
    Kind,
    Program,
    Search,
    Standing,
    cones,
    smooth,
    standings,
    told,
    verify,
)
from kinkcheck.measure.standing.conditions import conditions

SELECTIONS = ("native", "minimal", "last", "random:1", "hybrid:10", "branch:0.5")


class Point:
    """A program at a point, and what is found of it."""

    def __init__(self, model: nn.Module, run: Callable[[], Tensor], seed: int = 0) -> None:
        self.forward = Forward(model, run)
        self.program = Program(self.forward, seed, lambda: Forward(model, run))
        self.search = Search(self.program, budget=1024)

    def standing(self, choose: str) -> Standing:
        return self.search.standing(choose, self.forward.gradient(choose))

    def gradient(self, choose: str) -> NDArray[np.float64]:
        found = self.forward.gradient(choose).values()
        return torch.cat([each.double().flatten() for each in found]).numpy()

    def verified(self, choose: str, standing: Standing) -> list[str]:
        return verify(self.program, standing, choose, self.forward.gradient(choose))


def of(function: Callable[[Tensor], Tensor], *at: float) -> Point:
    """A function of one tensor at a point."""
    model = nn.Module()
    model.x = nn.Parameter(torch.tensor(at, dtype=torch.float64))
    return Point(model, lambda: function(model.x))


def distance(points: NDArray[np.float64], to: NDArray[np.float64]) -> float:
    """How far a convex combination of points is from another one at least, in the ∞-norm."""
    count, size = points.shape
    one = np.ones((size, 1))
    found = linprog(
        np.append(np.zeros(count), 1.0),
        A_ub=np.vstack([np.hstack([points.T, -one]), np.hstack([-points.T, -one])]),
        b_ub=np.concatenate([to, -to]),
        A_eq=np.append(np.ones(count), 0.0)[None],
        b_eq=[1.0],
    )
    assert found.status == 0
    return float(found.fun)


def agrees(kind: Kind, points: NDArray[np.float64], gradient: NDArray[np.float64]) -> bool:
    """Whether a standing is true, given all limits."""
    is_limit = np.abs(points - gradient).max(1).min() < 1e-6
    match kind:
        case Kind.DERIVATIVE:
            return len(points) == 1 and is_limit
        case Kind.LIMIT:
            return is_limit
        case Kind.SUBGRADIENT:
            return distance(points, gradient) < 1e-6
        case Kind.WRONG:
            return distance(points, gradient) > 1e-6
    return True


def judged(seeds: Iterable[int], products: bool) -> Iterator[tuple[int, str, Point, Standing]]:
    """Random programs, and the standing of each of their gradients."""
    for seed in seeds:
        model = straight(seed, products).module()
        point = Point(model, model)
        for choose in SELECTIONS:
            try:
                standing = point.standing(choose)
            except InputError:  # no operation there has this selection
                continue
            yield seed, choose, point, standing


def compare(seeds: Iterable[int], products: bool = False) -> Counter[Kind]:
    """Judge gradients of programs; none may be in disagreement with all limits."""
    found: Counter[Kind] = Counter()
    for seed, choose, point, standing in judged(seeds, products):
        program = straight(seed, products)
        points = np.array([[float(x) for x in row] for row in limits(program.exact)])
        gradient = point.gradient(choose)
        told = f"{seed}, {choose}: {standing}\nlimits {points}, gradient {gradient}\n{program}"
        assert agrees(standing.kind, points, gradient), told
        found[standing.kind] += 1
    assert min(found[kind] for kind in Kind if kind is not Kind.UNDECIDED) > 0
    return found


def test_standings_agree_with_all_limits() -> None:
    found = compare([*range(10), 48])  # 48: all limits are found after some were pulled back
    assert found[Kind.UNDECIDED] <= 0.05 * found.total()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10, 600, 118))
def test_standings_of_many_programs_agree_with_all_limits(first: int) -> None:
    found = compare(range(first, first + 118))
    assert found[Kind.UNDECIDED] <= 0.05 * found.total()


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 75])
def test_standings_of_products_agree_with_limits_along_directions(first: int) -> None:
    """There may be more limits: see the test of curves."""
    found = compare(range(first, first + 75), products=True)
    assert found[Kind.UNDECIDED] <= 0.05 * found.total()


@pytest.mark.parametrize(
    "seeds", [range(8), pytest.param(range(8, 60), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_certificates_are_verified(seeds: range) -> None:
    for seed, choose, point, standing in judged(seeds, products=False):
        assert point.verified(choose, standing) == [], (seed, choose, standing)


def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def zero(t: Tensor) -> Tensor:
    entries = t * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    return entries.max(0).values - entries.amax()


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], str, Kind]] = {
    "zero": (zero, "native", Kind.WRONG),
    "zero of max pooling": (
        lambda t: zero(t) * 0 + F.max_pool1d(t.repeat(1, 3) * torch.arange(1, 4), 3).sum()
        - (t * torch.arange(1, 4)).amax(),
        "native",
        Kind.WRONG,
    ),
    "identity": (lambda x: (relu(x) - relu(-x)).sum(), "native", Kind.WRONG),
    "identity, halves": (lambda x: (relu(x) - relu(-x)).sum(), "branch:0.5", Kind.LIMIT),
    "identity, in place": (
        lambda x: (torch.relu_(x * 1) - torch.relu_(-x)).sum(), "native", Kind.WRONG
    ),
    "identity, checkpointed": (
        lambda x: checkpoint(lambda y: (relu(y) - relu(-y)).sum(), x, use_reentrant=False),
        "native",
        Kind.WRONG,
    ),
    "identity, two views": (lambda x: (relu(x[:]) - relu(-x.view(-1))).sum(), "last", Kind.WRONG),
    "leaky, clamps": (
        lambda x: (x.clamp(min=0) + 0.1 * x.clamp(max=0)).sum(), "minimal", Kind.WRONG
    ),
    "leaky, relus": (lambda x: (relu(x) - 0.1 * relu(-x)).sum(), "native", Kind.WRONG),
    "leaky, relus, last": (lambda x: (relu(x) - 0.1 * relu(-x)).sum(), "last", Kind.WRONG),
    "leaky": (lambda x: F.leaky_relu(x, 0.1).sum(), "native", Kind.LIMIT),
    "leaky, maximum": (
        lambda x: (torch.maximum(x, 0 * x) + 0.1 * torch.minimum(x, 0 * x)).sum(),
        "native",
        Kind.SUBGRADIENT,
    ),
    "outside of a side": (lambda x: relu(x).sum(), "branch:2", Kind.WRONG),
    "norm": (lambda x: torch.linalg.vector_norm(x), "native", Kind.SUBGRADIENT),
    "norm of one number, in relu": (lambda x: relu(x.norm()), "minimal", Kind.SUBGRADIENT),
    "1-norm": (lambda x: torch.linalg.vector_norm(x, 1), "branch:2", Kind.WRONG),
    "complex": (lambda x: torch.complex(x, 0 * x).abs().sum(), "native", Kind.SUBGRADIENT),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str) -> None:
    function, choose, kind = SPELLINGS[name]
    point = of(function, 0.0)
    standing = point.standing(choose)
    assert standing.kind is kind, standing
    assert point.verified(choose, standing) == []


@pytest.mark.parametrize(
    ("choose", "kind"), [("native", Kind.WRONG), ("minimal", Kind.SUBGRADIENT)]
)
def test_largest_distances_at_a_tie(choose: str, kind: Kind) -> None:
    """PyTorch's derivative is (1, 1) there, at which it cannot be differentiated itself."""
    point = of(lambda x: torch.cdist(x[None], 0 * x[None], torch.inf).sum(), 1.0, 1.0)
    assert list(point.gradient("native")) == [1.0, 1.0]
    assert point.standing(choose).kind is kind


CURVES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "parabola": (lambda x: relu(torch.minimum(x[0], x[1] ** 2 - x[0])), 2),
    "saddle": (lambda x: relu(torch.minimum(x[0], x[1] * x[2] - x[0])), 3),
    "three kinks": (
        lambda x: relu(torch.minimum(torch.minimum(x[0], x[1]), x[2] ** 2 - x[0] - x[1])), 3
    ),
    "dead": (lambda x: relu(torch.minimum(x[0], relu(x[1]) * x[2] - x[0])), 3),
    "exponential": (lambda x: relu(torch.minimum(x[0], x[1].exp() - 1 - x[1] - x[0])), 2),
    "quartic": (lambda x: relu(torch.minimum(x[0], x[1] ** 4 - x[0])), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CURVES)
def test_limits_that_only_curvature_reaches_are_not_called_wrong(name: str) -> None:
    """The last branch is active at nearby points, though along no direction."""
    function, count = CURVES[name]
    point = of(function, *[0.0] * count)
    gradient = point.gradient("last")
    random = np.random.default_rng(0)
    at = random.uniform(0, 1, (2000, count)) * np.where(np.arange(count) < count - 1, 1e-5, 1e-1)
    if name in ("saddle", "dead"):
        at[:, 1] = 1e-1 * random.uniform(0, 1, 2000)
    near = [torch.autograd.functional.vjp(function, torch.tensor(each))[1].numpy() for each in at]
    assert min(np.abs(each - gradient).max() for each in near) < 0.25  # a limit indeed
    standing = point.standing("last")
    assert standing.kind is Kind.UNDECIDED
    assert "first order" in str(standing.why)


def test_without_another_run_dependent_kinks_are_undecided() -> None:
    point = of(lambda x: (relu(x) - relu(-x)).sum(), 0.0)
    search = Search(Program(point.forward))
    standing = search.standing("native", point.forward.gradient("native"))
    assert standing.kind is Kind.UNDECIDED


def test_parameters_are_put_back() -> None:
    at = (0.1, -0.0, 1e-300, 3.0)
    point = of(lambda x: (relu(x - x.detach()) - relu(x.detach() - x)).sum(), *at)
    parameter = point.forward.model.x
    version = parameter._version
    assert point.standing("native").kind is Kind.WRONG
    assert parameter.detach().numpy().tobytes() == np.array(at).tobytes()
    assert parameter._version == version


def test_kinks_of_different_sizes() -> None:
    sizes = torch.tensor([1.0, 1e-12], dtype=torch.float64)
    point = of(lambda x: (relu(x * sizes) / sizes).sum(), 0.0, 0.0)
    assert (point.search.census.kinks, point.standing("native").kind) == (2, Kind.LIMIT)


def test_kinks_too_near_to_each_other_are_undecided() -> None:
    """Between the kinks of x and of x + 10⁻⁹y is a limit (1, 10⁻⁹), which no search can see."""
    for size in (1e-6, 1e-8, 1e-10):
        point = of(lambda x, size=size: relu(x[0] + size * x[1]) - relu(x[0]), 0.0, 0.0)
        gradient = {"x": torch.tensor([1.0, size], dtype=torch.float64)}
        standing = point.search.standing({point.forward.tape.sites[1]: "last"}, gradient)
        assert standing.kind in (Kind.UNDECIDED, Kind.LIMIT)


@pytest.mark.parametrize("status", [1, 2, 3, 4])
def test_linear_programs_that_are_not_solved_decide_nothing(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = of(lambda x: (relu(x) - relu(-x)).sum(), 0.0, 0.0)
    monkeypatch.setattr(cones, "linprog", lambda *_, **__: SimpleNamespace(status=status, x=None))
    standing = point.standing("native")
    assert standing.kind is Kind.UNDECIDED
    assert "not solved" in str(standing.why)


def test_tangents_that_are_not_finite_decide_nothing() -> None:
    with pytest.raises(cones.UntoldError, match="finite"):
        cones.distinct(np.array([[1.0, 0.0], [np.nan, 1.0]]))
    point = of(lambda x: relu(x).sqrt().sum(), 0.0)
    assert point.standing("last").kind is Kind.UNDECIDED


@pytest.mark.parametrize("choose", ["native", "last", "random:1", "branch:0.25"])
def test_many_independent_kinks(choose: str) -> None:
    """More than there could be directions in a large program."""
    point = of(lambda x: relu(x).sum(), *[0.0] * 100)
    kind = Kind.SUBGRADIENT if choose == "branch:0.25" else Kind.LIMIT
    standing = point.standing(choose)
    assert (standing.kind, standing.kinks) == (kind, 100)
    assert point.verified(choose, standing) == []


Build = Callable[[Tensor], Tensor]
MANY: dict[str, tuple[Build, int, str, Kind]] = {
    "rectified": (lambda x: relu(x).sum(), 4096, "native", Kind.LIMIT),
    "rectified halves": (lambda x: relu(x).sum(), 4096, "branch:0.5", Kind.SUBGRADIENT),
    "largest of all": (lambda x: x.amax(), 100, "native", Kind.SUBGRADIENT),
    "median": (lambda x: x.view(16, 5).median(1).values.sum(), 80, "native", Kind.LIMIT),
    "median, shared": (lambda x: x.view(2, 6).median(1).values.sum(), 12, "minimal",
                       Kind.SUBGRADIENT),
    "least but one": (lambda x: x.view(3, 4).kthvalue(2, 1).values.sum(), 12, "last", Kind.LIMIT),
    "order": (lambda x: (x.view(8, 8).sort(1).values * torch.arange(8)).sum(), 64, "last",
              Kind.LIMIT),
    "largest of each": (lambda x: (x.view(6, 8).topk(3, 1).values * torch.arange(3)).sum(), 48,
                        "native", Kind.LIMIT),
    "largest of the largest": (
        lambda x: torch.maximum(x.view(5, 3)[:, :2].amax(1), x.view(5, 3)[:, 2]).sum(),
        15, "minimal", Kind.SUBGRADIENT),
    "bags": (lambda x: relu(F.embedding_bag(
        torch.tensor([0, 1, 2, 3, 0, 2]), x.view(4, 5), torch.tensor([0, 3]), mode="max")).sum(),
        20, "last", Kind.LIMIT),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_many_choices_are_certified_at_once(name: str) -> None:
    """Each is a choice of one branch a kink, or their mean, and kinks meet in no entry."""
    function, count, choose, kind = MANY[name]
    point = of(function, *[0.0] * count)
    standing = point.standing(choose)
    assert standing.kind is kind, standing
    assert point.verified(choose, standing) == []


def test_a_direction_that_was_pulled_back_is_verified() -> None:
    point = of(lambda x: relu(x).sum(), *[0.0] * 4096)
    standing = point.standing("native")
    (along,) = standing.along
    assert len(along.pulls) == 2 * 4096
    turned = replace(along, pulls=[-each for each in along.pulls])
    assert point.verified("native", replace(standing, along=[turned])) != []


def test_the_largest_of_many_rectified_zeros() -> None:
    """Where all are negative it is 0; where the last one alone is positive it is that one."""
    point = of(lambda x: relu(x).max(), *[0.0] * 300)
    assert point.standing("minimal").kind is Kind.LIMIT
    assert point.standing("last").kind is Kind.LIMIT
    assert list(point.gradient("last")) == [0.0] * 299 + [1.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.reshape(2, 2).sort(0, True).values * torch.arange(4).view(2, 2)).sum(),
        lambda x: (x.reshape(2, 2).cummin(1).values * torch.arange(4).view(2, 2)).sum(),
        lambda x: (x.topk(2).values * torch.arange(1, 3)).sum(),
    ],
)
def test_orders_along_dimensions(function: Callable[[Tensor], Tensor]) -> None:
    """Far outside of all orders of the entries, and well inside of them."""
    point = of(function, *[0.0] * 4)
    assert point.standing("minimal").stands
    assert point.standing("last").stands
    outside = {"x": 100 * torch.ones(4, dtype=torch.float64)}
    assert point.search.standing("minimal", outside).kind is Kind.WRONG


def test_cancelled_gradients_are_compared_by_what_cancels() -> None:
    model = nn.Module()
    model.x = nn.Parameter(torch.tensor([0.1, 0.1], dtype=torch.float64))
    thirds = torch.tensor([1 / 3, 1 / 3], dtype=torch.float64)
    point = Point(
        model, lambda: (model.x.amax() * thirds).sum() - (model.x * thirds).sum() / 1.5 * 1.5
    )
    assert point.standing("native").kind is Kind.SUBGRADIENT


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 1}, "seed"),
        ({"ties": 5}, "ties are live"),
        ({"weights": [0.7, 0.2]}, "convex combination"),
        ({"weights": [0.7, 0.3]}, "another gradient"),
        ({"weights": [1.0]}, "weights"),
        ({"kind": Kind.WRONG}, "separate"),
        ({"kind": Kind.DERIVATIVE}, "another gradient"),
        ({"kind": Kind.LIMIT}, "directions"),
    ],
)
def test_changed_certificates_are_refused(change: dict[str, Any], complaint: str) -> None:
    point = of(lambda x: relu(x).sum(), 0.0)
    standing = point.standing("branch:0.5")
    assert standing.kind is Kind.SUBGRADIENT
    assert point.verified("branch:0.5", standing) == []
    found = point.verified("branch:0.5", replace(standing, **change))
    assert len(found) == 1
    assert complaint in found[0]


def test_a_direction_that_decides_nothing_is_refused() -> None:
    point = of(lambda x: relu(x).sum(), 0.0)
    standing = point.standing("native")
    (along,) = standing.along
    flat = replace(standing, along=[replace(along, coefficients=[0.0])])
    assert "does not decide" in point.verified("native", flat)[0]
    other = replace(standing, along=[replace(along, coefficients=[-c for c in along.coefficients])])
    assert "another gradient" in point.verified("native", other)[0]


# Seeds whose first direction moves both entries of a tie alike in bfloat16, though it is a kink.
@pytest.mark.parametrize("seed", [56, 1341, 1355])
def test_one_direction_is_not_enough_where_autocast_is_coarser_than_parameters(seed: int) -> None:
    model = nn.Linear(1, 2, bias=False)
    nn.init.ones_(model.weight)
    with torch.autocast("cpu", torch.bfloat16):
        forward = Forward(model, lambda: model(torch.ones(1, 1)).amax(1).sum())
    assert forward.kinks[0].site.tied == 1
    assert smooth(told(forward, "native", seed)) is None


def test_more_kinks_than_a_linear_program_holds_are_not_told_apart() -> None:
    rows = np.random.default_rng(0).standard_normal((5000, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with pytest.raises(cones.UntoldError, match="too many kinks"):
        cones.distinct(rows)
    assert cones.distinct(np.repeat(rows[:40], 200, axis=0)).shape == (40, 32)


@pytest.mark.parametrize(
    ("layers", "batch_size", "unmet"),
    [
        ([nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)], 1, []),
        ([nn.Linear(2, 3), nn.ReLU()], 128, ["a batch of 128, not 1"]),
        ([nn.Linear(2, 3, bias=False), nn.ReLU()], 1, ["layer 0 has no bias"]),
        ([nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)], 1,
         ["2 layers share their biases between positions"]),
        ([nn.Linear(2, 4), nn.BatchNorm1d(4), nn.MaxPool1d(2)], 1,
         ["layer 1 normalises over the batch", "max pooling in layer 2 is not pointwise"]),
        ([nn.Linear(2, 2).requires_grad_(False)], 1, ["layer 0 does not train its bias"]),
    ],
)  # fmt: skip
def test_conditions_of_a_theorem(
    layers: list[nn.Module], batch_size: int, unmet: list[str]
) -> None:
    found = conditions(nn.Sequential(*layers), batch_size)
    assert (found.unmet, found.apply) == (unmet, not unmet)


class Difference(nn.Module):
    """relu(h) - relu(-h) is h, whose derivative 1 autograd takes for 0 where h is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        returned: Tensor = self.act(h) - self.act(-h)
        return returned


LINEAR = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (Difference(), [""]),
        (nn.Sequential(nn.Flatten(), Difference()), ["1"]),
        (nn.RNN(2, 3, nonlinearity="relu"), [""]),  # whose biases are those of every time
        (nn.TransformerEncoderLayer(4, 2), [""]),
        (nn.Sequential(LINEAR, nn.ReLU(), nn.Sequential(LINEAR)), ["2.0"]),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.ReLU()), ["0", "3"]),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1)), ["1"]),
    ],
)  # fmt: skip
def test_conditions_are_not_called_met_where_calls_are_not_known(
    model: nn.Module, unknown: list[str]
) -> None:
    found = conditions(model, 1)
    assert (found.unmet, found.unknown, found.apply) == ([], unknown, False)
    assert str(found) == "nothing in the modules speaks against it"
    assert str(conditions(model, 2)) == "not met: a batch of 2, not 1"


def test_a_wrong_gradient_is_not_one_of_a_network_that_meets_the_conditions() -> None:
    model, x = Difference().double(), torch.zeros(1, 1, dtype=torch.float64)
    torch.nn.init.zeros_(model.linear.bias)
    assert Point(model, lambda: model(x).sum()).standing("native").kind is Kind.WRONG
    hooked = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    assert conditions(hooked, 1).apply
    hooked[1].register_forward_hook(lambda module, inputs, output: output - torch.relu(-inputs[0]))
    assert conditions(hooked, 1).unknown == ["1"]


def test_where_the_theorem_applies_gradients_are_right() -> None:
    """Its parameters are machine numbers, many of them 0, at which ReLUs meet their kinks."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(),
                              nn.Linear(2, 1)).double()  # fmt: skip
        for parameter in model.parameters():
            drawn = torch.randint(-1, 2, parameter.shape, generator=generator)
            parameter.data = drawn.to(torch.float64)
        assert conditions(model, 1).apply
        x = torch.randint(-1, 2, (1, 2), generator=generator).double()
        assert Point(model, lambda model=model, x=x: model(x).sum()).standing("native").stands


class Through(torch.autograd.Function):
    """Rounds, with the derivative of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def test_a_custom_function_is_named_as_one() -> None:
    point = of(lambda x: Through.apply(x).sum(), 0.3)
    (found,) = standings(point.forward, [("native", point.forward.gradient("native"))])
    assert found.kind is Kind.UNDECIDED
    assert "a custom autograd function (Through)" in str(found.why)


def test_kinks_of_parameters_where_gradients_are_off() -> None:
    """As where the loss of DETR pairs boxes with objects."""

    def paired(x: Tensor) -> Tensor:
        with torch.no_grad():
            nearest = torch.cdist(x[None].clone(), x[None], p=1) + x.abs().sum()
        return relu(x + 0 * nearest.sum()).sum()

    assert of(paired, 0.0).standing("native").kind is Kind.LIMIT
