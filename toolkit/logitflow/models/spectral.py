"""Spectral normalisation (Miyato et al. 2018, section 2.1) of a network's convolutions and linear layers."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList


def normalise(network: nn.Module) -> None:
    """Hold each weight, as a matrix of its outputs by its inputs, at a largest singular value of 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)


@torch.no_grad()
def settle_norms(network: nn.Module, iterations: int = 100) -> None:
    """Bring spectral norm's power iterations to rest, in place, once the weights no longer move.

    Training takes one iteration a step, from vectors that lag behind the weights.
    """
    for module in network.modules():
        if isinstance(module, ParametrizationList):
            training = module.training
            module.train()
            for _ in range(iterations):
                module()
            module.train(training)


def largest_singular_values(network: nn.Module) -> Tensor:
    """The exact largest singular value of each convolution's and linear layer's weight as it is used, (L,)."""
    weights = [
        module.weight.detach().flatten(1).double()
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    return torch.stack([torch.linalg.matrix_norm(weight, 2) for weight in weights])
