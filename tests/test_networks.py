"""Networks: their size and layers against figures known elsewhere, and what they refuse."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kinkcheck import networks
from kinkcheck.errors import InputError
from kinkcheck.networks import MLP, NAMES, VGG, DenseNet121, LeNet5, ResNet, build, initialise

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# The side of an image in the experiments.
SIZES = {name: 28 if name in ("lenet5", "mlp", "mlp-2048") else 32 for name in NAMES}

# The smallest and, if there is one, the largest side of an image.
BOUNDS = {
    "lenet5": (16, None),
    "vgg9": (32, 63),
    "vgg11": (32, 63),
    "vgg13": (32, 63),
    "vgg16": (32, 63),
    "vgg19": (32, 63),
    "resnet18": (2, None),
    "resnet34": (2, None),
    "resnet50": (2, None),
    "densenet121": (16, None),
    "densenet121-published": (31, None),
    "mlp": (1, None),
    "mlp-2048": (1, None),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def named(network: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def forward(network: nn.Module, channels: int, side: int, batch: int = 2) -> Tensor:
    with torch.no_grad():
        scores: Tensor = network(torch.randn(batch, channels, side, side))
    return scores


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_channels", "classes", "image_size", "batch_norm", "count"),
    [
        # The textbook count of LeNet-5 on 28 × 28 images.
        ("lenet5", 1, 10, 28, False, 44_426),
        # pytorch-cifar, the origin of the papers' VGG (all have batch norm there).
        ("vgg11", 3, 10, 32, True, 9_231_114),
        ("vgg13", 3, 10, 32, True, 9_416_010),
        ("vgg16", 3, 10, 32, True, 14_728_266),
        ("vgg19", 3, 10, 32, True, 20_040_522),
        ("resnet18", 3, 10, 32, True, 11_173_962),
        # torchvision's table of models.
        ("resnet18", 3, 1000, 224, True, 11_689_512),
        ("resnet34", 3, 1000, 224, True, 21_797_672),
        ("resnet50", 3, 1000, 224, True, 25_557_032),
        ("densenet121", 3, 1000, 224, True, 7_978_856),
    ],
)
def test_parameter_count_is_the_one_known_elsewhere(
    name: str, in_channels: int, classes: int, image_size: int, batch_norm: bool, count: int
) -> None:
    network = build(
        name,
        in_channels=in_channels,
        classes=classes,
        image_size=image_size,
        batch_norm=batch_norm,
    )
    assert parameters(network) == count


@pytest.mark.parametrize("batch_norm", [False, True])
def test_parameter_count_of_vgg9_in_closed_form(batch_norm: bool) -> None:
    widths = [64, 128, 256, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in zip([3, *widths[:-1]], widths, strict=True))
    norms = 2 * sum(widths) if batch_norm else 0
    network = build("vgg9", in_channels=3, classes=7, image_size=32, batch_norm=batch_norm)
    assert parameters(network) == convolutions + norms + 512 * 7 + 7


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(256, 1), (5, 4)])
def test_parameter_count_of_mlp_in_closed_form(width: int, depth: int, batch_norm: bool) -> None:
    network = MLP(width, depth, in_channels=3, classes=7, image_size=8, batch_norm=batch_norm)
    first = (3 * 8 * 8 + 1) * width
    between = (depth - 1) * (width + 1) * width
    norms = 2 * depth * width if batch_norm else 0
    assert parameters(network) == first + between + norms + (width + 1) * 7


@pytest.mark.parametrize(("name", "width"), [("mlp", 256), ("mlp-2048", 2048)])
def test_named_mlp_has_three_hidden_layers(name: str, width: int) -> None:
    network = build(name, in_channels=1, classes=10, image_size=28)
    shapes = [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(width, 784), (width, width), (width, width), (10, width)]


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_output_has_one_score_a_class(name: str, batch_norm: bool) -> None:
    network = build(name, in_channels=2, classes=7, image_size=SIZES[name], batch_norm=batch_norm)
    scores = forward(network, 2, SIZES[name])
    assert scores.shape == (2, 7)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_smallest_and_largest_image(name: str) -> None:
    smallest, largest = BOUNDS[name]
    for side in (smallest, largest):
        if side is not None:
            network = build(name, in_channels=1, classes=3, image_size=side)
            assert forward(network, 1, side).shape == (2, 3)
    for side in (smallest - 1, None if largest is None else largest + 1):
        if side is not None:
            accepted = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"
            message = f"image_size must be {accepted} for {name.removesuffix('-2048')}, not {side}"
            with pytest.raises(InputError) as caught:
                build(name, in_channels=1, classes=3, image_size=side)
            assert str(caught.value) == message


@pytest.mark.parametrize("side", [28, 29, 32, 33, 64])
def test_lenet_sizes_its_first_linear_layer(side: int) -> None:
    network = LeNet5(in_channels=1, classes=3, image_size=side)
    assert forward(network, 1, side).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "side", "before", "after"),
    [
        ("resnet18", 32, 32, 16),
        ("resnet18", 64, 64, 32),
        ("resnet18", 65, 33, 16),
        ("resnet18", 224, 112, 56),
        ("densenet121", 32, 32, 16),
        ("densenet121", 64, 64, 32),
        ("densenet121", 65, 33, 17),
        ("densenet121", 224, 112, 56),
        ("densenet121-published", 32, 16, 8),
        ("densenet121-published", 65, 33, 16),
        ("densenet121-published", 224, 112, 56),
    ],
)
def test_stem(name: str, side: int, before: int, after: int) -> None:
    network = build(name, in_channels=3, classes=10, image_size=side)
    pool = next(module for module in network.modules() if isinstance(module, nn.MaxPool2d))
    seen: list[int] = []
    pool.register_forward_hook(
        lambda _, inputs, output: seen.extend((inputs[0].shape[-1], output.shape[-1]))
    )
    forward(network, 3, side, batch=1)
    assert seen == [before, after]


def test_resnet_stem_pool_can_be_chosen() -> None:
    """A 3×3 pool with padding sees windows that a 2×2 pool does not."""
    images = torch.randn(1, 3, 32, 32)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    torch.manual_seed(0)
    two = ResNet(18, in_channels=3, classes=10, image_size=32)
    torch.manual_seed(0)
    three = ResNet(18, in_channels=3, classes=10, image_size=32, stem_pool=pool)
    assert three.maxpool is pool
    assert not torch.equal(two(images), three(images))
    two.maxpool = pool
    assert torch.equal(two(images), three(images))


# --- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "batch_norm", "pools"),
    [
        ("lenet5", False, ["features.2", "features.6"]),
        ("lenet5", True, ["features.2", "features.6"]),
        ("vgg9", False, [f"features.{i}" for i in (2, 5, 8, 11, 14)]),
        ("vgg11", False, [f"features.{i}" for i in (2, 5, 10, 15, 20)]),
        ("vgg11", True, [f"features.{i}" for i in (3, 7, 14, 21, 28)]),
        ("vgg13", False, [f"features.{i}" for i in (4, 9, 14, 19, 24)]),
        ("vgg16", False, [f"features.{i}" for i in (4, 9, 16, 23, 30)]),
        ("vgg19", False, [f"features.{i}" for i in (4, 9, 18, 27, 36)]),
        ("resnet18", False, ["maxpool"]),
        ("densenet121", False, ["features.pool0"]),
        ("densenet121-published", False, ["features.pool0"]),
        ("mlp", False, []),
    ],
)
def test_max_pools_have_these_names(name: str, batch_norm: bool, pools: list[str]) -> None:
    """The VGG names are torchvision's, in its vgg11 to vgg19 and vgg11_bn."""
    network = build(name, in_channels=1, classes=3, image_size=SIZES[name], batch_norm=batch_norm)
    assert named(network, nn.MaxPool2d) == pools


