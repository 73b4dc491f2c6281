"""Parameter draws: PyTorch's own, and that of the published volume experiments.

Every parameter is redrawn in place from torch's global generator, so that ``torch.manual_seed(s)``
followed by a draw always gives the same parameters, whatever the model went through before.
Normalisation layers go back to weight 1, bias 0 and fresh running statistics.
"""

from collections.abc import Callable

from torch import nn

from kinkcheck.networks.catalogue import require_initialisation


def initialise(model: nn.Module, init: str) -> None:
    """Redraw the parameters of a model in place, in the way that has this name.

    Args:
        model: Any module.
        init: ``"default"`` for :func:`default` or ``"kaiming"`` for :func:`kaiming`.

    Raises:
        InputError: If there is no such initialisation.

    >>> layer = nn.Linear(16, 1)
    >>> initialise(layer, "kaiming")
    >>> layer.bias.tolist()
    [0.0]
    """
    require_initialisation(init)
    _INITIALISATIONS[init](model)


def default(model: nn.Module) -> None:
    """Redraw the parameters as PyTorch's layer constructors do.

    A convolution or linear layer gets weights and biases uniform on ±1/√fan_in. Source: R.
    Boustany (TMLR 2024), threshold experiments.

    Args:
        model: Any module; each submodule that has ``reset_parameters`` is reset.

    >>> layer = nn.Linear(16, 1)
    >>> _ = nn.init.ones_(layer.weight)
    >>> default(layer)
    >>> bool(layer.weight.abs().max() <= 1 / 4)
    True
    """
    for module in model.modules():
        _reset(module)


def kaiming(model: nn.Module) -> None:
    """Redraw the parameters as the volume experiments of R. Boustany (TMLR 2024) do.

    ============== ====================================== =====================
    layer          weight                                 bias
    ============== ====================================== =====================
    ``nn.Conv2d``  uniform on ±√(6 / fan_in)              0
    ``nn.Linear``  normal of mean 0 and deviation 0.01    0
    other          as :func:`default`                     as :func:`default`
    ============== ====================================== =====================

    Args:
        model: Any module.

    >>> layer = nn.Linear(16, 1)
    >>> kaiming(layer)
    >>> layer.bias.tolist()
    [0.0]
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            _reset(module)
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _reset(module: nn.Module) -> None:
    """Call the module's own ``reset_parameters``, if it has one."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()


_INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {"default": default, "kaiming": kaiming}
