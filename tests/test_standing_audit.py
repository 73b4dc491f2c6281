"""What an audit says of the standing of gradients, and its certificates checked again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from command_line import Kinkcheck
from kinkcheck.audit import AuditReport, Kind, Standing, verify
from kinkcheck.audit.verdict import verdict


class Held(nn.Module):
    """A model whose parameters are the point."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(numbers))


def audited(function: Callable[[Tensor], Tensor], *numbers: float, **how: Any) -> AuditReport:
    model = Held(*numbers)
    step = of(function)
    return kinkcheck.audit(model, [torch.zeros(1)], step=step, samples=None, **how)


def of(function: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    return lambda model, _: function(model.x).sum()


def odd(x: Tensor) -> Tensor:
    return F.relu(x) - F.relu(-x)  # x, whose derivative AD says is 0 at 0


# By hand: what the gradient under native and under a selection is at that point.
KNOWN = [
    (odd, (0.0,), "minimal", "wrong", "wrong"),
    (odd, (1.0,), "minimal", "derivative", "derivative"),
    (odd, (0.0,), "branch:0.5", "wrong", "derivative"),
    (F.relu, (0.0,), "branch:1", "limit", "limit"),
    (F.relu, (0.0,), "branch:0.5", "limit", "subgradient"),
    (F.relu, (0.0,), "branch:2", "limit", "wrong"),
    (torch.abs, (0.0, 0.0), "minimal", "subgradient", "subgradient"),
    (lambda x: x.max(), (1.0, 1.0), "minimal", "subgradient", "subgradient"),
    (lambda x: x.max(0).values, (1.0, 1.0), "minimal", "limit", "subgradient"),
    (lambda x: x.max(0).values, (1.0, 1.0), "hybrid:10", "limit", "wrong"),
    (lambda x: F.relu(x[0] * 0 + 1) * x.detach().max(0).values * x[0], (1.0, 1.0), "last",
     "derivative", "derivative"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "numbers", "selection", "native", "other"), KNOWN)
def test_known_gradients_have_their_standing(
    function: Callable[[Tensor], Tensor],
    numbers: tuple[float, ...],
    selection: str,
    native: str,
    other: str,
) -> None:
    report = audited(function, *numbers, selections=[selection])
    (point,) = report.points
    assert point.reference_standing is not None
    assert point.standing is not None
    assert (point.reference_standing.kind, point.standing.kind) == (native, other)
    step = of(function)
    model = Held(*numbers)
    found = verify(report, model, [torch.zeros(1)], step=step)
    assert [(each.kind, each.wrong) for each in found] == [(native, []), (other, [])]


def test_the_first_sentence_answers() -> None:
    assert verdict(audited(odd, 0.0)).startswith(
        "Wrong at the one point: the gradient there is neither the derivative, nor one of its "
        "limits, nor between its limits."
    )
    assert verdict(audited(F.relu, 0.0)).startswith(
        "Right at the one point: the gradient is one of its limits, for the loss itself has a kink "
        "there."
    )


def test_two_gradients_that_differ_are_not_both_the_derivative() -> None:
    # max(a, b) / 10⁸ at a = b: beside 1 float32 does not see how the two branches differ.
    def absorbed(x: Tensor) -> Tensor:
        return (x[0] + 1e-8 * x[1:]).reshape(1, 2).amax(1) - x[0]

    (point,) = audited(absorbed, 1.0, 0.0, 0.0, selections=["first"]).points
    assert point.zone == "bifurcation"
    assert point.reference_standing is not None
    assert point.standing is not None
    assert Kind.DERIVATIVE not in (point.reference_standing.kind, point.standing.kind)
    (point,) = audited(absorbed, 1.0, 0.0, 0.0, selections=["first"], lifted=False).points
    assert (point.reference_standing, point.standing) == (None, None)


def test_a_kink_of_the_loss_is_claimed_only_where_it_is_shown() -> None:
    smooth = audited(odd, 0.0, reference="branch:0.5", selections=["branch:0.5"])
    (point,) = smooth.points
    assert point.reference_standing is not None
    assert point.reference_standing.stands
    assert "loss itself has a kink" not in verdict(smooth)
    assert "loss itself has a kink" in verdict(audited(F.relu, 0.0))

    # |v|², whose two maxima take each other away: two ties of three entries, no kink of the loss.
    gone = audited(lambda v: v.max(0).values - v.max(0).values + v.square().sum(), 1.0, 1.0, 1.0)
    assert "loss itself has a kink" not in verdict(gone)


LINE = torch.arange(8.0)[:, None]


def linear() -> nn.Module:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.0)
    return model


