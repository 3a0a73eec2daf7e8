"""Miconi's learning step as a PyTorch user would write it: convolutions, surrogate losses, one backward per layer."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

RATES, WINDOWS = (1e-4, 1e-4, 1e-3), (5, 3, 3)  # per patch won; sides


def normalise(x):
    """Give every image mean 0 and standard deviation 1."""
    flat = x.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / (1e-10 + flat.std(1, keepdim=True))).view_as(x)


class Layers:
    """Three layers of weights [N, C, k, k], masks and thresholds, from weights [N, D] in (k, k, C) order."""

    def __init__(self, weights: Sequence[np.ndarray]):
        shaped = [torch.from_numpy(np.array(w)).view(len(w), k, k, -1) for w, k in zip(weights, WINDOWS)]
        self.w = [w.permute(0, 3, 1, 2).contiguous().requires_grad_() for w in shaped]
        self.masks = [w.detach() != 0 for w in self.w]
        self.thresholds = [torch.zeros(1, len(w), 1, 1) for w in self.w]
        self.optimizers = [torch.optim.SGD([w], rate) for w, rate in zip(self.w, RATES)]

    def step(self, x, zca):
        """Learn from images [B, 3, 32, 32] in [0, 1]; returns what the last layer sends."""
        x = normalise(x)
        x = (x.flatten(1) @ zca).view_as(x)
        for number, (w, threshold) in enumerate(zip(self.w, self.thresholds)):
            x = normalise(x)
            u = functional.conv2d(x, w)
            with torch.no_grad():
                above = u - threshold
                y = torch.zeros_like(above).scatter_(1, above.argmax(1, keepdim=True), 1.0)
            s = u - w.pow(2).sum((1, 2, 3)).view(1, -1, 1, 1) / 2  # Grossberg's instar
            s = s + (y - s).detach()
            self.optimizers[number].zero_grad()
            (-s.pow(2).sum() / 2).backward()
            self.optimizers[number].step()
            with torch.no_grad():
                w.mul_(self.masks[number])
                w.div_(1e-10 + w.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
                x = functional.avg_pool2d(functional.relu(above - above.mean(1, keepdim=True)), 2)
                self.thresholds[number] = threshold + 3.0 * (y.mean((0, 2, 3)) - 1 / len(w)).view_as(threshold)
        return x


def turn(batches: Sequence[np.ndarray], layers: Layers, zca: np.ndarray) -> Callable[[], None]:
    """Build a turn: one step per batch of uint8 images [B, H, W, C]; `zca` is in their order of pixels."""
    shape = batches[0].shape[1:]
    order = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
    zca = torch.from_numpy(np.asarray(zca)[np.ix_(order, order)])
    images = [torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).contiguous() for batch in batches]

    def learn():
        for batch in images:
            layers.step(batch.float() / 255, zca)

    return learn
