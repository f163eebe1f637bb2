"""Makes a trained pair fast to differentiate: the same function of the latent, with less to compute.

`fast` is all of it. Each rewrite is also a function of its own, from a module to a new module in eval mode;
the caller's stays as it is. What a rewrite does not recognise it leaves alone.

::

    fast_pair = LatentTarget(fast(generator), fast(discriminator), prior)
"""

import torch
from torch import nn

from logitflow.inference.forms import compiled, to_channels_last, to_dtype
from logitflow.inference.layers import (
    bake_parametrizations,
    fold_batch_norms,
    freeze,
    merge_resampling,
)
from logitflow.target import Network


def fast(
    network: Network,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
) -> Network:
    """A network that computes the same function faster, input gradient included, for use in a target.

    In double precision it agrees with the original to rounding. Where the quicker memory format, number
    format or compiler does not work for this network or on this machine, a warning says so at the
    first call and the network runs without it. Call it after moving the network to its device.

    Args:
        network: a module; it stays as it is. Anything else that can be called is returned as it came.
        dtype: `torch.bfloat16` computes inside in that format (see `to_dtype`); None keeps the network's.
            Refine with such a pair, and generate the final samples with the original generator.
        channels_last: store images with their channels innermost, as convolutions like them.
        compile: `torch.compile` it; the first calls then take a minute.

    Returns:
        A new module in eval mode, whose parameters need no gradient.

    Raises:
        TypeError: network cannot be called, or dtype is no floating-point type.
    """
    if not isinstance(network, nn.Module):
        if not callable(network):
            raise TypeError(f"network must be a module, not {type(network).__name__}")
        return network
    for rewrite in (bake_parametrizations, fold_batch_norms, merge_resampling, freeze):
        network = rewrite(network)
    if channels_last:
        network = to_channels_last(network)
    if dtype is not None:
        network = to_dtype(network, dtype)
    return compiled(network) if compile else network


__all__ = [
    "bake_parametrizations",
    "compiled",
    "fast",
    "fold_batch_norms",
    "freeze",
    "merge_resampling",
    "to_channels_last",
    "to_dtype",
]
