"""Every rule in plain loops, float64: slow, obvious, the judge. Knows numpy only, nothing of the library."""

import numpy as np


def patches(images, size, stride, padding):
    """Cut windows out pixel by pixel, in (kh, kw, C) order."""
    batch, height, width, channels = images.shape
    (kh, kw), (sh, sw), (ph, pw) = size, stride, padding
    padded = np.zeros((batch, height + 2 * ph, width + 2 * pw, channels), images.dtype)
    padded[:, ph : ph + height, pw : pw + width] = images
    rows, columns = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
    out = np.zeros((batch, rows, columns, kh * kw * channels), images.dtype)
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                place = 0
                for y in range(kh):
                    for x in range(kw):
                        for c in range(channels):
                            out[b, i, j, place] = padded[b, i * sh + y, j * sw + x, c]
                            place += 1
    return out


def ranks(u):
    """Order neurons by drive, largest first; of equal drives the first neuron comes first."""
    return sorted(range(len(u)), key=lambda i: (-u[i], i))


def everyone(u):
    """y = u."""
    return u


def driven(u):
    """y = max(u, 0)."""
    return np.array([max(u_i, 0.0) for u_i in u])


def shared(u):
    """y = softmax(u)."""
    powers = [np.exp(u_i - max(u)) for u_i in u]
    return np.array([power / sum(powers) for power in powers])


def winners(k):
    """y_i = 1 where neuron i is among the k with the largest drives, else 0."""
    return lambda u: np.array([1.0 if i in ranks(u)[:k] else 0.0 for i in range(len(u))])


def above(u, threshold):
    """u_i - threshold_i, by which neurons compete."""
    return [u_i - (0.0 if threshold is None else threshold[i]) for i, u_i in enumerate(u)]


def hebb(x, w, compete=everyone, threshold=None):
    """dw_i = mean over patches of y_i x, y = compete(w x - threshold)."""
    dw = np.zeros_like(w)
    for patch in x:
        y = compete(above([w_i @ patch for w_i in w], threshold))
        for i in range(len(w)):
            dw[i] += y[i] * patch
    return dw / len(x)


def oja(x, w, compete=everyone, threshold=None):
    """dw_i = mean over patches of y_i (x - y_i w_i), y = compete(w x - threshold)."""
    dw = np.zeros_like(w)
    for patch in x:
        y = compete(above([w_i @ patch for w_i in w], threshold))
        for i in range(len(w)):
            dw[i] += y[i] * (patch - y[i] * w[i])
    return dw / len(x)


def own_mean(dw, x, w, compete=everyone, threshold=None):
    """Turn a mean over patches into each neuron's mean over its own credit: divide by the mean of |y_i| instead."""
    credit = np.zeros(len(w))
    for patch in x:
        credit += np.abs(compete(above([w_i @ patch for w_i in w], threshold))) / len(x)
    return np.array([row / share if share > 0 else row for row, share in zip(dw, credit)])


def sanger(x, w, threshold=None):
    """dw_i = mean over patches of y_i (x - sum over j <= i of y_j w_j), y = w x. Nobody competes."""
    dw = np.zeros_like(w)
    for patch in x:
        y = [w_i @ patch for w_i in w]
        for i in range(len(w)):
            explained = np.zeros_like(patch)
            for j in range(i + 1):
                explained += y[j] * w[j]
            dw[i] += y[i] * (patch - explained)
    return dw / len(x)


def instar(x, w, compete=None, k=1, threshold=None):
    """dw_i = mean over patches of y_i (x - w_i), y = compete(w x - threshold), or 1 for the k largest."""
    compete = compete or winners(k)
    dw = np.zeros_like(w)
    for patch in x:
        y = compete(above([w_i @ patch for w_i in w], threshold))
        for i in range(len(w)):
            dw[i] += y[i] * (patch - w[i])
    return dw / len(x)