@pytest.mark.parametrize(
    ("name", "relus", "norms"),
    [
        ("lenet5", 4, 4),
        ("vgg9", 5, 5),
        ("vgg11", 8, 8),
        ("vgg13", 10, 10),
        ("vgg16", 13, 13),
        ("vgg19", 16, 16),
        # The stem, and 2 or 3 a block; norms also on the 3 or 4 shortcuts that convolve.
        ("resnet18", 1 + 8 * 2, 1 + 8 * 2 + 3),
        ("resnet34", 1 + 16 * 2, 1 + 16 * 2 + 3),
        ("resnet50", 1 + 16 * 3, 1 + 16 * 3 + 4),
        # The stem, 2 for each of 58 layers, 3 transitions, the end.
        ("densenet121", 121, 121),
        ("densenet121-published", 121, 2),
        ("mlp", 3, 3),
    ],
)
def test_numbers_of_relus_and_batch_norms(name: str, relus: int, norms: int) -> None:
    side = SIZES[name]
    without = build(name, in_channels=1, classes=3, image_size=side)
    with_norms = build(name, in_channels=1, classes=3, image_size=side, batch_norm=True)
    assert len(named(without, nn.ReLU)) == len(named(with_norms, nn.ReLU)) == relus
    assert named(without, *BATCH_NORMS) == []
    assert len(named(with_norms, *BATCH_NORMS)) == norms


