"""``kinkcheck paper list``, and what there is to compare with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Kinkcheck, fits
from kinkcheck import data
from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.study.spec import shipped


def test_the_list_is_a_table_with_a_row_an_experiment(kinkcheck: Kinkcheck) -> None:
    shown = kinkcheck("paper", "list")
    assert shown.code == 0
    assert fits(shown.out)
    header, *lines = shown.out.split("\n\n")[0].splitlines()
    places = [header.index(text) for text in ("name", "time", "needs", "published")]
    rows = [
        [line[a:b].strip() for a, b in zip(places, [*places[1:], None], strict=True)]
        for line in lines
        if not line.startswith(" ")
    ]
    assert [name for name, *_ in rows] == list(EXPERIMENTS)
    by_name = {name: rest for name, *rest in rows}
    assert by_name["volume-by-precision"] == ["7 min, 1 busy core", "cifar10", "yes"]
    assert by_name["weight-divergence"] == ["7 min, 1 core ?", "cifar10; 1 GPU", "no"]
    assert by_name["accuracy-resnet50-imagenet"][1] == "imagenet; 1 GPU"


def test_one_of_them_is_said_more_of(kinkcheck: Kinkcheck) -> None:
    shown = kinkcheck("paper", "list", "relu-training-svhn")
    assert shown.code == 0
    assert "weeks on 1 GPU (an estimate); data: svhn" in shown.text
    assert "4 min on 1 busy core; data: cifar10" in shown.text
    wrong = kinkcheck("paper", "list", "zooo")
    assert wrong.code == 2
    assert "did you mean 'zoo'?" in wrong.err


def test_an_experiment_without_published_values_says_so(kinkcheck: Kinkcheck) -> None:
    shown = kinkcheck("paper", "compare", "zoo")
    assert shown.code == 0
    assert shown.out == "zoo: nothing to compare with: it has no published values.\n"


def test_a_folder_without_numbers_has_nothing_to_compare(
    kinkcheck: Kinkcheck, folder: Path
) -> None:
    shown = kinkcheck("paper", "compare", "all", "--out", "paper")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "kinkcheck: --out: paper holds no numbers of an experiment; kinkcheck paper run NAME "
        "--out paper measures them\n"
    )
    for name in ("zoo", "tied-windows"):
        (folder / f"{name}.json").touch()
    shown = kinkcheck("paper", "compare", "all", "--out", ".")
    assert shown.code == 0
    assert [line.partition(":")[0] for line in shown.out.splitlines()] == ["tied-windows", "zoo"]


RUNS = Path(__file__).parent.parent / "docs" / "experiments" / "runs"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "accuracy-lenet5-mnist",
            "56 comparisons, without a verdict: reduced, this is not the published quantity.",
        ),
        (
            "relu-dropout",
            "4 comparisons, without a verdict: reduced, this is not the published quantity.",
        ),
        (
            "relu-zeros-by-architecture",
            "80 comparisons, without a verdict: the sampling error is not known.",
        ),
        (
            "relu-volumes",
            "30 comparisons, without a verdict: reduced, this is not the published quantity.",
        ),
        (
            "relu-sample-volumes",
            "36 of 36 comparisons have a verdict: 29 agree within sampling error (95 %), 7 do not.",
        ),
    ],
)
def test_another_quantity_has_no_verdict(name: str, said: str, kinkcheck: Kinkcheck) -> None:
    shown = kinkcheck("paper", "compare", name, "--out", str(RUNS))
    assert shown.code == 0
    assert f"{name}: {said}" in " ".join(shown.out.split())
    assert ("within sampling error" in shown.out.splitlines()[0]) == ("quantity" not in said)


def test_a_full_training_of_two_runs_has_none_either(kinkcheck: Kinkcheck, folder: Path) -> None:
    content = json.loads((RUNS / "relu-dropout.json").read_text())
    del content["digest"]
    (folder / "relu-dropout.json").write_text(json.dumps(content | {"reduced": False}))
    shown = kinkcheck("paper", "compare", "relu-dropout", "--out", ".")
    assert "41.55      98.59" in shown.out
    assert shown.out.splitlines()[-1] == (
        "relu-dropout: 4 comparisons, without a verdict: the sampling error is not known."
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_needed_is_known(name: str) -> None:
    experiment = EXPERIMENTS[name]
    for cost in (experiment.cost, experiment.cost_reduced):
        assert set(cost.data) <= set(data.NAMES)
        assert cost.time
        assert cost.on
    if name.startswith(("accuracy-", "relu-training-")):
        assert experiment.cost.data == (name.rpartition("-")[2],)


def test_the_data_of_trainings_are_those_of_their_specs() -> None:
    for name, spec in (
        ("accuracy-lenet5-mnist", "mnist-lenet5"),
        ("accuracy-vgg11-svhn", "svhn-vgg11"),
        ("relu-training-imagenet", "relu-imagenet-resnet50"),
        ("weight-divergence", "vgg11-weight-divergence"),
    ):
        (settings, *_) = shipped(spec).trials()
        assert f"data={EXPERIMENTS[name].cost.data[0]!r}" in repr(settings)
