"""Rewrites that leave less to compute: constants computed once, and layers that become one."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm
from torch.nn.utils.spectral_norm import SpectralNorm

from logitflow.inference.stand_ins import StandIn, Steps, copied, has_hooks, in_sequentials

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def bake_parametrizations(module: nn.Module) -> nn.Module:
    """Spectral norm, and whatever else computes a weight from parameters, computed once for all.

    W/σ(W) depends on the parameters alone, so at fixed parameters it is a constant. Both of PyTorch's spectral
    norms are known, the parametrization and the older hook.
    """
    module = copied(module)
    baked: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            values = {name: getattr(layer, name) for name in layer.parametrizations}  # type: ignore[union-attr]
            baked.append((layer, values))
    for layer, values in baked:
        # a copy shares its class with the caller's layer, which remove_parametrizations would change with it
        layer.__class__ = type(layer).__bases__[0]
        del layer.parametrizations
        for name, value in values.items():
            setattr(layer, name, nn.Parameter(value.detach().clone(), value.requires_grad))
    for layer in module.modules():
        for hook in [h for h in layer._forward_pre_hooks.values() if isinstance(h, SpectralNorm)]:
            remove_spectral_norm(layer, hook.name)
    return module


def freeze(module: nn.Module) -> nn.Module:
    """No gradient for parameters: a sampler needs the latent's only, half of the backward pass."""
    return copied(module).requires_grad_(False)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Eval-mode batch norms as one multiplication and addition, or none.

    With fixed statistics a batch norm is x ↦ a·x + b, one a and b a channel. Where it directly follows a
    linear layer (in an `nn.Sequential`; a dense layer's output then being (N, C)), that layer's weight
    and bias take it in. A batch norm without running statistics is left as it is.
    """
    module = in_sequentials(copied(module), _folded)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _is_fixed(child) and not isinstance(parent, StandIn):
                parent._modules[name] = _Affine(child)
    return module


def merge_resampling(module: nn.Module) -> nn.Module:
    """A 3×3 convolution after doubling, or before halving, the size: 2.25 times fewer multiplications.

    After nearest-neighbour doubling, each of the four output phases sees a 2×2 window of the small image: four
    2×2 convolutions, together one transposed convolution of stride 2 with a 4×4 kernel. Before a 2×2
    average, the same holds in reverse: one 4×4 convolution of stride 2. Borders included.
    """
    return in_sequentials(copied(module), _merged)


class _Affine(StandIn):
    """A batch norm with fixed statistics, as a·x + b."""

    scale: Tensor
    shift: Tensor

    def __init__(self, original: nn.Module) -> None:
        super().__init__(original)
        scale, shift = _scale_and_shift(original)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


def _folded(steps: Steps) -> Steps:
    new: Steps = []
    for step in steps:
        if _is_fixed(step) and new and _takes_in(new[-1], step):
            new[-1] = _scaled(new[-1], *_scale_and_shift(step))
        else:
            new.append(_Affine(step) if _is_fixed(step) else step)
    return new


def _is_fixed(module: Any) -> bool:
    return (
        type(module) in _BATCH_NORMS
        and module.running_mean is not None
        and not module.training
        and not has_hooks(module)
    )


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """a = γ/√(v + ε) and b = β − a·m, from the running mean m and variance v: each (C,)."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -scale * norm.running_mean
    return scale, shift if norm.bias is None else shift + norm.bias.detach()


def _takes_in(layer: Any, norm: Any) -> bool:
    if has_hooks(layer):
        return False
    if type(layer) is nn.Linear:
        return type(norm) is nn.BatchNorm1d and layer.out_features == norm.num_features
    plain = type(layer) in _CONVOLUTIONS or (type(layer) in _TRANSPOSED and layer.groups == 1)
    return plain and layer.out_channels == norm.num_features


def _scaled(layer: Any, scale: Tensor, shift: Tensor) -> nn.Module:
    """The layer followed by x ↦ scale·x + shift on each of its output channels."""
    new = deepcopy(layer)
    channels = 1 if type(layer) in _TRANSPOSED else 0  # the weight's axis of output channels
    weight = layer.weight.detach().transpose(channels, -1) * scale
    bias = shift if layer.bias is None else shift + scale * layer.bias.detach()
    new.weight = nn.Parameter(weight.transpose(channels, -1), layer.weight.requires_grad)
    new.bias = nn.Parameter(bias, layer.weight.requires_grad)
    return new


def _merged(steps: Steps) -> Steps:
    new: list[Any] = []
    step: Any
    for step in steps:
        before = new[-1] if new else None
        if before is not None and _is_doubling(before) and _is_3x3(step):
            # on each axis y[m] = Σ_t k[t]·x[(m+t−1)//2] = Σ_i w[m−2i+1]·x[i], with w[q] = k[3−q] + k[2−q]
            kernel = _widened(step.weight.flip(2, 3)).transpose(0, 1)
            new[-1] = _with_stride_2(nn.ConvTranspose2d, step, kernel)
        elif before is not None and _is_3x3(before) and _is_halving(step):
            # on each axis y[i] = ½ Σ_s Σ_t k[t]·x[2i+s+t−1] = Σ_q w[q]·x[2i+q−1], with w[q] = ½ (k[q] + k[q−1])
            new[-1] = _with_stride_2(nn.Conv2d, before, _widened(before.weight) / 4)
        else:
            new.append(step)
    return new


def _is_doubling(layer: Any) -> bool:
    return (
        type(layer) in (nn.Upsample, nn.UpsamplingNearest2d)
        and layer.mode in ("nearest", "nearest-exact")
        and layer.scale_factor in (2, (2, 2))
        and not has_hooks(layer)
    )


def _is_halving(layer: Any) -> bool:
    return (
        type(layer) is nn.AvgPool2d
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and not layer.ceil_mode
        and layer.divisor_override is None
        and not has_hooks(layer)
    )


def _is_3x3(layer: Any) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.padding in ((1, 1), "same")
        and layer.padding_mode == "zeros"
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and not has_hooks(layer)
    )


def _widened(kernel: Tensor) -> Tensor:
    """A kernel (…, 3, 3) convolved with a 2×2 square of ones: (…, 4, 4)."""
    shifts = [(0, 0), (0, 1), (1, 0), (1, 1)]
    return torch.stack([F.pad(kernel.detach(), (b, 1 - b, a, 1 - a)) for a, b in shifts]).sum(0)


def _with_stride_2(kind: Any, layer: Any, kernel: Tensor) -> nn.Module:
    new = kind(layer.in_channels, layer.out_channels, 4, 2, 1, bias=False, device="meta")
    new.weight = nn.Parameter(kernel.contiguous(), layer.weight.requires_grad)
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.detach().clone(), layer.weight.requires_grad)
    return new