def closeness(patch, w_i, by):
    """How near a patch is to a neuron: cosine, minus half the squared distance (up to |x|^2 / 2), or drive."""
    if by == 'drive':
        return w_i @ patch
    if by == 'distance':
        return (patch @ patch - (patch - w_i) @ (patch - w_i)) / 2
    lengths = np.sqrt(patch @ patch) * np.sqrt(w_i @ w_i)
    return w_i @ patch / lengths if lengths > 0 else 0.0


def nearest(x, w, compete, by='angle', reduce='weighted', threshold=None, teacher=None):
    """Steps |y_i| (sign(y_i) x - w_i), y = compete(closeness - threshold) or what the teacher imposes.

    'weighted' averages them with weights |y_i|, 'total' adds them up, 'mean' divides that by the number of patches.
    """
    dw = np.zeros_like(w)
    for i in range(len(w)):
        steps, weights = [], []
        for number, patch in enumerate(x):
            if by == 'angle' and compete is not None and not patch.any():
                continue
            near = above([closeness(patch, w_j, by) for w_j in w], threshold)
            y_i = teacher[number][i] if compete is None else compete(near)[i]
            steps.append(abs(y_i) * (np.sign(y_i) * patch - w[i]))
            weights.append(abs(y_i))
        if reduce == 'weighted':
            dw[i] = sum(a * step for a, step in zip(weights, steps)) / (sum(weights) or 1)
        else:
            dw[i] = sum(steps) / (len(x) if reduce == 'mean' else 1)
    return dw


def som(x, w, places, radius):
    """Each patch's winner by angle, and its neighbours by exp(-d^2 / (2 radius^2)), d the larger of two distances."""
    steps, weights = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        j = ranks([closeness(patch, w_j, 'angle') for w_j in w])[0]
        for i in range(len(w)):
            d = max(abs(a - b) for a, b in zip(places[i], places[j]))
            r = np.exp(-d * d / (2 * radius**2))
            steps[i] += r * r * (patch - w[i])
            weights[i] += r
    return steps / weights[:, None]


def krotov(x, w, k, delta, p, threshold=None):
    """dw_i = sum over patches of g_i (x - <w_i, x> w_i), <w_i, x> = sum_d sign(w_id) |w_id|^(p-1) x_d."""
    dw = np.zeros_like(w)
    for patch in x:
        drive = [sum(np.sign(w_d) * abs(w_d) ** (p - 1) * x_d for w_d, x_d in zip(w_i, patch)) for w_i in w]
        order = ranks(above(drive, threshold))
        for rank, g in ((1, 1.0), (k, -delta)):
            i = order[rank - 1]
            dw[i] += g * (patch - drive[i] * w[i])
    return dw


def krotov_step(x, w, k, delta, p, rate, precision=1e-30, per='layer'):
    """One step as published: the change is divided by its largest entry over all neurons, then w + rate change."""
    dw = krotov(x, w, k, delta, p)
    if per == 'unit':  # ours, not the paper's: one maximum per neuron
        return w + rate * np.array([row / max(np.abs(row).max(), precision) for row in dw])
    return w + rate * dw / max(np.abs(dw).max(), precision)


def head_logits(u, mean, var, scale, shift, power, pool, w, b, epsilon=1e-5):
    """Batch norm on the whole map, rectified power, max pooling, linear, image by image: u [B, H, W, N]."""
    z = np.maximum(scale * (u - mean) / np.sqrt(var + epsilon) + shift, 0) ** power
    batch, height, width, neurons = z.shape
    rows, columns = height // pool, width // pool
    out = np.zeros((batch, w.shape[2]))
    for n in range(batch):
        for i in range(rows):
            for j in range(columns):
                for c in range(neurons):
                    largest = z[n, i * pool : (i + 1) * pool, j * pool : (j + 1) * pool, c].max()
                    out[n] += largest * w[i * columns + j, c]
        out[n] += b
    return out
