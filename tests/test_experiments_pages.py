"""The pages of experiments: their tables and figures are those of the stored runs."""

from __future__ import annotations

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from kinkcheck.errors import InputError
from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.paper.experiments import (
    lift,
    relu_backward_confound,
    relu_volumes,
    standing,
    thresholds,
    volumes,
    weight_divergence,
    zoo,
)
from kinkcheck.paper.harness.running import read
from kinkcheck.paper.harness.trainings import Final

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "experiments").glob("*.md"))
RUNS = sorted((ROOT / "docs" / "experiments" / "runs").iterdir())


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(ROOT)
    spec = spec_from_file_location("experiments_pages", ROOT / "tools" / "experiments_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_what_the_stored_runs_say(page: Path, writer: Any) -> None:
    text = page.read_text("utf-8")
    assert writer.page(text) == text
    assert (
        text.count("<!-- table ") == text.count("<!-- end -->") == len(writer.TABLE.findall(text))
    )
    for figure, name, _ in writer.figures(text):
        assert writer.digest(name).encode() in figure.read_bytes()


def test_every_view_is_on_a_page(writer: Any) -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    marks = [
        (name, view)
        for _, names, view, _ in writer.TABLE.findall(text)
        for name in names.split(",")
    ]
    assert sorted(marks) == sorted(writer.VIEWS)
    for run in RUNS:
        assert run.stem in dict(marks) or f"figures/{run.stem}." in text


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_stored_run_is_what_its_experiment_writes(run: Path, writer: Any) -> None:
    numbers = read(EXPERIMENTS[run.stem], run.parent)
    assert numbers.rows
    assert run.read_text("utf-8") == writer.to_json(numbers)
    assert run.stat().st_size <= writer.LARGEST


def test_a_table_follows_the_numbers(
    writer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "experiments" / "introduction.md").read_text("utf-8")
    stored = (ROOT / "docs" / "experiments" / "runs" / "programs.json").read_text("utf-8")
    out, runs = tmp_path / "out", tmp_path / "runs"
    out.mkdir()
    changed = json.loads(stored.replace('"derivative":-1.5', '"derivative":-7.25'))
    del changed["digest"]
    (out / "programs.json").write_text(json.dumps(changed))
    monkeypatch.setattr(writer, "RUNS", runs)
    assert writer.page(page) == page  # what has no stored run is left as it is
    writer.store(out)
    written = writer.page(page)
    assert "| (1, 2, 3, 4) | 0 | any | −7.2 | −1.5 |" in written
    assert len(written.splitlines()) == len(page.splitlines())
    shutil.copy(runs / "programs.json", runs / "relu-zeros.json")
    with pytest.raises(InputError, match=r"relu-zeros.json, row 1"):
        writer.page((ROOT / "docs" / "experiments" / "relu.md").read_text("utf-8"))


LIFTED = [
    lift.Row("batch_size", 64, "vgg11", "cifar10", "float32", 0, batch, *judged)
    for batch, judged in enumerate(
        [
            (2e-7, "bifurcation", "compensation"),
            (5e-8, "compensation", "compensation"),
            (1e-6, "bifurcation", "bifurcation"),
        ]
    )
]
CONFIGURATION = ("mnist", "lenet5", True, "sgd", "float16", "compound", None)
TRAINED = [
    Final(*CONFIGURATION, f"hybrid:{beta}", 2, lost, "", accuracy, "", 9.8, 0.1, False)
    for beta, lost, accuracy in ((0, 0, 95.0), (1000, 1, 90.74), (10000, 2, None))
]
MADE_UP = {
    ("thresholds", "floors"): (
        [
            thresholds.Row("vgg11", "cifar10", 8, "float16", way, 0, batch, d)
            for way, d in (("noise floor", 0.068), ("max pool", 1.5), ("ReLU'(0)", 0.0))
            for batch, d in enumerate((d / 2, d))
        ],
        "| VGG-11 | CIFAR-10 | float16 | 0.068 | 1.5 | 0 | 0.001 |",
    ),
    ("volume-by-batch-size", "shares"): (
        [volumes.Row("batch_size", 512, "vgg11", "float32", 1e-7, 2, 2, 100.0, 15.8, 100.0)],
        "| mini-batches of 512 | float32 | 2 | 100 | 16-100 | 76.5 | yes |",
    ),
    ("threshold-against-lift", "judges"): (
        LIFTED,
        "| float32 | 3 | 2 | 1 | 2 | 1 | 33 | 0 |",
    ),
    ("threshold-against-lift", "settings"): (
        LIFTED,
        "| VGG-11, batch size 64 | float32 | 3 | 2 | 1 |",
    ),
    ("accuracy-lenet5-mnist", "accuracies"): (
        TRAINED,
        "| yes | SGD | float16 | 95.0 | 90.7 (1) | (2) |",
    ),
    ("accuracy-vgg11-cifar10", "pairs"): (
        TRAINED,
        "| LeNet-5, batch norm | MNIST | SGD | float16 | 1,000 | 95.0 | 90.7 (1) |",
    ),
    ("weight-divergence", "networks"): (
        [
            weight_divergence.Row("t", epoch, 4, "hybrid:1000", l1, 1.0, None, 0.25, None, None)
            for epoch, l1 in enumerate((0.0, 56.41))
        ],
        "| float32 | 4 | 1,000 | 56.4 | 25.0 |",
    ),
    ("relu-volumes", "draws"): (
        [
            relu_volumes.Row("layers", 6, precision, 2048, 20, 18, percent, 0.0, 100.0)
            for precision, percent in (("float16", 90.0), ("float32", 5.0), ("float64", 0.0))
        ],
        "| layers | 6 | 2,048 | 90 | 5 | 0 |",
    ),
    ("relu-backward-confound", "gradients"): (
        [
            row
            for name, norm in (("exact", 0.2614), ("assigned", 1.171))
            for row in (
                relu_backward_confound.Step("resnet18", 0.1, name, 64, 6, 7, norm, 2.3),
                relu_backward_confound.Step("resnet18", 0.1, name, 64, 7, 0, 2 * norm, 2.3),
                Final(
                    "cifar10", "resnet18", False, "sgd", "float32", "exact", "branch:0.1", None,
                    1, 0, "", 100 * norm, "", 10.0, 0.1, False, backward=name,
                ),
            )
        ],
        "| ResNet-18 | 0.1 | 6 | 1 | 0.261 | 0.523 | 26.1 | 1 | 1.17 | 2.34 | 117.1 |",
    ),
    ("standing", "certified"): (
        [
            standing.Row(
                "lenet5, 16 images", "lenet5", "mnist", 16, None, "float16", 0, batch, name, kind,
                None, 0.0, 1, 0, 1, None, None, None,
            )
            for name, kind in (("native", "limit"), ("minimal", "limit"), ("hybrid:10", "wrong"))
            for batch in range(2)
        ],
        "| LeNet-5, 16 images | float16 | 2 | 1 | 16 | 2 of 2 | 2 of 2 | 0 of 2, 2 wrong |",
    ),
    ("zoo", "models"): (
        [
            zoo.Row("Bit", "as it is", None, "float32", tied, "derivative", None, 0.8, 1.6, None,
                    3, 3, 0)
            for tied in ("max_pool2d 129", None)
        ],
        "| Bit | float32 | max_pool2d 129 | derivative | 0 | 0.8 | 1.6 |",
    ),
}  # fmt: skip


@pytest.mark.parametrize("view", MADE_UP, ids=" ".join)
def test_views_of_made_up_rows(view: tuple[str, str], writer: Any) -> None:
    rows, expected = MADE_UP[view]
    lines = writer.grid(writer.VIEWS[view](rows)).splitlines()
    assert expected in lines
    assert len({line.count("|") for line in lines}) == 1


def test_numbers_as_they_are_written(writer: Any) -> None:
    said = {
        0.0: "0", -1.5: "−1.5", 4.8828125e-4: "4.9e-4", -5.96e-8: "−6.0e-8", 0.0023: "0.0023",
        86.37: "86", 34733.2: "34,733", 1e-15: "1.0e-15", 7070.7: "7,071", None: "",
    }  # fmt: skip
    assert {value: writer.short(value) for value in said} == said
