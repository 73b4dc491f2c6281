"""Specs: what a TOML file declares, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kinkcheck.errors import InputError
from kinkcheck.study import spec
from kinkcheck.study.settings import Classification, Settings

BASE = """
data = "mnist-sample"
network = "lenet5"
epochs = 2
learning_rate = 0.01
"""

BETAS = ("hybrid:0", "hybrid:1", "hybrid:10", "hybrid:100", "hybrid:1000", "hybrid:10000")


def trials(extra: str = "") -> tuple[Settings, ...]:
    return spec.parse(BASE + extra, "my.toml").trials()


def of_images(settings: Settings) -> Classification:
    assert isinstance(settings.task, Classification)
    return settings.task


def test_the_grid_is_the_product_of_all_lists() -> None:
    found = trials(
        'seeds = [3, 5]\nbatch_norm = [false, true]\nprecision = [16, "mixed"]\n'
        'max_pool = ["hybrid:0", "minimal"]\nrelu = ["native", "branch:1"]\n'
        'forward = ["exact", "compound"]\noptimizer = ["sgd", "adam"]\n'
    )
    assert len(found) == 2**7
    assert len({settings.id for settings in found}) == 2**7
    # Every seed completes a table before the next begins.
    assert [s.seed for s in found] == [3] * 64 + [5] * 64
    assert {s.precision for s in found} == {"float16", "mixed"}


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ('[[exclude]]\nforward = "compound"\nmax_pool = ["hybrid:1e1", "minimal"]', 4),
        ("[[exclude]]\nprecision = 16", 3),
        ('[[exclude]]\nprecision = 16\n[[exclude]]\nmax_pool = "hybrid:10"', 2),
    ],
)
def test_rules_take_cells_out(rules: str, left: int) -> None:
    grid = {
        4: 'max_pool = ["native", "hybrid:10", "minimal"]\nforward = ["exact", "compound"]\n',
        3: 'max_pool = ["native", "hybrid:10", "minimal"]\nprecision = [16, 32]\n',
        2: 'max_pool = ["native", "hybrid:10", "minimal"]\nprecision = [16, 32]\n',
    }[left]
    assert len(trials(f"seeds = 1\n{grid}{rules}")) == left


def test_a_forward_without_beta_can_be_taken_out() -> None:
    grid = 'seeds = 1\nmax_pool = ["hybrid:0", "last"]\nforward = ["exact", "compound"]\n'
    found = trials(f'{grid}[[exclude]]\nmax_pool = "last"\nforward = "compound"')
    assert [(s.forward, s.selections["max_pool"]) for s in found] == [
        ("exact", "hybrid:0"), ("exact", "last"), ("compound", "hybrid:0"),
    ]  # fmt: skip


def test_a_backward_pass_is_varied_and_the_exact_one_keeps_its_id() -> None:
    grid = 'seeds = 1\nrelu = ["branch:0.5", "minimal"]\n'
    exact, lone, assigned = trials(
        f'{grid}backward = ["exact", "assigned"]\n'
        '[[exclude]]\nrelu = "minimal"\nbackward = "assigned"'
    )
    assert (exact, lone) == trials(grid)
    assert "backward" not in exact.to_json()  # as in studies from before there was another
    assert assigned == replace(exact, backward="assigned")
    assert assigned.id != exact.id
    assert Settings.from_json(assigned.to_json()) == assigned


def test_every_family_of_the_table_is_varied() -> None:
    found = trials(
        'seeds = 1\n[selections]\nhardtanh = ["native", "branch:5e-1"]\nleaky_relu = "last"\n'
        'max_pool = ["hybrid:0", "minimal"]\n'
        '[[exclude]]\nhardtanh = "branch:0.5"\nmax_pool = "hybrid:0"'
    )
    assert [s.selections for s in found] == [
        {"hardtanh": hardtanh, "leaky_relu": "last", "max_pool": max_pool}
        for hardtanh, max_pool in (
            ("native", "hybrid:0"), ("native", "minimal"), ("branch:0.5", "minimal"),
        )
    ]  # fmt: skip
    assert len({s.id for s in found}) == 3
    assert [Settings.from_json(s.to_json()) for s in found] == list(found)


def test_keys_that_selections_once_had_are_the_table() -> None:
    keys = trials('relu = ["native", "branch:1"]\nmax_pool = "hybrid:10"\nforward = "compound"')
    table = trials(
        'forward = "compound"\n[selections]\nrelu = ["native", "branch:1"]\nmax_pool = "hybrid:10"'
    )
    assert keys == table
    mixed = trials('max_pool = "last"\n[selections]\nhardtanh = "minimal"')
    assert mixed[0].selections == {"max_pool": "last", "hardtanh": "minimal"}


def test_a_table_is_taken_over_and_changed() -> None:
    text = 'extends = "smoke"\nrelu = "branch:1"\n[selections]\nhardtanh = "minimal"'
    assert spec.parse(text, "my.toml").selections == {
        "max_pool": ("hybrid:0", "hybrid:10"), "relu": ("branch:1",), "hardtanh": ("minimal",),
    }  # fmt: skip
    changed = spec.parse('extends = "smoke"\nmax_pool = "last"', "my.toml")
    assert changed.selections == {"max_pool": ("last",)}


def test_texts_are_canonical_so_that_ids_are() -> None:
    one, other = (
        trials('max_pool = "hybrid:1e1"\nprecision = 16'),
        trials('max_pool = ["hybrid:10", "hybrid:10.0"]\nprecision = "float16"'),
    )
    assert [s.id for s in one] == [s.id for s in other]


def test_an_id_is_a_function_of_every_setting() -> None:
    settings = trials()[0]
    for name, value in {"epochs": 3, "init_seed": 9, "weight_decay": 0.0}.items():
        assert replace(settings, **{name: value}).id != settings.id  # type: ignore[arg-type]
    for name, value in {"augment": True, "network": "vgg9", "train_images": 9}.items():
        changed = replace(settings.task, **{name: value})  # type: ignore[arg-type]
        assert replace(settings, task=changed).id != settings.id


def test_an_id_stays_what_it_was() -> None:
    # Stored studies are recognised by it: a change here is a change of what a store can go on with.
    assert spec.shipped("smoke").trials()[0].id == "9dbf7450aeb8"


def test_one_stream_can_be_held_fixed() -> None:
    found = trials("seeds = 3\ninit_seed = 7")
    assert [(s.seed, s.init_seed, s.order_seed) for s in found] == [(0, 7, 0), (1, 7, 1), (2, 7, 2)]


def test_a_drawn_rate_lies_in_its_range_and_belongs_to_the_seed() -> None:
    text = BASE.replace("0.01", "{ low = 0.01, high = 0.012 }")
    found = spec.parse(text + "seeds = 50\nmax_pool = ['minimal', 'last']", "my.toml").trials()
    assert all(s.learning_rate is not None and 0.01 <= s.learning_rate <= 0.012 for s in found)
    assert len({s.learning_rate for s in found}) == 50


def test_adam_has_its_defaults_and_sgd_the_published_settings() -> None:
    sgd, adam = trials('seeds = 1\noptimizer = ["sgd", "adam"]')
    assert (sgd.momentum, sgd.weight_decay) == (0.9, 5e-4)
    assert (adam.momentum, adam.weight_decay) == (0.0, 0.0)


def test_augmentation_is_on_where_it_is_published() -> None:
    assert not of_images(trials()[0]).augment
    cifar = spec.parse(BASE.replace("mnist-sample", "cifar10"), "my.toml")
    assert of_images(cifar.trials()[0]).augment


def test_networks_of_a_weight_divergence_may_repeat() -> None:
    (trial,) = spec.shipped("vgg11-weight-divergence").trials()
    assert trial.networks == (*BETAS, "hybrid:0")
    assert (trial.momentum, trial.weight_decay, trial.schedule) == (0.0, 0.0, "constant")
    assert trial.learning_rate is not None
    assert 0.01 <= trial.learning_rate <= 0.012


@pytest.mark.parametrize("name", spec.names())
def test_shipped_specs_are_sound(name: str) -> None:
    shipped = spec.shipped(name)
    assert shipped.description
    assert shipped.trials()
    if not name.endswith("-small") and name != "smoke":
        assert f"{name}-small" in spec.names()


def test_published_settings() -> None:
    lenet = spec.shipped("mnist-lenet5")
    assert lenet.selections == {"max_pool": BETAS}
    assert (lenet.epochs, lenet.batch_size, lenet.seeds) == (100, 128, tuple(range(10)))
    assert (lenet.momentum, lenet.weight_decay, lenet.schedule) == (0.9, 5e-4, "cosine")
    search = lenet.search
    assert (search.trials, search.epochs, search.low, search.high) == (10, 10, 1e-5, 1e-1)
    assert not search.per_selection
    resnet = spec.shipped("imagenet-resnet50").trials()[0]
    assert (resnet.epochs, resnet.batch_size, resnet.learning_rate) == (80, 512, 0.1)
    assert (resnet.schedule, resnet.step_size, resnet.step_factor) == ("step", 30, 0.1)
    assert resnet.precision == "mixed"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BASE + "epoch = 3", "my.toml: unknown key 'epoch'; did you mean 'epochs'? accepted: "),
        (BASE + "[search]\nsteps = 3", "my.toml: unknown key 'search.steps'; "),
        ("epochs = 3", "my.toml: the key 'data' is missing"),
        (BASE.replace("2", '"ten"'), "my.toml: epochs: must be a valid integer, not 'ten'"),
        (BASE.replace("2", "0"), "my.toml: epochs: must be greater than or equal to 1, not 0"),
        (BASE.replace("mnist-sample", "minst"), "my.toml: unknown data set 'minst'; did you "),
        (BASE.replace("lenet5", "lenet"), "my.toml: network: unknown network 'lenet'; "),
        (BASE + "max_pool = []", "my.toml: selections.max_pool: must not be empty"),
        (BASE + 'max_pool = "hybird:1"', "my.toml: selections: unknown selection 'hybird:1'"),
        (
            BASE + 'max_pool = "branch:1"',
            "my.toml: selections: max_pool has no selection branch:1; accepted: native, ",
        ),
        (
            BASE + '[selections]\nhardtan = "minimal"',
            "my.toml: selections: unknown family 'hardtan'; did you mean 'hardtanh'? accepted: ",
        ),
        (
            BASE + '[selections]\nhardtanh = ["native", "minmal"]',
            "my.toml: selections: unknown selection 'minmal'; did you mean 'minimal'? accepted: ",
        ),
        (BASE + "[selections]\nhardtanh = 1", "my.toml: selections.hardtanh: must be a valid "),
        (BASE + 'selections = "last"', "my.toml: selections: must be a valid dictionary, "),
        (
            BASE + 'hardtanh = "minimal"',
            "my.toml: unknown key 'hardtanh'; did you mean 'selections.hardtanh'? accepted: ",
        ),
        (
            BASE + 'relu = "native"\n[selections]\nrelu = "branch:1"',
            "my.toml: relu: is a key and in [selections]; keep it in one of them",
        ),
        (BASE + 'precision = "8"', "my.toml: precision: unknown precision '8'; accepted: "),
        (BASE + 'forward = "both"', "my.toml: forward: must be 'exact' or 'compound', not 'both'"),
        (
            BASE + 'forward = "compound"\nmax_pool = "last"',
            "my.toml: forward: compound has no last; accepted: native, minimal, hybrid:BETA",
        ),
        (
            BASE + 'backward = "assigned"\nrelu = "minimal"',
            "my.toml: backward: assigned has no minimal; accepted: native, branch:ALPHA, or ",
        ),
        (BASE + "seeds = 0", "my.toml: seeds: must be 1 or more, or a list of seeds, not 0"),
        (BASE + "seeds = [-1]", "my.toml: seeds: must be greater than or equal to 0, not -1"),
        (BASE.replace("0.01", "-1"), "my.toml: learning_rate: must be a positive number"),
        (BASE.replace("0.01", '"auto"'), "my.toml: learning_rate: must be a positive number"),
        (BASE + "momentum = inf", "my.toml: momentum: must be a finite number, not inf"),
        (BASE + "[search]\nhigh = inf", "my.toml: search.high: must be a finite number, not inf"),
        (BASE + "augment = true", "my.toml: augment: mnist-sample has no augmentation"),
        (
            BASE.replace("0.01", "{ low = 0.01, hi = 0.012 }"),
            "my.toml: learning_rate: must be {low = ..., high = ...} with two positive numbers, "
            "not {'low': 0.01, 'hi': 0.012}",
        ),
        (
            BASE.replace("0.01", '{ low = "a", high = 1.0 }'),
            "my.toml: learning_rate: must be {low = ..., high = ...} with two positive numbers",
        ),
        (
            BASE + 'max_pool = ["hybrid:0", "hybrid:1"]\n[[exclude]]\nmax_pool = "hybrid:2"',
            "my.toml: exclude: rule 1: the spec has no max_pool 'hybrid:2'; "
            "accepted: hybrid:0, hybrid:1",
        ),
        (
            BASE + '[[exclude]]\nrelu = "branch:1"',
            "my.toml: exclude: rule 1: unknown key 'relu'; accepted: seed, network, ",
        ),
        (
            BASE + '[selections]\nhardtanh = "last"\n[[exclude]]\nhardtan = "last"',
            "my.toml: exclude: rule 1: unknown key 'hardtan'; did you mean 'hardtanh'? accepted: ",
        ),
        (
            BASE + '[[exclude]]\nprecison = "16"',
            "my.toml: exclude: rule 1: unknown key 'precison'; did you mean 'precision'? ",
        ),
        (BASE + '[[exclude]]\nnetwork = "lenet5"', "my.toml: exclude: the rules leave no trial"),
        (BASE + '[[exclude]]', "my.toml: exclude: rule 1 is empty"),
        (BASE + 'train_split = "dev"', "my.toml: unknown split 'dev' of mnist-sample; accepted: "),
        ('extends = "smok"', "my.toml: unknown spec 'smok'; did you mean 'smoke'? accepted: "),
        ("data = ", "my.toml: is not TOML: "),
        (
            BASE + "[search]\nlow = 1.0",
            "my.toml: learning rates: low 1 is above high 0.1",
        ),
        (
            BASE.replace("0.01", '"search"')
            + 'experiment = "weight-divergence"\nmax_pool = "last"',
            "my.toml: learning_rate: a weight divergence takes a number",
        ),
    ],
)  # fmt: skip
def test_a_wrong_spec_gets_one_line(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        spec.parse(text, "my.toml")
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read: No such file"):
        spec.load(str(tmp_path / "nowhere.toml"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"binary\.toml cannot be read: is not text"):
        spec.load(str(binary))


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('extends = "smoke"\nepochs = 1')
    found = spec.load(str(tmp_path / "my.toml"))
    assert (found.epochs, found.network) == (1, ("lenet5",))


def test_a_convention_is_kept_with_its_version_and_what_it_lacks_is_told() -> None:
    text = BASE + '[selections]\nmax_pool = ["native", "as:tensorflow"]\nrelu = "as:jax"'
    found = spec.parse(text, "my.toml")
    assert found.selections["max_pool"][1].startswith("as:tensorflow-")
    (warning,) = spec.warnings(found)
    assert warning.startswith("selections.max_pool = 'as:tensorflow-")
    assert "has no adaptive_max_pool2d" in warning


def test_adam_at_float16_gets_a_warning_that_says_why() -> None:
    found = spec.parse(BASE + 'precision = [16, 32]\noptimizer = ["sgd", "adam"]', "my.toml")
    (warning,) = spec.warnings(found)
    assert "epsilon 1e-8" in warning
    assert spec.warnings(spec.parse(BASE + "precision = 16", "my.toml")) == []