def kinds(report: AuditReport) -> list[tuple[str, ...]]:
    return [
        tuple(each.kind for each in (point.reference_standing, point.standing) if each is not None)
        for point in report.points
    ]


@pytest.mark.parametrize("precision", ["16", "32", "64"])
def test_kinks_of_the_loss_behind_the_output_of_the_network_count(precision: str) -> None:
    # One sample of eight lies on a kink that the loss alone has. The mean of the outputs, written
    # as relu(f) - relu(-f): the derivative with respect to the bias is 1, AD finds 7/8.
    def step(model: nn.Module, x: Tensor) -> Tensor:
        f = model(x)
        return (F.relu(f) - F.relu(-f)).mean()

    report = kinkcheck.audit(linear(), [LINE], step=step, precisions=[precision])
    assert kinds(report) == [("wrong", "wrong")]
    assert [each.wrong for each in verify(report, linear(), [LINE], step=step)] == [[], []]
    # max(0, 1 - f) at a margin of exactly 0, its slope between -1 and 0: 2 is outside.
    x = torch.tensor([1.0, 2.0, 0.25, 3.0, 0.5, 5.0, 6.0, 7.0])[:, None]
    hinge = kinkcheck.audit(
        linear(),
        [(x, torch.ones(8, 1))],
        loss=lambda f, y: F.relu(1 - y * f).mean(),
        precisions=[precision],
        selections=["branch:1", "branch:2"],
    )
    assert kinds(hinge) == [("limit", "limit"), ("limit", "wrong")]
    # One sample is fitted exactly: the slope there is between -1 and 1, AD's 0 is inside.
    fitted = kinkcheck.audit(
        linear(), [(LINE, 2 * LINE)], loss=F.l1_loss, precisions=[precision], selections=["first"]
    )
    assert kinds(fitted) == [("subgradient", "limit")]


def twice(x: Tensor, y: Tensor) -> Tensor:
    """max(x + y/10⁸, x) - max(x - y/10⁸, x), that is y/10⁸; at y = 0 AD may find twice as much."""
    pairs = [torch.stack([x + sign * 1e-8 * y, x], -1)[:, None] for sign in (1, -1)]
    above, below = (F.max_pool1d(pair, 2).flatten() for pair in pairs)
    return above - below


def test_what_float32_cannot_tell_apart_is_doubted_in_the_lift() -> None:
    for selection in ("minimal", "first"):
        report = kinkcheck.audit(
            Held(0.7, 0.0),
            [torch.zeros(1)] * 2,
            step=lambda model, _: (twice(model.x[:1], model.x[1:]) + model.x[:1]).sum(),
            selections=[selection],
            samples=None,
        )
        assert not {"derivative", "limit"} & {kind for pair in kinds(report) for kind in pair}


@pytest.mark.parametrize("selection", ["first", "random:0", "last"])
def test_a_permutation_that_native_takes_is_not_the_only_other_choice(selection: str) -> None:
    # The larger of (x + y/10⁸, x), minus x, and the same with -y: y over the reals.
    def sorted_twice(x: Tensor) -> Tensor:
        pairs = [torch.stack([x[0] + sign * 1e-8 * x[1], x[0]]) for sign in (1, -1)]
        above, below = (1e8 * (pair.sort(0).values[-1] - x[0]) for pair in pairs)
        return above - below

    report = audited(sorted_twice, 1.0, 0.0, selections=[selection])
    assert not {"derivative", "limit"} & set(kinds(report)[0])
    (point,) = report.points
    told = Standing(Kind.DERIVATIVE, ties=2, flat=2, kinks=0, rows=0, lifted=False)
    forged = replace(report, points=[replace(point, standing=told)])
    found = verify(forged, Held(1.0, 0.0), [torch.zeros(1)], step=of(sorted_twice), samples=None)
    assert all(each.wrong for each in found)


