"""Precisions: names, casts, contexts and devices, against numpy and IEEE 754."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from kinkcheck.arithmetic.precision import PRECISIONS, Precision, parse, require_available
from kinkcheck.errors import InputError

NUMPY = {"float16": np.float16, "float32": np.float32, "float64": np.float64}

# Bits of the significand, the implicit one included (IEEE 754-2019, table 3.1; bfloat16: 8).
SIGNIFICAND = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53, "mixed": 11}


def awkward(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of every size, among them ties of the rounding, subnormals, infinities."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(4000, dtype=torch.float64, generator=generator)
    numbers = numbers * 2.0 ** torch.randint(-30, 18, (4000,), generator=generator)
    ties = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-24, 1 + 3 * 2.0**-24])
    edges = torch.tensor([0.0, -0.0, 65519.9, 65520.0, -1e6, 2.0**-24, 2.0**-25, torch.inf])
    return torch.cat([numbers, ties.double(), edges.double()]).to(dtype)


@pytest.mark.parametrize(
    ("short", "name"), [("16", "float16"), ("32", "float32"), ("64", "float64"), ("24", "mixed")]
)
def test_short_name_is_the_papers(short: str, name: str) -> None:
    assert parse(short) is parse(name) is PRECISIONS[name]
    assert str(parse(short)) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (16, "float16"), (32, "float32"), (64, "float64"), ("fp16", "float16"), ("fp32", "float32"),
        ("fp64", "float64"), ("bf16", "bfloat16"), ("torch.bfloat16", "bfloat16"),
        (torch.half, "float16"), (torch.bfloat16, "bfloat16"), (torch.double, "float64"),
    ],
)  # fmt: skip
def test_what_people_write_is_understood(given: str | int | torch.dtype, name: str) -> None:
    assert parse(given) is PRECISIONS[name]


@pytest.mark.parametrize("given", [torch.int32, torch.complex64, 8, True, None])
def test_what_is_no_precision_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="unknown precision"):
        parse(given)  # type: ignore[arg-type]


def test_parsed_precision_is_returned_unchanged() -> None:
    own = Precision("own", torch.float64)
    assert parse(own) is own


@pytest.mark.parametrize("text", ["8", "", "fp15", "Float32", "16 "])
def test_unknown_name_is_refused_with_the_accepted_ones(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    words = str(error.value).replace(",", " ").split()
    assert {"float16", "bfloat16", "float32", "float64", "mixed", "16", "32", "64", "24"} <= {
        *words
    }


@pytest.mark.parametrize("name", PRECISIONS)
def test_unit_roundoff_is_half_a_unit_in_the_last_place_of_one(name: str) -> None:
    assert PRECISIONS[name].unit_roundoff == 2.0 ** -SIGNIFICAND[name]


def test_cast_up_keeps_every_bit() -> None:
    numbers = awkward(torch.float32)
    up = PRECISIONS["float64"].cast(numbers)
    assert np.array_equal(up.numpy(), numbers.numpy().astype(np.float64))
    assert torch.equal(PRECISIONS["float32"].cast(up), numbers)


@pytest.mark.parametrize("name", ["float16", "float32"])
def test_cast_down_rounds_as_numpy_does(name: str) -> None:
    numbers = awkward(torch.float64)
    with np.errstate(over="ignore"):
        rounded = numbers.numpy().astype(NUMPY[name])
    assert np.array_equal(PRECISIONS[name].cast(numbers).numpy(), rounded)


def test_bfloat16_is_float32_rounded_to_its_upper_half() -> None:
    numbers = awkward(torch.float32)
    bits = numbers[numbers.isfinite()].numpy().view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    cast = PRECISIONS["bfloat16"].cast(numbers[numbers.isfinite()])
    assert np.array_equal(cast.float().numpy(), upper.view(np.float32))


@pytest.mark.parametrize("name", PRECISIONS)
def test_model_is_cast_as_its_tensors_are_and_left_alone(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cast = PRECISIONS[name].cast_model(model)
    for key, tensor in cast.state_dict().items():
        if key.endswith("num_batches_tracked"):
            assert tensor.dtype == torch.int64
        else:
            assert tensor.dtype == PRECISIONS[name].storage
            assert torch.equal(tensor, before[key].to(tensor.dtype))
        assert model.state_dict()[key].dtype == before[key].dtype
        assert torch.equal(model.state_dict()[key], before[key])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_tensors_that_are_no_floats_keep_their_type(dtype: torch.dtype) -> None:
    assert PRECISIONS["float16"].cast(torch.ones(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", PRECISIONS)
def test_only_mixed_computes_in_another_type_than_it_stores(name: str) -> None:
    precision = PRECISIONS[name]
    model = precision.cast_model(nn.Linear(2, 2))
    with precision.computation():
        output = model(precision.cast(torch.ones(1, 2)))
    assert model.weight.dtype == precision.storage
    assert output.dtype == (torch.float16 if name == "mixed" else precision.storage)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", PRECISIONS)
def test_cpu_has_every_precision(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_available(PRECISIONS[name], "cpu")


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:4096"])
def test_device_that_is_not_there_is_named_in_one_line(device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used") as error:
        require_available(PRECISIONS["float32"], device)
    assert "\n" not in str(error.value)


def test_nearest_device_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"'cud' cannot be used; did you mean 'cuda'\?"):
        require_available(PRECISIONS["float32"], "cud")


def test_only_the_first_line_of_a_complaint_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(*_: object, **__: object) -> None:
        raise RuntimeError("out of order\nsecond line\nthird line")

    monkeypatch.setattr(torch, "zeros", complain)
    with pytest.raises(InputError, match=r"cannot be used: out of order$"):
        require_available(PRECISIONS["float32"], "cpu")
    monkeypatch.undo()
    monkeypatch.setattr(torch, "ones", complain)
    with pytest.raises(InputError, match=r"has no float16: out of order$"):
        require_available(PRECISIONS["float16"], "cpu")


def test_precision_that_a_device_lacks_is_named_with_it() -> None:
    lacking = Precision("complex-half", torch.quint8)
    with pytest.raises(InputError, match="device 'cpu' has no complex-half") as error:
        require_available(lacking, "cpu")
    assert "\n" not in str(error.value)
