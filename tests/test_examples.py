"""The programs in ``examples``: each runs as it says, and its numbers are right."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from command_line import Kinkcheck, fits
from kinkcheck.study import spec

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TASKS = sorted(path.stem for path in EXAMPLES.glob("*_task.py"))
NAMES = sorted({path.stem for path in EXAMPLES.glob("*.py")} - {"ported_jax", *TASKS})


def make(name: str) -> tuple[nn.Module, list[Any], Any]:
    """What the example returns when the seed is 0, as without kinkcheck."""
    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: tuple[nn.Module, list[Any], Any] = example["make"]()
    return made


def gradients_l1(
    model: nn.Module, batches: list[Any], step: Any, dtype: torch.dtype = torch.float32
) -> list[float]:
    """The l1 norm of the gradient on each batch, by plain PyTorch from the seed of its number."""
    model.to(dtype)
    found = []
    for number, batch in enumerate(batches):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            gradient = torch.autograd.grad(step(model, batch), list(model.parameters()))
        found.append(sum(each.double().abs().sum().item() for each in gradient))
    return found


def audited(kinkcheck: Kinkcheck, name: str) -> tuple[dict[str, Any], str]:
    """The JSON and the text of the audit that the example's own docstring asks for."""
    shutil.copytree(EXAMPLES, "examples")
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    kinkcheck (audit .*)$", text, re.MULTILINE)
    run = kinkcheck(*shlex.split(command), "-v", "--json", "audit.json")
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    return json.loads(Path("audit.json").read_text(encoding="utf-8")), run.text