def test_maxima_along_another_dimension_have_their_ties_at_their_places() -> None:
    # Only the first column is tied, in its second row, and there what comes before is as large.
    x = [[1.0, 2.0], [1.0, 3.0], [0.0, 1.0]]
    model = nn.ParameterList([nn.Parameter(torch.tensor(x))])
    weights = torch.tensor([[0.0, 5.0], [1.0, 5.0], [0.0, 5.0]])

    def step(model: nn.Module, _: Tensor) -> Tensor:
        (held,) = model.parameters()
        return (weights * torch.cummax(held, 0).values).sum()

    report = kinkcheck.audit(model, [torch.zeros(1)], step=step, samples=None)
    assert report.points[0].reference_standing is not None
    assert (report.points[0].reference_standing.kinks, kinds(report)) == (
        1, [("limit", "subgradient")],
    )  # fmt: skip


def test_distances_between_a_parameter_and_what_is_made_of_it_are_lifted() -> None:
    report = audited(lambda x: torch.cdist(x[None], x[None] * 2), 0.0, 0.0)
    assert kinds(report) == [("subgradient", "subgradient")]
    model = nn.ParameterList([nn.Parameter(torch.zeros(1, 2))])

    def step(model: nn.Module, _: Tensor) -> Tensor:
        (held,) = model.parameters()
        return torch.cdist(held, held * 2).sum()

    assert kinds(kinkcheck.audit(model, [torch.zeros(1)], step=step, samples=None)) == kinds(report)


def test_a_sample_with_a_kink_hides_nothing_of_the_others() -> None:
    class Absorbing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.y, self.v = (
                nn.Parameter(torch.tensor(number)) for number in (0.7, 0.0, 0.0)
            )

        def forward(self, b: Tensor) -> Tensor:
            return 1e8 * twice(self.x.expand(len(b)), self.y * b[:, 0]) + F.relu(self.v * b[:, 1])

    b = torch.zeros(8, 2)
    b[1:, 0] = 1
    b[0, 1] = 1
    report = kinkcheck.audit(Absorbing(), [b], step=lambda model, b: model(b).mean())
    assert not {"derivative", "limit"} & set(kinds(report)[0])


@pytest.mark.parametrize("precision", ["16", "32"])
def test_ties_where_no_gradient_is_seen_to_arrive_are_left_undecided(precision: str) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 4)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.linear(x) * 1.0
            h[:, :2].relu_()
            return h

    batch = torch.ones(8, 2), torch.zeros(8, dtype=torch.long)
    report = kinkcheck.audit(InPlace(), [batch], precisions=[precision])
    assert kinds(report) == [("undecided", "undecided")]
    assert "in place on a view" in str(report.points[0].reference_standing)


def test_a_large_gradient_of_one_parameter_hides_nothing_of_another() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    report = kinkcheck.audit(
        Two(),
        [torch.zeros(1)],
        step=lambda model, _: (1e10 * model.w + odd(model.v)).sum(),
        samples=None,
    )
    assert kinds(report) == [("wrong", "wrong")]


def test_branches_that_are_nearly_alike_are_not_taken_for_one() -> None:
    """All of the gradient is in what tells them apart, 10⁻⁹ of what they have in common."""
    report = audited(
        lambda x: (x[0] + 1e-9 * x[1:]).amax() - x[0], 0.0, 0.0, 0.0, selections=["minimal"]
    )
    assert {
        str(point.reference_standing and point.reference_standing.kind) for point in report.points
    } <= {"subgradient", "undecided"}


def test_without_the_lift_nobody_looked() -> None:
    report = audited(odd, 0.0, lifted=False)
    assert {point.standing for point in report.points} == {None}
    assert "Right" not in verdict(report)
    with pytest.raises(kinkcheck.InputError, match="has no certificate"):
        verify(report, Held(0.0), [torch.zeros(1)], step=of(odd))


def test_what_is_out_of_sight_is_undecided() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    (point,) = audited(lambda x: Own.apply(F.relu(x)), 0.0).points
    assert point.reference_standing is not None
    assert point.reference_standing.kind == "undecided"
    assert "Own" in str(point.reference_standing.why)


