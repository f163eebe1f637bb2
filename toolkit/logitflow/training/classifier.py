"""Training a classifier of images; a killed run goes on after its last epoch."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from logitflow import processes
from logitflow.data.images import Images, from_bytes
from logitflow.files import write_atomically
from logitflow.progress import progress
from logitflow.run import seeded_generator
from logitflow.target import unchanged
from logitflow.training.checkpoints import below, packed, restoring


def train_classifier(
    network: nn.Module,
    train: Images,
    *,
    num_epochs: int,
    seed: int = 0,
    batch_size: int = 256,
    learning_rate: float = 0.2,
    precision: torch.dtype = torch.bfloat16,
    checkpoint: str | Path | None = None,
    callback: Callable[[int, float], None] | None = None,
) -> None:
    """Train a classifier in place, on mirrored and slightly shifted images.

    Nesterov's SGD with momentum 0.9 and weight decay 1e-3; the learning rate rises over the first fifth of the
    steps and falls to zero over the rest; labels are smoothed by 0.1. The shifts that normalisation adds learn
    64 times faster than the rest (Jordan 2024).

    Args:
        network: maps images in [−1, 1] to the classes' unnormalised log probabilities.
        train: images with labels.
        num_epochs: passes through the images in all, those of an earlier, killed run included.
        seed: of the images' order, mirrors and shifts.
        batch_size: images a step, of all processes: under `torchrun` each takes its part, for batch norm too.
        learning_rate: the highest.
        precision: the networks' arithmetic; float32 for full precision.
        checkpoint: a safetensors file, written after each epoch; where it is there already, training goes on
            from it, bit for bit on the CPU.
        callback: called as callback(epoch, mean_loss) after each.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: the images are fewer than a batch or have no labels, or the checkpoint is damaged or of
            another network.
    """
    if len(train.pixels) < batch_size:
        raise ValueError(
            f"{len(train.pixels)} images do not fill a batch: set batch_size, now {batch_size}, to fewer"
        )
    if train.labels.min() < 0:
        raise ValueError(f"{train.source} has images without labels: a classifier needs them all")
    device = next(network.parameters()).device
    optimizer = _optimizer(network)
    done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        done = _restore(Path(checkpoint), network, optimizer)
    steps_an_epoch = len(train.pixels) // batch_size
    for epoch in range(done + 1, num_epochs + 1):
        network.train()
        rng = seeded_generator(seed, epoch)
        order = torch.randperm(len(train.pixels), generator=rng)
        total = 0.0
        for i in progress(range(steps_an_epoch), desc=f"epoch {epoch}/{num_epochs}", unit="step"):
            share = ((epoch - 1) * steps_an_epoch + i + 1) / (num_epochs * steps_an_epoch)
            which = order[i * batch_size : (i + 1) * batch_size]
            x = processes.part(augment(train.pixels[which], rng)).to(device)
            labels = processes.part(train.labels[which]).to(device)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = F.cross_entropy(network(x), labels, label_smoothing=0.1)
            _set_learning_rate(optimizer, learning_rate * min(share / 0.2, (1 - share) / 0.8))
            optimizer.zero_grad()
            loss.backward()
            processes.average([p.grad for p in network.parameters() if p.grad is not None])
            optimizer.step()
            total += float(loss.detach())
        mean = sum(processes.gathered([total / steps_an_epoch])) / processes.world_size()
        if mean != mean:
            raise FloatingPointError(
                f"epoch {epoch}: the loss is {mean}. Try a smaller learning_rate"
            )
        if not processes.is_first():
            continue
        if checkpoint is not None:
            write_atomically(checkpoint, _snapshot(epoch, network, optimizer))
        if callback is not None:
            callback(epoch, mean)
    network.eval()


def augment(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Each image mirrored or not and shifted by up to 2 pixels: bytes (N, 3, H, W) to floats in [−1, 1]."""
    n, _, height, width = pixels.shape
    mirrored = torch.rand(n, generator=rng) < 0.5
    x = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    x = F.pad(from_bytes(x), (2, 2, 2, 2), mode="reflect")
    top, left = torch.randint(0, 5, (2, n, 1), generator=rng)
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    which = torch.arange(n)[:, None, None, None]
    return x[which, torch.arange(3)[:, None, None], rows, columns]


@torch.no_grad()
def accuracy(network: nn.Module, test: Images, batch_size: int = 500) -> float:
    """The share of images whose likeliest class is their label; the network is run in eval mode."""
    device = next(network.parameters()).device
    batches = zip(test.pixels.split(batch_size), test.labels.split(batch_size), strict=True)
    right = 0
    with unchanged(network):
        for pixels, labels in batches:
            right += int((network(from_bytes(pixels).to(device)).argmax(1).cpu() == labels).sum())
    return right / len(test.pixels)


SHIFTS_FACTOR = 64


def _optimizer(network: nn.Module) -> torch.optim.SGD:
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    shifts = [norm.bias for norm in norms]
    others = [
        p for p in network.parameters() if p.requires_grad and all(p is not b for b in shifts)
    ]
    groups = [
        {"params": others, "weight_decay": 1e-3},
        {"params": shifts, "weight_decay": 1e-3 / SHIFTS_FACTOR},
    ]
    return torch.optim.SGD(groups, 0.0, momentum=0.9, nesterov=True)


def _set_learning_rate(optimizer: torch.optim.SGD, learning_rate: float) -> None:
    others, shifts = optimizer.param_groups
    others["lr"], shifts["lr"] = learning_rate, SHIFTS_FACTOR * learning_rate


def _snapshot(epoch: int, network: nn.Module, optimizer: torch.optim.SGD) -> bytes:
    tensors = {"epoch": torch.tensor(epoch)}
    tensors |= {f"network.{name}": t for name, t in network.state_dict().items()}
    state = optimizer.state_dict()["state"]
    tensors |= {f"momentum.{i}": moments["momentum_buffer"] for i, moments in state.items()}
    return packed(tensors)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.SGD) -> int:
    with restoring(path, others="another network"):
        tensors = load(path.read_bytes())
        network.load_state_dict(below(tensors, "network."))
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for i, parameter in enumerate(parameters):
            momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
        return int(tensors["epoch"])
