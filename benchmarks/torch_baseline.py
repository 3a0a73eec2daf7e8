"""The same Krotov-Hopfield step as a PyTorch user would write it; importable only where torch is installed."""

from collections.abc import Callable

import torch


@torch.no_grad()
def step(w, x, *, k: int, delta: float, p: float, rate: float):
    """Update `w` [N, D] in place from a batch `x` [B, D]: `topk`, credit in a [B, N] array, a second product."""
    effective = w if p == 2 else torch.sign(w) * torch.abs(w) ** (p - 1)
    u = x @ effective.T  # [B, N]
    order = torch.topk(u, k, dim=1).indices
    g = torch.zeros_like(u)
    g.scatter_(1, order[:, k - 1 :], -delta).scatter_(1, order[:, :1], 1.0)
    return advance(w, g.T @ x - (g * u).sum(0)[:, None] * w, rate)


@torch.no_grad()
def sparse_step(w, x, *, k: int, delta: float, p: float, rate: float):
    """Update `w` in place as hebbjax does: only the two rows of each sample are added."""
    effective = w if p == 2 else torch.sign(w) * torch.abs(w) ** (p - 1)
    values, order = torch.topk(x @ effective.T, k, dim=1)  # [B, k]
    first, kth = order[:, 0], order[:, k - 1]
    dw = torch.zeros_like(w).index_add_(0, first, x).index_add_(0, kth, x, alpha=-delta)
    leak = torch.zeros_like(w[:, 0])
    leak.index_add_(0, first, values[:, 0]).index_add_(0, kth, values[:, k - 1], alpha=-delta)
    return advance(w, dw - leak[:, None] * w, rate)


def advance(w, dw, rate: float):
    """Add the change, divided by its largest entry."""
    w += rate * dw / dw.abs().max().clamp(min=1e-30)
    return w


def epoch(name: str, where: str, images, *, hidden: int, batch: int, **settings) -> Callable[[], None]:
    """Build a turn: one epoch over all batches of uint8 images that lie on a device, `where` cpu or cuda.

    The name says which step: with `sparse` in it the sparse one, with `compile` in it compiled.
    """
    advance_by = sparse_step if 'sparse' in name else step
    if 'compile' in name:
        torch._dynamo.reset()  # programs of earlier settings count against its limit
        advance_by = torch.compile(advance_by, dynamic=False)
    x = (torch.from_numpy(images).reshape(len(images), -1).to(where).float() / 255).contiguous()
    w = torch.randn(hidden, x.shape[1], generator=torch.Generator().manual_seed(0)).to(where)

    def turn():
        for start in range(0, len(x), batch):
            advance_by(w, x[start : start + batch], **settings)
        if where == 'cuda':
            torch.cuda.synchronize()

    return turn