def test_an_element_on_a_jump_is_undecided() -> None:
    on, beside = (audited(lambda x: x.sign() * x.abs(), number) for number in (0.0, 1.0))
    kinds = [each.points[0].reference_standing for each in (on, beside)]
    assert [each and each.kind for each in kinds] == ["undecided", "derivative"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"batch": -1}, "batch of a point must be at least 0, not -1"),
        ({"batch": 1}, "batch of a point must be at most 0, not 1"),
        ({"draw": -1}, "draw of a point must be at least 0, not -1"),
        ({}, "report: has the point float32, draw 0, batch 0 twice under minimal"),
    ],
)
def test_points_that_no_audit_has_are_refused(change: dict[str, Any], complaint: str) -> None:
    """Numbers that Python counts from the end, and what would stand for another point."""
    step = of(lambda x: x.max(0).values)
    report = audited(lambda x: x.max(0).values, 1.0, 1.0)
    (point,) = report.points
    points = [replace(point, **change)] if change else [point, point]
    with pytest.raises(kinkcheck.InputError) as refused:
        verify(replace(report, points=points), Held(1.0, 1.0), [torch.zeros(1)], step=step)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_no_audit_has_are_refused(seed: int) -> None:
    step = of(lambda x: x.max(0).values)
    report = audited(lambda x: x.max(0).values, 1.0, 1.0)
    (point,) = report.points
    assert point.standing is not None
    other = replace(point, standing=replace(point.standing, seed=seed))
    for tampered in (replace(report, seed=seed), replace(report, points=[other])):
        with pytest.raises(kinkcheck.InputError, match=r"seed.* must be "):
            verify(tampered, Held(1.0, 1.0), [torch.zeros(1)], step=step)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": Kind.DERIVATIVE},
        {"kind": Kind.WRONG},
        {"weights": [0.9, 0.1]},
        {"along": []},
        {"kinks": 0, "ties": 0},
    ],
)
def test_a_certificate_that_does_not_hold_is_found(change: dict[str, Any]) -> None:
    report = audited(lambda x: x.max(0).values, 1.0, 1.0)
    (point,) = report.points
    assert point.standing is not None
    false = replace(point, standing=replace(point.standing, **change))
    step = of(lambda x: x.max(0).values)
    native, minimal = verify(
        replace(report, points=[false]), Held(1.0, 1.0), [torch.zeros(1)], step=step
    )
    assert native.wrong == []
    assert minimal.wrong != []


@pytest.mark.parametrize(
    ("precision", "norm"), [("float32", False), ("bfloat16", False), ("float32", True)]
)
def test_the_search_is_among_the_samples_that_hold_kinks(precision: str, norm: bool) -> None:
    """Sample 3 is black, so that without a bias all that comes before its ReLUs is 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    nn.init.zeros_(model[0].bias)
    images, labels = torch.rand(16, 1, 6, 6), torch.arange(16) % 3
    images[3] = 0
    batch = (images, labels)
    report = kinkcheck.audit(
        model, [batch], precisions=[precision], selections=["branch:1", "branch:2"]
    )
    one, two = (point.standing for point in report.points)
    assert one is not None
    assert two is not None
    if norm:  # samples meet, and the mean of what comes before a ReLU is not 0
        assert one.samples is None
        return
    assert one.samples == two.samples == [3]
    assert (one.kind, two.stands) == ("limit", False)
    assert all(not each.wrong for each in verify(report, model, [batch]))
    false = replace(report.points[0], standing=replace(one, samples=[4]))
    checked = verify(replace(report, points=[false]), model, [batch])
    assert [bool(each.wrong) for each in checked] == [False, True]


def test_certificates_hold_over_the_rationals() -> None:
    """Filters that are equal tie at every window; those that are not alike are kinks."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((4 * parameter).round() / 4)
    batch = (torch.ones(1, 1, 5, 5), torch.tensor([0]))
    batch[0][..., 2:] = 0  # where the convolution, without a bias, gives exact zeros
    model[0].bias.data.zero_()
    report = kinkcheck.audit(
        model, [batch], precisions=["32"], selections=["minimal", "last"], exact=True
    )
    standings = [each.standing for each in report.points]
    standings.append(report.points[0].reference_standing)
    assert all(each is not None and each.stands for each in standings)
    assert [each and each.exact is not None and each.exact < 1e-12 for each in standings] == [
        True, True, True
    ]  # fmt: skip
    assert any(each and each.kinks for each in standings)


def test_the_document_is_read_again() -> None:
    document = audited(lambda x: x.max(0).values, 1.0, 1.0, selections=["hybrid:10"])
    text = json.dumps(document.to_json(), allow_nan=False)
    assert type(document).from_json(json.loads(text)) == document
    shares = document.summary[0].standings
    assert {kind: share.count for kind, share in shares.items() if share.count} == {"wrong": 1}


