"""The same Krotov-Hopfield step as a PyTorch user would write it today; importable only where torch is installed."""

import torch


@torch.no_grad()
def step(w, x, *, k: int, delta: float, p: float, rate: float):
    """Update `w` [N, D] in place from a batch `x` [B, D]: one product, `topk`, two `index_add_`."""
    seen = w if p == 2 else torch.sign(w) * torch.abs(w) ** (p - 1)
    values, order = torch.topk(x @ seen.T, k, dim=1)  # [B, k]
    first, kth = order[:, 0], order[:, k - 1]
    dw = torch.zeros_like(w).index_add_(0, first, x).index_add_(0, kth, x, alpha=-delta)
    leak = (
        torch.zeros_like(w[:, 0]).index_add_(0, first, values[:, 0]).index_add_(0, kth, values[:, k - 1], alpha=-delta)
    )
    dw -= leak[:, None] * w
    w += rate * dw / dw.abs().max().clamp(min=1e-30)
    return w