def reported(found: dict[str, Any], precision: str) -> list[float]:
    return [point["gradient_l1"] for point in found["points"] if point["precision"] == precision]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_what_it_shows(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert re.search(rf"^    kinkcheck audit examples/{name}.py:make\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_shows_and_how_it_is_trained(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    study = EXAMPLES / f"{name.removesuffix('task')}study.toml"
    assert re.search(rf"^    kinkcheck study run examples/{study.name} --out ", text, re.MULTILINE)
    assert spec.load(str(study)).task is not None


def test_the_penalty_is_part_of_the_gradient(kinkcheck: Kinkcheck) -> None:
    found, text = audited(kinkcheck, "penalty")
    model, batches, step = make("penalty")

    def by_hand(images: Tensor, labels: Tensor) -> float:
        loss = F.cross_entropy(model(images), labels)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        whole = [
            g + 0.02 * p if p.dim() > 1 else g
            for g, p in zip(gradient, model.parameters(), strict=True)
        ]
        return sum(each.double().abs().sum().item() for each in whole)

    assert len(found["points"]) == 2 * len(batches)
    assert reported(found, "float32") == gradients_l1(model, batches, step)
    assert reported(found, "float32") == pytest.approx([by_hand(*batch) for batch in batches])
    assert {point["zone"] for point in found["points"]} == {"compensation"}
    assert "all of it rounding" in text
    assert found["unseen"] == found["left_out"] == []


def test_a_text_classifier_is_audited_with_dropout_and_its_own_loss(kinkcheck: Kinkcheck) -> None:
    found, _ = audited(kinkcheck, "text_classifier")
    model, batches, step = make("text_classifier")
    assert any(isinstance(each, nn.Dropout) and each.p > 0 for each in model.modules())
    assert model.training
    assert len(found["points"]) == len(batches) == 2
    assert reported(found, "bfloat16") == gradients_l1(model, batches, step, torch.bfloat16)
    assert [site["operation"] for site in found["sites"]] == ["relu", "relu"]
    assert found["left_out"] == []
    assert all(point["lift"] is not None for point in found["points"])


def test_the_greatest_message_is_a_site_whose_ties_are_switched(kinkcheck: Kinkcheck) -> None:
    found, text = audited(kinkcheck, "graph_max")
    model, batches, step = make("graph_max")
    assert reported(found, "float32") == gradients_l1(model, batches, step)
    assert len({len(graph.nodes) for graph in batches}) == len(found["points"]) == 4
    tied = {site["layer"]: site["tied"] for site in found["sites"]
            if site["operation"] == "scatter_reduce"}  # fmt: skip
    assert tied == ties_of_messages(model, batches)
    assert any(point["variation"]["l1"] > 0 for point in found["points"])
    assert found["unseen"] == []
    # Nodes are no samples: edges refer to them by number.
    (left_out,) = found["left_out"]
    assert left_out["points"] == 1  # the one that was lifted
    assert "no samples were found" in left_out["what"]
    assert "Not measured at 1 point: the noise floor" in text


def ties_of_messages(model: nn.Module, graphs: list[Any]) -> dict[str, int]:
    """How many outputs of each layer several messages attain, or one and the 0 to begin with."""
    found = {"first": 0, "second": 0}
    for graph in graphs:
        x = graph.nodes
        source, target = graph.edges
        for name in found:
            layer = model.get_submodule(name)
            sent = layer.message(x)[source].relu()
            for node in range(len(x)):
                arriving = torch.cat([torch.zeros(1, sent.shape[1]), sent[target == node]])
                found[name] += int((arriving == arriving.amax(0)).sum(0).gt(1).sum())
            x = layer(x, graph.edges).relu()
    return found


def test_a_critic_is_audited_with_the_penalty_on_its_slopes(kinkcheck: Kinkcheck) -> None:
    found, text = audited(kinkcheck, "critic")
    model, batches, step = make("critic")
    assert reported(found, "float32") == pytest.approx(gradients_l1(model, batches, step))
    calls = [(site["layer"], site["operation"]) for site in found["sites"]]
    critic = [("1", "leaky_relu"), ("3", "leaky_relu")]
    assert calls == [*critic, ("", "norm"), *critic, *critic]
    assert {each["operation"] for each in found["unseen"]} == {"leaky_relu_backward"}
    assert "may have kinks or jumps: leaky_relu_backward" in text


def test_a_mobilenet_meets_the_kinks_of_relu6_at_16_bits(kinkcheck: Kinkcheck) -> None:
    found, _ = audited(kinkcheck, "mobilenet")
    model, batches, step = make("mobilenet")
    relu6 = [name for name, each in model.named_modules() if isinstance(each, nn.ReLU6)]
    assert [site["layer"] for site in found["sites"]] == relu6
    met = {name: 0 for name in relu6}

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            met[name] += int(((inputs[0] == 0) | (inputs[0] == 6)).sum())

        return hook

    for name in relu6:
        model.get_submodule(name).register_forward_hook(count(name))
    cast = [batch | {"pixel_values": batch["pixel_values"].bfloat16()} for batch in batches]
    expected = gradients_l1(model, cast, step, torch.bfloat16)
    assert reported(found, "bfloat16") == expected
    assert {site["layer"]: site["tied"] for site in found["sites"]} == met
    assert sum(met.values()) > 0
    assert any(point["variation"]["l1"] > 0 for point in found["points"])
    assert found["unseen"] == []


def test_a_volume_names_what_was_not_switched_when_it_goes_on_too(
    kinkcheck: Kinkcheck, tmp_path: Path
) -> None:
    for name, what in (
        ("graph_max", "Not measured at 8 points: the noise floor"),
        ("critic", "may have kinks or jumps: leaky_relu_backward"),
    ):
        command = ("volume", str(EXAMPLES / f"{name}.py:make"), "--draws", "2")
        out = ("--out", str(tmp_path / f"{name}.jsonl"))
        first = kinkcheck(*command, *out)
        again = kinkcheck(*command, *out)  # nothing is left to measure
        for run in (first, again):
            assert what in run.text


def test_weights_on_a_bound_stop_where_clamp_does(kinkcheck: Kinkcheck) -> None:
    found, text = audited(kinkcheck, "quantised")
    model, batches, step = make("quantised")
    sites = {(site["layer"], site["operation"]): site for site in found["sites"]}
    for layer in ("1", "3"):
        weight = model.get_submodule(layer).weight.detach()
        steps = torch.round(weight / (weight.abs().quantile(0.8) / 7))
        saturated = int(((steps == -8) | (steps == 7)).sum())
        site = sites[layer, "clamp"]
        assert (site["tied"], site["windows"]) == (2 * saturated, 2 * weight.numel())

    def clamp_with(slope: int) -> Any:
        def clamp(input: Tensor, low: int, high: int) -> Tensor:
            slopes = ((input > low) & (input < high)) + slope * ((input == low) | (input == high))
            return torch.clamp(input.detach(), low, high) + (input - input.detach()) * slopes

        return clamp

    gradients = []
    for slope in (1, 0):  # what PyTorch 2.13 and 2.14 have on a bound
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Tensor, "clamp", clamp_with(slope))
            parameters = list(model.parameters())
            gradients.append([torch.autograd.grad(step(model, b), parameters) for b in batches])
    for point, before, after in zip(found["points"], *gradients, strict=True):
        assert point["gradient_l1"] == pytest.approx(
            sum(each.double().abs().sum().item() for each in before)
        )
        moved = sum((a - b).double().abs().sum().item() for a, b in zip(before, after, strict=True))
        assert point["variation"]["l1"] == pytest.approx(moved, rel=1e-3)
    assert (found["reference"], found["selections"]) == ("as:torch-2.13", ["as:torch-2.14"])
    assert "straight-through estimator" in json.dumps(found["unseen"])
    assert "kinkcheck.record" in text


def test_the_smaller_objective_ties_everywhere_before_the_first_update(
    kinkcheck: Kinkcheck,
) -> None:
    found, text = audited(kinkcheck, "ppo")
    model, batches, step = make("ppo")
    assert reported(found, "float32") == gradients_l1(model, batches, step)
    tied = {site["operation"]: (site["tied"], site["windows"]) for site in found["sites"]}
    assert tied["minimum"] == tied["maximum"] == (128, 128)
    assert tied["clamp"][0] == 0
    # Both have one derivative there: the ratio is inside its bounds.
    assert {point["variation"]["l1"] for point in found["points"]} == {0.0}
    assert "does not matter" in text
