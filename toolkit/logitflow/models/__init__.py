"""Networks and nothing else."""

from logitflow.models.mlp import MLP

__all__ = ["MLP"]
