"""Rewrites that compute the same in another form: memory layout, number format, compiled code."""

import warnings

import torch
from torch import Tensor, nn

from logitflow.inference.stand_ins import OrPlain, StandIn, copied


def to_channels_last(module: nn.Module) -> nn.Module:
    """Convolution weights, and with them all images, stored with their channels innermost."""
    module, quick = copied(module), copied(module)
    for parameter in quick.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return OrPlain(quick, module, "channels-last storage")


def to_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network's arithmetic in another number format; what goes in and comes out keeps its own.

    bfloat16 has 8 significant bits, so results differ in the third digit. A linear layer with one output, such
    as a discriminator's last, stays as it is: a sum over thousands of features needs more digits.

    Raises:
        TypeError: dtype is no floating-point type.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point torch.dtype, not {dtype}")
    module, quick = copied(module), copied(module)
    heads = [m for m in quick.modules() if type(m) is nn.Linear and m.out_features == 1]
    if quick in heads:
        return quick
    for layer in list(quick.modules()):
        if layer not in heads:
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
        for name, child in list(layer.named_children()):
            if child in heads:
                layer._modules[name] = _Cast(child, child.weight.dtype, back=False)
    return OrPlain(_Cast(quick, dtype), module, f"arithmetic in {dtype}")


def compiled(module: nn.Module) -> nn.Module:
    """`torch.compile`, or the module itself where that fails, as it does without a C++ compiler."""
    module = copied(module)
    try:
        quick = torch.compile(module)
    except RuntimeError as error:  # this Python or this platform has none
        warnings.warn(f"running without torch.compile: {error}", stacklevel=2)
        return module
    return OrPlain(quick, module, "torch.compile")


class _Cast(StandIn):
    """Runs the original in another number format."""

    def __init__(self, original: nn.Module, dtype: torch.dtype, back: bool = True) -> None:
        super().__init__(original)
        self.dtype = dtype
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        y = self.original(x.to(self.dtype))
        return y.to(x.dtype) if self.back else y
