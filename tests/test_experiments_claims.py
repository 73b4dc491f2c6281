"""What the pages of experiments say in sentences is what their stored runs say.

Each claim computes its sentence from the rows of stored runs, as plain JSON, and asserts on the way
what the sentence says without numbers.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, variance
from typing import Any

import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "experiments"
PUBLISHED = ROOT / "src" / "kinkcheck" / "paper" / "published"

Row = dict[str, Any]
Claim = Callable[[], str]
CLAIMS: list[tuple[str, Claim]] = []


def claim(page: str) -> Callable[[Claim], Claim]:
    """A sentence that is to stand in a page, or a part of one."""

    def add(found: Claim) -> Claim:
        CLAIMS.append((page, found))
        return found

    return add


@functools.cache
def run(name: str) -> list[Row]:
    rows: list[Row] = json.loads((PAGES / "runs" / f"{name}.json").read_text("utf-8"))["rows"]
    return rows


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def only(rows: Iterable[Row], **wanted: Any) -> Row:
    (row,) = where(rows, **wanted)
    return row


def published(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / f"{name}.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


# --- Programs that compute one function ----------------------------------------------------------

_WORDS = {
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight",
}  # fmt: skip


@claim("introduction")
def when_networks_part() -> str:
    steps = [row for row in where(run("relu-introduction"), function="ReLU") if "distance" in row]
    parted, met = [], []
    for precision in ("float16", "float32"):
        here = where(steps, precision=precision)
        parted.append(min(r["step"] for r in where(here, network=1) if r["distance"]))
        at_kinks = [row["at_kinks"] for row in where(here, network=0)]
        assert at_kinks[parted[-1] - 1]
        met.append(_WORDS[sum(map(bool, at_kinks))])
        assert not any(row["distance"] for row in where(here, network=2))
    count = len(where(steps, precision="float16", network=0))
    return (
        f"at 16 bits the {parted[0]}th, at 32 bits the {parted[1]}th. Of the {count} steps of a "
        f"native network {met[0]} met a kink at 16 bits, {met[1]} at 32."
    )


@claim("introduction")
def the_twins_are_equal() -> str:
    steps = [row for row in run("relu-introduction") if "distance" in row]
    relu, relu6 = (
        [{**row, "function": ""} for row in where(steps, function=name)]
        for name in ("ReLU", "ReLU6")
    )
    assert relu == relu6 != []
    return "the ReLU6 networks are their ReLU twins to the last digit"


@claim("introduction")
def the_zone_on_the_plane() -> str:
    corners = [row for row in run("relu-introduction") if "variation" in row]
    half, single = (where(corners, precision=each) for each in ("float16", "float32"))
    sides = {row["side"] for row in run("relu-introduction") if "side" in row}
    (side,) = sides
    return (
        f"{len(half)} of {side**2} points at 16 bits, strewn over the plane, and {len(single)} at "
        "32."
    )


@claim("introduction")
def how_far_gradients_differ_on_the_plane() -> str:
    corners = [row for row in run("relu-introduction") if "variation" in row]
    half, single = (
        sorted(row["variation"] for row in where(corners, precision=each))
        for each in ("float16", "float32")
    )
    *three, most = (f"{each:.3g}" for each in single)
    assert len(three) == 3
    (low,) = set(three)
    return (
        f"D is {half[0]:.2g} to {half[-1]:.1f} at 16 bits; at 32 bits it is {low} at three points "
        f"and {float(most):.2f} at one."
    )


# --- ReLU'(0), or a line of code? ----------------------------------------------------------------


@functools.cache
def _published_resnets() -> dict[float, list[float]]:
    """Test accuracies by α of the runs that took all 200 epochs."""
    found: defaultdict[float, list[float]] = defaultdict(list)
    of = {"dataset": "cifar10", "network": "resnet18", "batch_norm": "False"}
    for row in where(published("relu_training_final"), **of):
        if row["last_epoch"] == "199":
            found[float(row["alpha"])].append(100 * float(row["test_accuracy"]))
    return dict(found)


@claim("relu-backward-confound")
def published_accuracies() -> str:
    at = _published_resnets()
    assert len(at[0.2]) == 9
    return (
        f"end at {mean(at[0]):.1f} % on average under α = 0, at {mean(at[0.1]):.1f} % under 0.1 "
        f"and at {mean(at[0.2]):.1f} % under 0.2, nine of ten runs there."
    )


@claim("relu-backward-confound")
def published_collapses() -> str:
    at = _published_resnets()
    assert {f"{each:.1f}" for alpha in at if alpha >= 0.5 for each in at[alpha]} == {"10.0"}
    assert {f"{each:.1f}" for each in at[0.3]} == {"10.0"}
    low, again, high = sorted(at[0.4])
    assert f"{low:.1f}" == f"{again:.1f}" == "10.0"
    return (
        f"Under 0.3 {_WORDS[len(at[0.3])]} of ten took them, and end at 10.0 %, as good as "
        f"guessing; under 0.4 three, one at {high:.0f} % and two at 10.0 %; from 0.5 on all that "
        "did end at 10.0 %."
    )


def _steps(network: str, backward: str, alpha: float) -> list[Row]:
    rows = where(run("relu-backward-confound"), network=network, backward=backward, alpha=alpha)
    return [row for row in rows if "gradient_norm" in row]


def _larger(network: str, alpha: float) -> str:
    """How much larger the line makes the norm at the first zero."""
    norms = [_steps(network, "assigned", each)[0]["gradient_norm"] for each in (alpha, 0.0)]
    return f"{norms[0] / norms[1]:.2g}"


@claim("relu-backward-confound")
def the_line_changes_the_gradient() -> str:
    for network in ("resnet18", "vgg11"):
        assert _steps(network, "assigned", 0.0)[0]["zeros"] == 1
    resnet, vgg = ([_larger(each, alpha) for alpha in (0.1, 1.0)] for each in ("resnet18", "vgg11"))
    return (
        "the line makes the norm of the gradient of ResNet-18 "
        f"{resnet[0]} times larger at α = 0.1 and {resnet[1]} times at α = 1, and that of VGG-11 "
        f"{vgg[0]} and {vgg[1]} times."
    )


@claim("relu-backward-confound")
def the_derivative_hardly_does() -> str:
    apart = {}
    for network in ("resnet18", "vgg11"):
        at_0 = _steps(network, "exact", 0.0)
        apart[network] = max(
            abs(row["gradient_norm"] / other["gradient_norm"] - 1)
            for alpha in (0.1, 0.2, 0.5, 1.0)
            for row, other in zip(_steps(network, "exact", alpha), at_0, strict=True)
        )
    assert not apart["vgg11"]
    percent = math.ceil(1e5 * apart["resnet18"]) / 1e3
    return (
        "Under α times the gradient the norm of ResNet-18 is, at every α and every step, that at "
        f"α = 0 to within {percent:.3f} %, and that of VGG-11 is the same number."
    )


@claim("relu-backward-confound")
def zeros_are_rare() -> str:
    several = []
    for network in ("resnet18", "vgg11"):
        for backward in ("exact", "assigned"):
            for alpha in (0.0, 0.1, 0.2, 0.5, 1.0):
                steps = _steps(network, backward, alpha)
                met = [row for row in steps if row["zeros"]]
                assert (len(steps), len(met) in (1, 2)) == (10, True)
                several += [row for row in met if row["zeros"] > 1]
    (row,) = several
    assert (row["network"], row["alpha"], row["backward"]) == ("resnet18", 0.2, "assigned")
    return (
        f"of the {len(steps)} steps one or two met any, and each of them a single one, but for "
        f"step {row['step']} of ResNet-18 under α = {row['alpha']} itself, which met "
        f"{_WORDS[row['zeros']]}."
    )


@claim("relu-backward-confound")
def zeros_hang_on_roundings() -> str:
    second = {}
    for alpha in (0.2, 1.0):
        _, again = (row["step"] for row in _steps("resnet18", "exact", alpha) if row["zeros"])
        second[alpha] = again
    return (
        f"(under α times the gradient, ResNet-18 met its second at step {second[0.2]} for α = 0.2 "
        f"and at step {second[1.0]} for α = 1)"
    )


@claim("relu-backward-confound")
def how_long_a_reduced_training_is() -> str:
    steps = max(row["step"] for row in _steps("resnet18", "assigned", 0.0))
    return f"a reduced run has taken {steps} steps where they took 200 epochs;"


@claim("relu-backward-confound")
def nothing_is_lost_in_ten_steps() -> str:
    lost, images = [], []
    for network in ("resnet18", "vgg11"):
        finals = [
            row
            for row in where(run("relu-backward-confound"), network=network, backward="assigned")
            if "runs" in row
        ]
        at_0 = only(finals, relu="branch:0")["accuracy"]
        images += [abs(row["accuracy"] - at_0) * 2.56 for row in finals]
        last = _steps(network, "assigned", 0.0)[-1]["loss"]
        lost += [
            abs(_steps(network, "assigned", alpha)[-1]["loss"] - last)
            for alpha in (0.1, 0.2, 0.5, 1.0)
        ]
    return (
        f"at the last the loss under the line is within {math.ceil(1e4 * max(lost)) / 1e4:.4f} of "
        f"that at α = 0, and the accuracy after it within {_WORDS[round(max(images))]} images."
    )


# --- Threshold against lift ----------------------------------------------------------------------


def _lifted(precision: str, **wanted: Any) -> list[Row]:
    return where(run("threshold-against-lift"), precision=precision, **wanted)


@claim("threshold-against-lift")
def in_32_bits_none_is_a_bifurcation() -> str:
    rows = _lifted("float32")
    above = where(rows, by_threshold="bifurcation")
    assert not any(row["network"] == "lenet5" for row in above)
    assert not where(rows, by_lift="bifurcation")
    return (
        f"In 32 bits the published threshold calls {len(above)} of these {len(rows)} points "
        "bifurcations, all of them of VGG networks. By the lift none is: every one is rounding."
    )


@claim("threshold-against-lift")
def in_16_bits_it_is_wrong_both_ways() -> str:
    rows = _lifted("float16")
    above = where(rows, by_threshold="bifurcation")
    true = where(above, by_lift="bifurcation")
    below = [row for row in where(rows, by_lift="bifurcation") if row not in above]
    wrong = len(above) - len(true) + len(below)
    assert 0.2 < wrong / len(rows) < 0.3
    assert {row["network"] for row in below} == {"lenet5"}
    return (
        "In float16 it is wrong about a quarter of the points, both ways: of the "
        f"{len(above)} above it {len(true)} are bifurcations, and {len(below)} bifurcations lie "
        "below it, all of LeNet-5. In float64 both agree that there is nothing."
    )


@claim("threshold-against-lift")
def no_threshold_does_better() -> str:
    found = []
    for precision in ("float16", "bfloat16"):
        rows = _lifted(precision)
        found.append(
            min(
                sum((row["variation"] > limit) != (row["by_lift"] == "bifurcation") for row in rows)
                / len(rows)
                for limit in [0.0, *(row["variation"] for row in rows)]
            )
        )
    half, brain = (f"{100 * each:.0f} %" for each in found)
    return (
        f"even the best threshold, fitted to these very points, is wrong about {half} in float16 "
        f"and {brain} in bfloat16."
    )


@claim("threshold-against-lift")
def what_was_not_met() -> str:
    rows = [row for row in _lifted("float32") if row["network"] != "lenet5"]
    assert not where(rows, by_lift="bifurcation")
    high = stats.binomtest(0, len(rows)).proportion_ci(0.95).high
    return (
        f"with {len(rows)} points of VGG networks in 32 bits the 95 % interval of their share "
        f"reaches to {100 * high:.0f} %."
    )


# --- Volumes -------------------------------------------------------------------------------------


def _bars() -> list[Row]:
    names = ("depth", "batch-size", "batch-norm")
    return [row for name in names for row in run(f"volume-by-{name}")]


@claim("volumes")
def what_is_above_in_16_and_64_bits() -> str:
    for row in _bars():
        if row["precision"] == "float16":
            large = row["factor"] == "batch_size" and row["value"] in (512, 1024)
            assert row["above"] == (0 if large else row["points"])
        elif row["precision"] == "float64":
            assert not row["above"]
    assert {row["precision"] for row in _bars()} == {"float16", "float32", "float64"}
    return (
        "all of them at 16 bits but for mini-batches of 512 and 1,024, of which none is, and none "
        "at 64 bits:"
    )


@claim("volumes")
def shares_beside_the_published_ones() -> str:
    bits = {"float16": "16", "float32": "32", "float64": "64"}
    apart, count = [], 0
    for row in _bars():
        (other,) = (
            each
            for each in where(published("bifurcation_volumes"), factor=row["factor"])
            if each["value"].lower() == str(row["value"]).lower()
            and each["precision_bits"] == bits[row["precision"]]
        )
        size = row["value"] if row["factor"] == "batch_size" else 128
        points = math.ceil(50_000 / size)
        above = round(float(other["proportion_percent"]) / 100 * points)
        interval = stats.binomtest(above, points).proportion_ci(0.95)
        count += 1
        if not (100 * interval.low <= row["high"] and row["low"] <= 100 * interval.high):
            apart.append((row["value"], row["precision"], row["above"], row["points"]))
    assert apart == [(512, "float16", 0, 2)]
    return f"{count - len(apart)} of {count} shares of the three experiments lie within sampling"


@claim("volumes")
def mini_batches_at_first() -> str:
    by_precision = {row["points"] for row in run("volume-by-precision")}
    by_depth = {row["points"] for row in where(run("volume-by-depth"), value="vgg11")}
    (many,), (few,) = by_precision, by_depth
    return f"The first table has VGG-11 on {many} mini-batches, this one on {few}."


# --- Jacobian or forward value? ------------------------------------------------------------------


def _confound(precision: str, beta: int, forward: str) -> list[float]:
    """Accuracy of every run; one that diverged answers class 0."""
    of = {"part": "training", "precision": precision, "forward": forward, "epoch": None}
    row = only(run("forward-confound"), max_pool=f"hybrid:{beta}", **of)
    found = [float(each) for each in row["accuracies"].split()]
    assert sum(map(math.isnan, found)) == row["diverged"]
    return [row["class_0"] if math.isnan(each) else each for each in found]


def _welch(more: list[float], less: list[float]) -> tuple[float, float, float]:
    """How much less some accuracies are, and the 95 % interval of that (Welch 1947)."""
    parts = [variance(each) / len(each) for each in (more, less)]
    lost, error = mean(more) - mean(less), math.sqrt(sum(parts))
    if not error:
        return lost, lost, lost
    of = [part**2 / (len(each) - 1) for part, each in zip(parts, (more, less), strict=True)]
    half = error * float(stats.t.ppf(0.975, sum(parts) ** 2 / sum(of)))
    return lost, lost - half, lost + half


def _less(more: list[float], less: list[float]) -> tuple[str, str]:
    lost, low, high = _welch(more, less)
    return f"{lost:.1f}", f"{low:.1f} to {high:.1f}"


@claim("forward-confound")
def most_is_lost_to_the_forward_value_at_1000() -> str:
    at_0 = _confound("float16", 0, "compound")
    exact, compound = (_confound("float16", 1000, each) for each in ("exact", "compound"))
    lost, _ = _less(at_0, compound)
    by_value, interval = _less(exact, compound)
    by_derivative, of_that = _less(_confound("float16", 0, "exact"), exact)
    return (
        f"At β = 10³ nearly all that is lost, {by_value} of {lost} points ({interval}), is lost to "
        "the forward value; the derivative alone, under the exact forward, costs "
        f"{by_derivative} points ({of_that})."
    )


@claim("forward-confound")
def the_derivative_alone_ruins_at_10000() -> str:
    exact = _confound("float16", 10_000, "exact")
    lost, interval = _less(_confound("float16", 0, "exact"), exact)
    assert mean(exact) < 10  # of ten classes
    return (
        f"At β = 10⁴ the derivative alone ruins the training: {lost} points ({interval}), and "
        "nothing is left to lose."
    )


@claim("forward-confound")
def nothing_is_lost_in_32_bits() -> str:
    for forward in ("exact", "compound"):
        at_0 = _confound("float32", 0, forward)
        for beta in (1, 10, 100, 1000, 10_000):
            _, low, _ = _welch(at_0, _confound("float32", beta, forward))
            assert low <= 0
    return "In 32 bits nothing was seen to be lost up to 10⁴."


@claim("forward-confound")
def runs_and_windows() -> str:
    trained = where(run("forward-confound"), part="training", epoch=None)
    assert {row["runs"] for row in trained} == {3, 10}
    (zero,) = {row["class_0"] for row in trained}
    (windows,) = {row["windows"] for row in where(run("forward-confound"), part="forward error")}
    return (
        f"a run that diverged counts with the {zero} % of always answering class 0; *surely to* "
        "names what has an interval above 0; the last column is the largest relative error of the "
        f"compound forward value over {windows:,} windows"
    )


# --- Norm or direction? --------------------------------------------------------------------------


@claim("norm-against-sign")
def accuracy_follows_neither_norm_nor_direction() -> str:
    rows = run("norm-against-sign")
    accuracies = [row["accuracy"] for row in rows]
    norms = [row["norm"] for row in rows if row["norm"]]
    assert round(math.log10(max(norms) / min(norms))) == 4
    assert max(accuracies) - min(accuracies) < 0.5
    native = only(rows, max_pool="hybrid:0")
    for row in rows:
        if row["max_pool"] in ("last", "random:0"):
            assert row["accuracies"] == native["accuracies"]
        elif row["partner"]:
            assert row["low"] <= 0 <= row["high"]
    return (
        "over four orders of magnitude of the norm, and between directions of one norm, it moves "
        "by less than half a point. `last` and a random choice end each run as native does, and "
        "the interval of every other difference between partners includes 0."
    )


# --- One function, many spellings ----------------------------------------------------------------


@claim("spellings")
def spellings_of_functions() -> str:
    rows = where(run("spellings"), part="spelling")
    functions = {row["function"] for row in rows}
    return (
        f"The spellings whose gradient does not stand, out of {len(rows)} at the kinks of "
        f"{len(functions)} functions:"
    )


@claim("spellings")
def three_of_eight_leaky_relus() -> str:
    rows = where(run("spellings"), function="leaky ReLU, a = 0.1")
    outside = [row for row in rows if not 0.1 <= float(row["returned"]) <= 1]
    return (
        f"of the {_WORDS[len(rows)]} spellings of a leaky ReLU with slopes 0.1 and 1, "
        f"{_WORDS[len(outside)]} return a slope outside of 0.1 to 1;"
    )


@claim("spellings")
def how_much_is_at_the_kink() -> str:
    trained = where(run("spellings"), part="training")

    def shares(setting: str, column: str) -> str:
        rows = where(trained, setting=setting)
        found = [
            mean(row[column] for row in where(rows, spelling=spelling))
            for spelling in {row["spelling"] for row in rows}
        ]
        low, high = (f"{each:.{int(each < 1)}f}" for each in (min(found), max(found)))
        return low if low == high else f"{low} to {high}"

    settings = list(dict.fromkeys(row["setting"] for row in trained))
    assert settings == ["float32", "4-bit activations"]
    wide, narrow = ([shares(each, name) for name in ("met_first", "met")] for each in settings)
    return (
        f"At the kink are {wide[0]} % of the activations in the first step and {wide[1]} % of all "
        f"in float32; {narrow[0]} % and {narrow[1]} % at 4 bits."
    )


# --- Where programs differ, is one of them wrong? ------------------------------------------------

RIGHT = {"derivative", "limit", "subgradient"}


def _stood(selection: str, bits: bool = False) -> list[Row]:
    rows = where(run("standing"), selection=selection)
    return [row for row in rows if (row["bits"] is not None) is bits]


@claim("standing")
def native_and_minimal_are_right() -> str:
    for selection in ("native", "minimal"):
        assert {row["standing"] for row in _stood(selection)} <= RIGHT
    points = len(_stood("native"))
    return (
        f"At each of the {points} points without quantisation the native gradient is right, and so "
        "is that of least norm:"
    )


@claim("standing")
def what_hybrid_10_is() -> str:
    with_kinks = [row for row in _stood("hybrid:10") if row["kinks"]]
    kinds = [row["standing"] for row in with_kinks]
    assert set(kinds) == {"wrong", "undecided"}
    assert all(r["standing"] in RIGHT for r in _stood("hybrid:10") if not r["kinks"])
    return (
        f"of the {len(kinds)} points where the loss has a kink it is wrong at "
        f"{kinds.count('wrong')}, and at {kinds.count('undecided')} nothing was decided."
    )


@claim("standing")
def how_many_kinks() -> str:
    rows = _stood("native")
    having = [row for row in rows if row["kinks"]]
    assert {row["precision"] for row in having} <= {"float16", "bfloat16"}
    few, many = (
        mean(r["kinks"] for r in rows if r["setting"] == f"lenet5, {size} images"
             and r["precision"] in ("float16", "bfloat16"))
        for size in (16, 64)
    )  # fmt: skip
    return (
        f"{len(having)} of {len(rows)} points have any, all of them in 16 bits, and few a point: "
        f"{few:.1f} on average for 16 digits, {many:.1f} for 64."
    )


@claim("standing")
def what_quantisation_does() -> str:
    rows = _stood("native", bits=True)
    eight, four = (mean(r["kinks"] for r in where(rows, bits=bits)) for bits in (8, 4))
    decided = [r for s in ("native", "minimal", "last", "random:0", "branch:0.5", "branch:1",
                           "hybrid:10") for r in _stood(s, bits=True)
               if r["standing"] != "undecided"]  # fmt: skip
    assert len(decided) == 3
    assert {row["standing"] for row in decided} <= RIGHT
    moved = [
        max(100 * row["variation"] for row in _stood(each, bits=True))
        for each in ("minimal", "last", "random:0", "branch:0.5", "branch:1")
    ]
    extreme = [100 * row["variation"] for row in _stood("hybrid:10", bits=True)]
    return (
        f"One digit alone meets {eight:.3g} kinks of the loss at 8 bits and {four:.3g} at 4 bits, "
        "on average and in float32; the choice moves the gradient by up to "
        f"{max(moved):.0f} %, `hybrid:10` by {min(extreme):.0f} to {max(extreme):.0f} %; and "
        "except for three gradients nothing was certified:"
    )


@claim("standing")
def the_others_are_right() -> str:
    for selection in ("last", "random:0", "branch:0.5", "branch:1"):
        rows = _stood(selection)
        assert {row["setting"] for row in rows} == {"lenet5, 16 images"}
        assert {row["standing"] for row in rows} <= RIGHT
        for precision in ("float16", "bfloat16", "float32", "float64"):
            assert len(where(rows, precision=precision)) == 12
    return (
        "`last`, `random:0`, `branch:0.5` and `branch:1` (ReLU'(0)), measured for LeNet-5 on 16 "
        "images, are right at 12 of 12 points in each precision."
    )


@claim("standing")
def how_far_rounding_moves_it() -> str:
    row = only(_stood("hybrid:10"), network="vgg16", precision="bfloat16")
    assert row["standing"] == "derivative"
    return f"in bfloat16 `hybrid:10` moves the gradient of VGG-16 by {100 * row['variation']:.0f} %"


# --- Variation and thresholds --------------------------------------------------------------------


@claim("variation")
def grid_of_the_histograms() -> str:
    rows = run("variation-histograms")
    draws, batches = ({row[name] for row in rows} for name in ("draw", "batch"))
    return (
        f"{len(draws) * len(batches)} points ({len(draws)} draws of the parameters by "
        f"{len(batches)} mini-batches of 128) a row,"
    )


@claim("variation")
def one_program_twice() -> str:
    rows = where(run("variation-histograms"), programs="native twice")
    assert {row["variation"] for row in rows} == {0.0}
    return f"One program run twice gives 0 at all {len(rows)} points."


@claim("variation")
def floors_above_thresholds() -> str:
    limits = {row["precision"]: row["threshold"] for row in run("volume-by-precision")}
    largest: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for row in run("thresholds"):
        if row.get("way") == "noise floor":
            key = row["network"], row["data"], row["precision"]
            largest[key] = max(largest[key], row["l1"])
    assert largest
    assert all(floor > limits[precision] for (*_, precision), floor in largest.items())
    return "Every noise floor lies above the published threshold of its precision:"


@claim("variation")
def choice_against_order() -> str:
    orders = []
    for network in ("vgg11", "vgg19"):
        of = where(run("thresholds"), network=network, data="cifar10", precision="float32")
        floor, pools = (
            max(row["l1"] for row in of if row.get("way") == way)
            for way in ("noise floor", "max pool")
        )
        orders.append(math.log10(floor / pools))
    assert 2.5 < orders[0] < 3
    assert 3.5 < orders[1] < 4
    return (
        "For VGG-11 and VGG-19 at 32 bits the choice of the derivative moves the gradient less "
        "than that order does, by nearly three and nearly four orders of magnitude."
    )


@claim("variation")
def relu_at_0_changed_nothing_beyond_16_bits() -> str:
    rows = [row for row in run("thresholds") if row.get("way") == "ReLU'(0)"]
    assert {row["l1"] for row in rows if row["precision"] != "float16"} == {0.0}
    return (
        "And the ReLU'(0) that the notebook in fact compares changed nothing beyond 16 bits at "
        "these points."
    )


@claim("variation")
def norm_pooling() -> str:
    rows = where(run("norm-pool"), selection="branch:1")
    points = {(row["draw"], row["batch"]) for row in rows}
    assert {r["precision"] for r in run("norm-pool") if r["variation"]} == {"float16"}
    least = min(row["variation"] for row in rows if row["variation"])
    return (
        f"The largest of {len(points)} points. **What it says.** Norms of 0 matter in float16 "
        "alone, where squares of small entries underflow to 0; bfloat16 has the range of float32. "
        f"The least D there is {least:.1e};".replace("e-0", "e-")
    )


# --- Public architectures ------------------------------------------------------------------------


@claim("zoo")
def models_without_kinks() -> str:
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for row in run("zoo"):
        kinds[row["model"]].add(row["standing"])
    decided = [model for model, found in kinds.items() if found == {"derivative"}]
    assert {model for model in kinds if model not in decided} == {"Mixtral", "Detr"}
    return (
        f"At the start of training, on one mini-batch, no loss of {len(decided)} of these "
        f"{len(kinds)} models had a kink: every gradient is the derivative."
    )


@claim("zoo")
def ties_of_rounding() -> str:
    in_half = False
    for row in run("zoo"):
        ties = dict(each.rsplit(" ", 1) for each in (row["tied"] or "").split(", ") if each)
        met = any(int(ties.get(name, 0)) for name in ("relu", "relu6"))
        assert not (met and row["precision"] == "float32")
        in_half |= met and row["precision"] == "bfloat16"
    assert in_half
    moved = max(max(row["minimal"] or 0, row["last"] or 0) for row in run("zoo"))
    return (
        "Ties of ReLU and ReLU6 are met in bfloat16 alone, and are ties of rounding: what is "
        f"chosen there moves the gradient by up to {moved:.0f} %, a rounding error."
    )


# --- ReLU'(0) ------------------------------------------------------------------------------------


@claim("relu")
def one_input_of_resnet50() -> str:
    rows = [row for row in run("relu-zeros") if row["precision"] == "float32"]
    (met,) = [row for row in rows if row["zeros"] and "densenet" not in row["network"]]
    assert (met["network"].startswith("resnet50"), met["zeros"]) == (True, 1)
    differing = [row for row in run("relu-zeros") if row["points_that_differ"]]
    assert [r["network"] for r in differing if r["precision"] == "float32"] == [met["network"]]
    assert not [row for row in differing if row["precision"] == "float64"]
    return (
        f"At 32 bits a single input of ResNet-50, of {met['inputs'] / 1e6:.0f} million, is exactly "
        "0, and α = 1 gives it another gradient; at no other point of 32 bits and at none of 64 "
        "does it."
    )


@claim("relu")
def zeros_per_million() -> str:
    rows = published("relu_zeros_by_architecture")
    widest = max(int(row["nb_neurons"]) for row in rows)
    half, single = (
        max(
            1e6 * int(row["zeros"]) / int(row["total_relu"])
            for row in rows
            if (int(row["nb_neurons"]), row["precision"]) == (widest, bits)
        )
        for bits in ("16", "32")
    )
    singles = [1e6 / row["inputs"] for row in run("relu-zeros-by-architecture")]
    return (
        f"(their widest networks have up to {half:.2g} per million at 16 bits and {single:.2g} at "
        f"32); with 2,000 digits a single zero is {min(singles):.2g} to {max(singles):.2g} per "
        "million."
    )


@claim("relu")
def volumes_do_not_depend_on_the_batch() -> str:
    rows = where(run("relu-volumes"), factor="batch_size", precision="float16")
    (percent,) = {row["percent"] for row in rows}
    sizes = [row["value"] for row in rows]
    return (
        "does not depend on the size of the mini-batches "
        f"({percent:.0f} % at 16 bits for every size from {min(sizes)} to {max(sizes):,}):"
    )


@claim("relu")
def the_share_grows_at_16_bits() -> str:
    rows = run("relu-volumes")
    for factor in ("sample_size", "layers", "neurons"):
        found = [row["percent"] for row in where(rows, factor=factor, precision="float16")]
        assert found == sorted(found)
        assert found[0] < found[-1]
    most = max(row["differing"] for row in rows if row["precision"] == "float32")
    (draws,) = {row["draws"] for row in rows}
    assert most == 1
    return f"At 32 bits at most one draw of {draws} meets the zone, of which nothing follows."


@claim("relu")
def vgg11_with_batch_norm_differs() -> str:
    of = {"network": "vgg11", "batch_norm": True, "data": "cifar10", "images": 300}
    here = where(run("relu-sample-volumes"), mean_first=False, **of)
    of_them = {"network": "vgg11", "batch_norm": "True", "images": "300"}
    there = where(published("relu_sample_volumes"), **of_them)
    half, single = (
        100 * int(row["draws_in_zone"]) / int(row["draws"])
        for row in sorted(there, key=lambda row: row["precision_bits"])
    )
    for row, share in zip(here, (half, single), strict=True):
        outside = not row["low"] <= share <= row["high"]
        assert outside
    own = [f"{row['percent']:.0f}" for row in here]
    return (
        f"at 300 images {half:.0f} % in 16 bits and {single:.0f} % in 32 bits there, {own[0]} and "
        f"{own[1]} % here."
    )


def _beside_published(**wanted: Any) -> tuple[int, int]:
    """How many shares of draws were published too, and how many of these sampling parts.

    It does if the intervals of Clopper and Pearson have nothing in common.
    """
    count = apart = 0
    for row in where(run("relu-sample-volumes"), data="cifar10", **wanted):
        for other in where(
            published("relu_sample_volumes"),
            network=row["network"],
            batch_norm=str(row["batch_norm"]),
            precision_bits=row["precision"].removeprefix("float"),
            images=str(row["images"]),
        ):
            test = stats.binomtest(int(other["draws_in_zone"]), int(other["draws"]))
            low, high = (100 * end for end in test.proportion_ci(0.95))
            count += 1
            apart += not (low <= row["high"] and row["low"] <= high)
    return count, apart


@claim("relu")
def without_batch_norm_shares_agree() -> str:
    count, apart = _beside_published(batch_norm=False)
    first = where(run("relu-sample-volumes"), batch_norm=False, precision="float16", images=100)
    assert not apart
    assert all(row["met"] == row["draws"] for row in where(first, data="cifar10"))
    assert not any(row["met"] for row in where(run("relu-sample-volumes"), data="mnist"))
    return (
        f"Without batch norm all {count} shares that were published are within sampling error: at "
        "16 bits every draw is in the zone within a hundred images, at 32 bits it takes more. The "
        "small networks met it at none of these images."
    )


@claim("relu")
def with_batch_norm_they_do_not() -> str:
    count, apart = _beside_published(batch_norm=True, mean_first=False)
    return f"With batch norm {apart} of {count} are not, VGG-11 most of all:"


@claim("relu")
def with_the_mean_first_they_do() -> str:
    count, apart = _beside_published(batch_norm=True, mean_first=True)
    assert not apart
    of = {"images": 400, "batch_norm": True, "mean_first": True}
    half, single, deeper = (
        only(run("relu-sample-volumes"), network=network, precision=precision, **of)
        for network, precision in (
            ("vgg11", "float16"), ("vgg11", "float32"), ("resnet18", "float32")
        )
    )  # fmt: skip
    return (
        f"With it all {count} shares are within sampling error of the published ones, which are "
        f"from GPUs: of VGG-11 at 400 images {half['met']} of {half['draws']} draws in 16 bits and "
        f"{single['met']} in 32 bits, of ResNet-18 {deeper['met']} in 32 bits."
    )


@claim("relu")
def alpha_changed_an_accuracy_where_a_zero_was_met() -> str:
    rows = run("relu-dropout")
    assert {row["zeros"] for row in rows} == {0, 1}
    changed = []
    for row in where(rows, alpha=0.0):
        other = only(rows, dropout=row["dropout"], run=row["run"], alpha=1.0)
        if row["test_accuracy"] != other["test_accuracy"]:
            changed.append(row["zeros"])
    assert changed
    assert all(changed)
    return (
        "In 32 bits these trainings met a zero or none, and α changed an accuracy only where one "
        "was met;"
    )


# --- Training under β ----------------------------------------------------------------------------


def _lenet(**wanted: Any) -> dict[int, Row]:
    rows = where(run("accuracy-lenet5-mnist"), epoch=None, **wanted)
    return {int(row["max_pool"].partition(":")[2]): row for row in rows if "runs" in row}


@claim("training")
def no_beta_matters_in_32_bits() -> str:
    moved = []
    for norm, optimizer in ((False, "sgd"), (True, "sgd"), (False, "adam"), (True, "adam")):
        found = _lenet(batch_norm=norm, optimizer=optimizer, precision="float32")
        moved += [abs(row["accuracy"] - found[0]["accuracy"]) for row in found.values()]
    return (
        f"In 32 bits no β up to 10⁴ changes the accuracy by more than {max(moved):.2f} points, "
        "with or without batch norm, under SGD or Adam."
    )


@claim("training")
def what_diverges_in_16_bits() -> str:
    of = {"optimizer": "sgd", "precision": "float16"}
    found = [_lenet(batch_norm=norm, **of) for norm in (False, True)]
    assert all(each[10_000]["diverged"] == each[10_000]["runs"] for each in found)
    lost = sum(each[1000]["diverged"] for each in found)
    runs = sum(each[1000]["runs"] for each in found)
    return (
        f"In 16 bits all trainings diverge at β = 10⁴ and {_WORDS[lost]} of {_WORDS[runs]} at 10³."
    )


@claim("training")
def larger_networks() -> str:
    names = (
        "accuracy-vgg11-cifar10", "accuracy-vgg11-svhn", "accuracy-resnet18-cifar10",
        "accuracy-densenet121-cifar10", "accuracy-resnet50-imagenet",
    )  # fmt: skip
    finals = {name: where(run(name), epoch=None) for name in names}
    assert not any(row["diverged"] for rows in finals.values() for row in rows)
    first, second = finals["accuracy-vgg11-svhn"]
    assert first["data"] == second["data"] == "cifar10"
    assert first["accuracies"] == second["accuracies"]
    assert len(finals["accuracy-vgg11-cifar10"]) == 4  # two rows of the table
    return (
        "`accuracy-vgg11-svhn` takes CIFAR-10 in the place of SVHN: it is the third row, at "
        f"{first['accuracy']:.1f} % under both."
    )


@claim("training")
def how_far_networks_part() -> str:
    rows = run("weight-divergence")
    last = max(row["epoch"] for row in rows)
    far = {
        precision: [
            row["l1"]
            for row in where(rows, epoch=last, precision=precision)
            if row["network"] not in (0, 6) and row["l1"] is not None
        ]
        for precision in ("float16", "float32", "float64")
    }
    controls = {row["l1"] for row in rows if row["network"] in (0, 6)}
    assert controls == {0.0}
    assert all(l1 for each in far.values() for l1 in each)
    up_to_1000 = where(rows, epoch=last, precision="float64")[1:5]
    assert max(row["l1"] for row in up_to_1000) < 1e-12
    half, single = far["float16"], far["float32"]
    return (
        f"{min(half):.0f} to {max(half):.0f} in 16 bits, {min(single):.0f} to {max(single):.0f} in "
        "32 bits, 1e-12 and less in 64 bits up to β = 10³."
    )


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "found"), [pytest.param(page, found, id=found.__name__) for page, found in CLAIMS]
)
def test_a_sentence_is_what_the_stored_runs_say(page: str, found: Claim) -> None:
    text = re.sub(r"\s+", " ", (PAGES / f"{page}.md").read_text("utf-8"))
    assert found() in text
