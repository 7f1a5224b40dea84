"""What the PyTorch trainers share: one round of local training by Adam over a model that is one flat tensor."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from latticeward.agent.trainers.trainer import TrainerSettings, batches
from latticeward.updates.tensors import FloatVector

# More threads are slower for networks of this size, and several agents may share a machine; one thread also
# keeps the order of additions, and with it the result, fixed.
torch.set_num_threads(1)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def train_by_adam(
    vector: FloatVector,
    shapes: Sequence[tuple[int, ...]],
    loss_of: Loss,
    *,
    examples: int,
    settings: TrainerSettings,
    rng: np.random.Generator,
) -> FloatVector:
    """``settings.epochs`` passes of Adam, its moments new in each round; the change of the vector.

    Args:
        vector: the model to start from, shape (d,).
        shapes: of its tensors, in order; weights (more than one axis) decay by ``settings.l2``, biases do not.
        loss_of: the mean loss of a flat model on the rows of some indices.
        examples: number of training rows.
        rng: draws the order of the rows.
    """
    base = torch.from_numpy(vector.copy())
    flat = base.clone().requires_grad_()
    decay = torch.cat([torch.full((int(np.prod(s)),), settings.l2 if len(s) > 1 else 0.0) for s in shapes])
    optimiser = torch.optim.Adam([flat], lr=settings.learning_rate)
    for _ in range(settings.epochs):
        for rows in batches(examples, settings.batch_size, rng):
            (gradient,) = torch.autograd.grad(loss_of(flat, torch.from_numpy(rows)), flat)
            flat.grad = gradient + decay * flat.detach() + settings.proximal_mu * (flat.detach() - base)
            optimiser.step()
    update: FloatVector = (flat.detach() - base).numpy()
    return update


def tensors_of(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Views of a flat model, one a shape."""
    parts = torch.split(flat, [int(np.prod(shape)) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