PROGRAM = """
import torch
from torch import nn

class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))

def make():
    return Held(), [torch.zeros(1)], lambda model, _: torch.relu(model.x).sum()
"""


def test_the_command_verifies_what_the_command_wrote(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "own.py").write_text(PROGRAM)
    assert kinkcheck("audit", "own.py:make", "--json", "a.json").code == 0
    found = kinkcheck("verify", "a.json")
    assert (found.code, found.err) == (0, "")
    assert found.text.startswith("All 2 certificates hold (2 limit).")
    written = json.loads((folder / "a.json").read_text())
    written["points"][0]["standing"]["kind"] = "derivative"
    (folder / "b.json").write_text(json.dumps(written))
    found = kinkcheck("verify", "b.json")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "damaged" in found.err
    del written["digest"]  # as of somebody who writes such files
    (folder / "b.json").write_text(json.dumps(written))
    found = kinkcheck("verify", "b.json")
    assert (found.code, found.err) == (1, "")
    assert found.text.startswith("1 of 2 certificates do not hold.")
    for name in ("standing", "reference_standing"):
        written["points"][0][name]["kind"] = "undecided"
    (folder / "d.json").write_text(json.dumps(written))
    found = kinkcheck("verify", "d.json")
    assert (found.code, found.text.split(":")[0]) == (0, "There is no certificate to check")
    written["settings"] = None
    (folder / "c.json").write_text(json.dumps(written))
    found = kinkcheck("verify", "c.json")
    assert found.code == 2
    assert found.err.startswith("kinkcheck: c.json does not say how it was made")


@pytest.mark.slow
def test_lenet_on_digits_is_right_at_every_point(kinkcheck: Kinkcheck, folder: Path) -> None:
    """As a prototype by hand had it: native a limit, minimal a subgradient, never wrong."""
    small = ("--data", "mnist-sample", "--batches", 2)
    found = kinkcheck("audit", "lenet5", *small, "--precision", "bfloat16", "--json", "a.json")
    assert found.code == 0
    points = json.loads((folder / "a.json").read_text())["points"]
    assert {point["reference_standing"]["kind"] for point in points} <= {"derivative", "limit"}
    assert {point["standing"]["kind"] for point in points} <= {"derivative", "subgradient"}
    assert kinkcheck("verify", "a.json").code == 0


@pytest.mark.parametrize("precision", ["32", "64"])
def test_a_model_drawn_from_the_seed_of_the_directions_is_not_its_own_direction(
    precision: str,
) -> None:
    """Along the parameters themselves both branches of w·x = 0 stay 0; around them they do not."""
    torch.manual_seed(0)
    w = torch.randn(2, dtype=torch.float64 if precision == "64" else torch.float32)
    x = torch.stack([w[1], -w[0]])
    model = Held()
    model.x = nn.Parameter(w)
    report = kinkcheck.audit(
        model, [x], step=lambda m, b: F.relu((m.x * b).sum()), samples=None,
        precisions=[precision], selections=["branch:0.5"], seed=0,
    )  # fmt: skip
    (point,) = report.points
    assert point.reference_standing is not None
    assert point.standing is not None
    assert (point.reference_standing.kind, point.standing.kind) == ("limit", "subgradient")


def test_a_tie_that_rounding_hides_is_a_kink() -> None:
    w = float(torch.tensor(0.1))
    assert 3 * Fraction(w) - 2 * Fraction(w) == Fraction(w)

    def loss(x: Tensor) -> Tensor:
        return torch.maximum(3 * x[0] - 2 * x[0], x[1])

    here = torch.full((2,), 0.1)
    assert loss(here) != here[1]
    (point,) = audited(loss, 0.1, 0.1).points
    assert point.reference_standing is not None
    assert (point.reference_standing.kind, point.reference_standing.kinks) == ("subgradient", 1)


def of_batch(function: Callable[[Tensor, Tensor], Tensor], *batches: float) -> AuditReport:
    """Of a function of two parameters, both 1/10 to float32, and of a number that is the batch."""
    given = [torch.tensor(each) for each in batches]
    step = lambda model, batch: function(model.x, batch)  # noqa: E731
    return kinkcheck.audit(Held(0.1, 0.1), given, step=step, samples=None)


