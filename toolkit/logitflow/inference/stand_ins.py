"""What rewrites are made of: copies, stand-ins for modules, and a walk through what follows what."""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

Steps = list[nn.Module]


def copied(module: nn.Module) -> nn.Module:
    """A deep copy in eval mode."""
    # deepcopy refuses tensors that have a history, such as those which old spectral norms leave in a layer
    memo = {
        id(value): value.detach().clone()
        for layer in module.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return deepcopy(module, memo).eval()


class StandIn(nn.Module):
    """Computes what `original` computes; for its attributes, it answers with the original's."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.training = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "original" or name.startswith("__"):  # half built, or asked by deepcopy
                raise
            return getattr(self.original, name)


class Chain(StandIn):
    """Stands in for a Sequential: runs `steps`, but shows the layers to code that indexes or iterates."""

    original: nn.Sequential

    def __init__(self, original: nn.Sequential, steps: Steps) -> None:
        super().__init__(original)
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """What the Sequential returns."""
        return self.steps(x)

    def __len__(self) -> int:
        return len(self.original)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.original)

    def __getitem__(self, index: int | slice) -> nn.Module:
        return self.original[index]


class OrPlain(StandIn):
    """Runs `quick`; once that fails where the original works, warns and runs the original from then on."""

    def __init__(self, quick: Callable[[Tensor], Tensor], original: nn.Module, what: str) -> None:
        super().__init__(original)
        self.quick: Callable[[Tensor], Tensor] | None = quick
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        """What the original returns."""
        if self.quick is not None:
            try:
                return self.quick(x)
            except Exception as error:
                reason = error
        # an input that the original cannot take either fails here, with the network's own words
        y = self.original(x)
        if self.quick is not None:
            self.quick = None
            first_line = str(reason).strip().split("\n")[0]
            warnings.warn(f"running without {self.what}, which failed: {first_line}", stacklevel=2)
        return y


def in_sequentials(module: nn.Module, rewrite: Callable[[Steps], Steps]) -> nn.Module:
    """Rewrite the layers of each plain `nn.Sequential`, where alone it is certain what follows what."""
    if type(module) in (nn.Sequential, Chain) and not has_hooks(module):
        before = [in_sequentials(step, rewrite) for step in _flattened(module)]
        after = rewrite(before)
        layers: Any = module.original if isinstance(module, Chain) else module
        return module if after == before else Chain(layers, after)
    for name, child in list(module.named_children()):
        module._modules[name] = in_sequentials(child, rewrite)
    return module


def _flattened(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, Chain):
        module = module.steps
    if type(module) is not nn.Sequential or has_hooks(module):
        yield module
        return
    for layer in module:  # not children(), which names a layer that is used twice once
        yield from _flattened(layer)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or "forward" in vars(module)