def test_published_densenet_has_batch_norm_only_at_the_two_ends() -> None:
    network = DenseNet121(in_channels=3, classes=10, image_size=32, batch_norm=True, published=True)
    assert named(network, *BATCH_NORMS) == ["features.norm0", "features.norm5"]
    convolution = network.features.get_submodule("conv0")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.kernel_size == (7, 7)


class Operations(TorchDispatchMode):
    """Counts the operations that reach the backend, whichever Python call they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


# The smooth operations a network may use.
SMOOTH = {
    "add",
    "addmm",
    "avg_pool2d",
    "cat",
    "convolution",
    "mean",
    "t",
    "view",
    "native_batch_norm",
    "add_",  # the number of batches a batch norm has seen
    "detach",
    "empty",
}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_called_once_and_no_nonsmooth_operation_is_outside_one(
    name: str, batch_norm: bool
) -> None:
    network = build(name, in_channels=2, classes=7, image_size=SIZES[name], batch_norm=batch_norm)
    calls: Counter[str] = Counter()
    leaves = [name for name, module in network.named_modules() if not list(module.children())]
    for leaf in leaves:
        network.get_submodule(leaf).register_forward_hook(
            lambda *_, leaf=leaf: calls.update([leaf])
        )
    images = torch.randn(2, 2, SIZES[name], SIZES[name])
    with Operations() as operations, torch.no_grad():
        network(images)
    assert calls == Counter(leaves)
    assert operations.counts["relu"] == len(named(network, nn.ReLU))
    pools = operations.counts["max_pool2d_with_indices"] + operations.counts["max_pool2d"]
    assert pools == len(named(network, nn.MaxPool2d))
    others = set(operations.counts) - {"relu", "max_pool2d_with_indices", "max_pool2d"}
    assert others <= SMOOTH


def test_order_of_layers() -> None:
    """LeNet-5 normalises after its pools and ReLUs, VGG and MLP before their ReLUs."""
    lenet = LeNet5(in_channels=1, classes=10, image_size=28, batch_norm=True)
    vgg = VGG(11, in_channels=3, classes=10, image_size=32, batch_norm=True)
    mlp = MLP(8, 1, in_channels=1, classes=10, image_size=4, batch_norm=True)
    assert [type(m) for m in lenet.features[:4]] == [
        nn.Conv2d,
        nn.ReLU,
        nn.MaxPool2d,
        nn.BatchNorm2d,
    ]
    assert [type(m) for m in lenet.classifier[:3]] == [nn.Linear, nn.ReLU, nn.BatchNorm1d]
    assert [type(m) for m in vgg.features[:4]] == [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.MaxPool2d,
    ]
    assert [type(m) for m in mlp.layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(
    ("name", "entries", "keys"),
    [
        (
            "resnet18",
            122,
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.running_mean": (64,),
                "layer1.1.conv2.weight": (64, 64, 3, 3),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer4.0.downsample.1.weight": (512,),
                "fc.weight": (1000, 512),
            },
        ),
        (
            "resnet50",
            320,
            {
                "layer1.0.downsample.0.weight": (256, 64, 1, 1),
                "layer3.5.bn3.weight": (1024,),
                "layer4.0.conv2.weight": (512, 512, 3, 3),
                "fc.weight": (1000, 2048),
            },
        ),
        (
            "densenet121",
            727,
            {
                "features.conv0.weight": (64, 3, 7, 7),
                "features.denseblock1.denselayer1.norm1.weight": (64,),
                "features.transition3.conv.weight": (512, 1024, 1, 1),
                "features.denseblock4.denselayer16.conv1.weight": (128, 992, 1, 1),
                "features.norm5.weight": (1024,),
                "classifier.weight": (1000, 1024),
            },
        ),
    ],
)
def test_state_dict_is_torchvisions(
    name: str, entries: int, keys: dict[str, tuple[int, ...]]
) -> None:
    state = build(name, in_channels=3, classes=1000, image_size=224, batch_norm=True).state_dict()
    assert len(state) == entries
    assert {key: tuple(state[key].shape) for key in keys} == keys


def test_bottleneck_has_its_stride_on_the_3x3_convolution() -> None:
    network = ResNet(50, in_channels=3, classes=10, image_size=32)
    strides = [
        network.get_submodule(f"layer2.0.{layer}").stride
        for layer in ("conv1", "conv2", "conv3", "downsample.0")
    ]
    assert strides == [(1, 1), (2, 2), (1, 1), (2, 2)]


def test_residual_block_adds_its_input() -> None:
    """With all convolutions at 0 the last stage passes its input on where shapes agree."""
    block = ResNet(18, in_channels=3, classes=10, image_size=32).layer4[1]
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 512, 2, 2)
    assert torch.equal(block(x), x.relu())


def test_dense_layer_appends_to_its_input() -> None:
    network = DenseNet121(in_channels=3, classes=10, image_size=32)
    layer = network.features.get_submodule("denseblock1.denselayer2")
    x = torch.randn(1, 96, 4, 4)
    out = layer(x)
    assert out.shape == (1, 128, 4, 4)
    assert torch.equal(out[:, :96], x)


# --- initialisation -----------------------------------------------------------------------------


def test_default_is_pytorchs_draw() -> None:
    network = build("vgg11", in_channels=3, classes=10, image_size=32, init="default")
    initialise(network, "kaiming")
    initialise(network, "default")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert module.bias is not None
            assert 0.5 * bound < module.bias.abs().max() <= bound


def test_kaiming_draw() -> None:
    network = build("vgg11", in_channels=3, classes=100, image_size=32, init="kaiming")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / module.weight[0].numel())
            assert 0.95 * bound < module.weight.abs().max() <= bound * (1 + 1e-6)
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert module.weight.mean().abs() < 2e-4
            # A normal draw of 51,200 weights exceeds three deviations; a uniform one cannot.
            assert module.weight.abs().max() > 0.03
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            assert not module.bias.any()


@pytest.mark.parametrize("init", networks.INITIALISATIONS)
def test_initialisation_depends_on_the_seed_alone(init: str) -> None:
    """Training, batch norm statistics included, leaves no trace in the next draw."""
    network = build("lenet5", in_channels=1, classes=10, image_size=28, batch_norm=True)
    torch.manual_seed(7)
    initialise(network, init)
    first = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.randn(4, 1, 28, 28))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.manual_seed(7)
    initialise(network, init)
    again = network.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    torch.manual_seed(8)
    initialise(network, init)
    assert not torch.equal(first["features.0.weight"], network.state_dict()["features.0.weight"])


def test_kaiming_takes_convolutions_without_bias() -> None:
    network = build("resnet18", in_channels=3, classes=10, image_size=32, init="kaiming")
    assert [name for name, _ in network.named_parameters() if name.endswith("bias")] == ["fc.bias"]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "vgg12"},
            "unknown network 'vgg12'; did you mean 'vgg19'? accepted: lenet5, vgg9, vgg11, vgg13, "
            "vgg16, vgg19, resnet18, resnet34, resnet50, densenet121, densenet121-published, mlp, "
            "mlp-2048",
        ),
        ({"init": "xavier"}, "unknown init 'xavier'; accepted: default, kaiming"),
        ({"in_channels": 0}, "in_channels must be 1 or more for vgg11, not 0"),
        ({"classes": -1}, "classes must be 1 or more for vgg11, not -1"),
        ({"image_size": 28}, "image_size must be 32 to 63 for vgg11, not 28"),
        ({"image_size": 224}, "image_size must be 32 to 63 for vgg11, not 224"),
    ],
)
def test_build_refuses(change: dict[str, object], message: str) -> None:
    arguments = {"name": "vgg11", "in_channels": 3, "classes": 10, "image_size": 32}
    with pytest.raises(InputError) as caught:
        build(**(arguments | change))  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("network", "leading", "message"),
    [
        (VGG, (8,), "layers must be one of 9, 11, 13, 16, 19 for a VGG, not 8"),
        (ResNet, (20,), "layers must be one of 18, 34, 50 for a ResNet, not 20"),
        (MLP, (0, 3), "width must be 1 or more for mlp, not 0"),
        (MLP, (256, 0), "depth must be 1 or more for mlp, not 0"),
    ],
)
def test_constructors_refuse(
    network: Callable[..., nn.Module], leading: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        network(*leading, in_channels=1, classes=10, image_size=32)
    assert str(caught.value) == message