def test_where_rounding_hides_a_tie_at_the_first_point_every_point_is_lifted() -> None:
    def loss(x: Tensor, scale: Tensor) -> Tensor:
        return scale * torch.maximum(3 * x[0] - 2 * x[0], x[1])

    points = of_batch(loss, 1.0, 2.0, 4.0).points
    assert [p.reference_standing.kind for p in points if p.reference_standing] == 3 * [
        "subgradient"
    ]
    assert all(point.lift is not None for point in points)


def test_what_rounding_hides_at_a_later_point_alone_is_said_to_be_possible() -> None:
    """Both points have the tie 3a − 2a = b over the reals; at the second rounding hides it."""

    def loss(x: Tensor, scale: Tensor) -> Tensor:
        a, b = x * scale
        return torch.relu(3 * a - 2 * a - b) + x.square().sum()

    for lifted, kinds in ((True, ["limit", "limit"]), (None, ["limit", "derivative"])):
        step = lambda model, batch: loss(10 * model.x, batch)  # noqa: E731
        given = [torch.tensor(1.0), torch.tensor(0.1)]
        report = kinkcheck.audit(Held(0.1, 0.1), given, step=step, samples=None, lifted=lifted)
        found = [p.reference_standing.kind for p in report.points if p.reference_standing]
        assert found == kinds
        warned = (
            "1 point was judged at the audited precision, without the lift to float64; rounding"
        )
        assert (warned in verdict(report)) == (lifted is None)


def test_points_are_lifted_where_the_precision_does_not_tell() -> None:
    def loss(x: Tensor, scale: Tensor) -> Tensor:
        flat = torch.stack([x[0], x[0]]).max()  # 1/2 each, of one function
        return flat.square() + torch.relu(x[0] - x[1] + scale)

    report = of_batch(loss, 1.0, 2.0, 0.0, 3.0)
    assert [point.lift is not None for point in report.points] == [True, False, True, False]
    assert report.points[1].zone == report.points[3].zone == "agreement"
    assert report.points[1].reference_standing == Standing(
        Kind.DERIVATIVE, 1, 1, rows=0, seed=1, lifted=False
    )
    assert "2 points were judged at the audited precision" in verdict(report)


@pytest.mark.parametrize("precision", ["16", "bfloat16"])
def test_slopes_lost_beside_larger_ones_are_not_the_same(precision: str) -> None:
    """The loss is the larger of two parameters, times 1/512."""

    def loss(x: Tensor) -> Tensor:
        return torch.maximum(x[0] + 2**-15 * x[1], x[0] + 2**-15 * x[2]) * 64 - x[0] * 64

    (point,) = audited(loss, 1.0, 0.0, 0.0, precisions=[precision]).points
    assert point.reference_standing is not None
    assert (point.reference_standing.kind, point.reference_standing.kinks) == ("subgradient", 1)


def test_certificates_without_the_lift_that_were_tampered_with_are_refused() -> None:
    def loss(x: Tensor) -> Tensor:
        return torch.maximum(x, x).sum()

    report = audited(loss, 1.0, 2.0)
    (point,) = report.points
    standing = point.reference_standing
    assert standing is not None
    assert (standing.kind, standing.ties, standing.lifted) == ("derivative", 2, False)
    for change in ({"kind": Kind.WRONG}, {"kind": Kind.LIMIT}, {"ties": 1}, {"kinks": 1}):
        forged = replace(standing, **change)
        tampered = replace(report, points=[replace(point, standing=forged)])
        honest, found = verify(tampered, Held(1.0, 2.0), [torch.zeros(1)], step=of(loss))
        assert honest.wrong == []
        assert found.wrong, change


def test_a_tie_in_place_on_a_view_is_neither_dead_nor_smooth() -> None:
    """The first element is rectified at 0, a kink of the loss."""

    def loss(x: Tensor) -> Tensor:
        whole = x * 1
        whole[0].relu_()
        return whole.sum()

    report = audited(loss, 0.0, 1.0, selections=["branch:1"])
    (point,) = report.points
    assert point.variation.l1 == 1
    assert point.reference_standing is not None
    assert point.reference_standing.kind == "undecided"
    assert [(each.tied, each.dead) for each in report.sites] == [(1, 0)]
