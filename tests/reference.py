"""Every rule in plain loops, float64: slow, obvious, the judge. Knows numpy only, nothing of the library."""

import itertools

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


# Competitions: drives of one patch -> credit


def everyone(u):
    """y = u."""
    return u


def driven(u):
    """y = max(u, 0)."""
    return np.array([max(u_i, 0.0) for u_i in u])


def peaks(u):
    """y = max(u - mean u, 0)."""
    return np.maximum(np.array(u) - np.mean(u), 0)


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


# Lateral connections


def settle_sideways(u, m, steps, pace, f):
    """From y = 0, steps + 1 times: y_i += pace (f(u_i - sum over j of m_ij y_j) - y_i), of one patch."""
    y = [0.0] * len(u)
    for _ in range(steps + 1):
        inhibited = [u[i] - sum(m[i][j] * y[j] for j in range(len(u))) for i in range(len(u))]
        y = [y_i + pace * (f(v_i) - y_i) for y_i, v_i in zip(y, inhibited)]
    return y


def inhibit(y, m, rate, target):
    """m_ij += rate (<y_i y_j> - <y_i^2> m_ij), or rate (<y_i y_j> - target^2) and never below 0; m_ii stays 0."""
    moved = np.zeros_like(m)
    for i in range(len(m)):
        for j in range(len(m)):
            both, own = (sum(patch[i] * patch[k] for patch in y) / len(y) for k in (j, i))
            change = both - own * m[i, j] if target is None else both - target**2
            if i != j:
                moved[i, j] = m[i, j] + rate * change
            if i != j and target is not None:
                moved[i, j] = max(moved[i, j], 0.0)
    return moved


# Rules: x [P, D], w [N, D] -> dw [N, D], summed over patches, or divided by their number, or by each neuron's credit


def reduced(dw, credit, patches, reduce):
    """Divide what patches add up to."""
    if reduce == 'mean_over_credit':
        return np.array([row / share if share > 0 else row for row, share in zip(dw, credit)])
    return dw / patches if reduce == 'mean_over_patches' else dw


def leaky(x, w, leak, compete=None, reduce='mean_over_patches', threshold=None):
    """dw_i = sum of y_i x - leak(y_i) w_i, y = compete(w x - threshold)."""
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        y = (compete or everyone)(above([w_i @ patch for w_i in w], threshold))
        for i in range(len(w)):
            dw[i] += y[i] * patch - leak(y[i]) * w[i]
            credit[i] += abs(y[i])
    return reduced(dw, credit, len(x), reduce)


def hebb(x, w, **settings):
    """dw_i = sum of y_i x."""
    return leaky(x, w, lambda y: 0.0, **settings)


def oja(x, w, **settings):
    """dw_i = sum of y_i (x - y_i w_i)."""
    return leaky(x, w, lambda y: y * y, **settings)


def instar(x, w, **settings):
    """dw_i = sum of y_i (x - w_i)."""
    return leaky(x, w, lambda y: y, **settings)


def softhebb(x, w, temperature, threshold=None):
    """dw_i = sum of y_i (x - u_i w_i), y = softmax((u - threshold) / temperature), negative for all but the winner."""
    dw = np.zeros_like(w)
    for patch in x:
        u = [w_i @ patch for w_i in w]
        v = above(u, threshold)
        y = shared([v_i / temperature for v_i in v])
        for i in range(len(w)):
            sign = 1 if i == ranks(v)[0] else -1
            dw[i] += sign * y[i] * (patch - u[i] * w[i])
    return dw


def sanger(x, w, reduce='mean_over_patches', threshold=None):
    """dw_i = sum of y_i (x - sum over j <= i of y_j w_j), y = w x. Nobody competes."""
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        y = [w_i @ patch for w_i in w]
        for i in range(len(w)):
            explained = np.zeros_like(patch)
            for j in range(i + 1):
                explained += y[j] * w[j]
            dw[i] += y[i] * (patch - explained)
            credit[i] += abs(y[i])
    return reduced(dw, credit, len(x), reduce)


def trace(x, w, eta, compete=None, reduce='mean_over_patches', threshold=None):
    """dw_i = sum of ybar_i (x - w_i), ybar = (1 - eta) ybar + eta y, x [S, T, D], or one sequence [T, D]."""
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for sequence in x if x.ndim == 3 else [x]:
        ybar = np.zeros(len(w))
        for patch in sequence:
            y = (compete or everyone)(above([w_i @ patch for w_i in w], threshold))
            for i in range(len(w)):
                ybar[i] = (1 - eta) * ybar[i] + eta * y[i]
                dw[i] += ybar[i] * (patch - w[i])
                credit[i] += abs(ybar[i])
    return reduced(dw, credit, x.size // x.shape[-1], reduce)


def bcm(x, w, theta=None, reduce='mean_over_patches', threshold=None):
    """dw_i = sum of y_i (y_i - theta_i - threshold_i) x, y = max(w x, 0); theta is 0 at first."""
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        for i in range(len(w)):
            y = max(w[i] @ patch, 0.0)
            modification = y - (0.0 if theta is None else theta[i]) - (0.0 if threshold is None else threshold[i])
            dw[i] += y * modification * patch
            credit[i] += y
    return reduced(dw, credit, len(x), reduce)


def nearness(patch, w_i, metric):
    """How near a patch is to a neuron: drive, cosine, or minus half the squared distance (up to |x|^2 / 2)."""
    if metric == 'dot':
        return w_i @ patch
    if metric == 'euclidean':
        return (patch @ patch - (patch - w_i) @ (patch - w_i)) / 2
    lengths = np.sqrt(patch @ patch) * np.sqrt(w_i @ w_i)
    return w_i @ patch / lengths if lengths > 0 else 0.0


def prototypes(x, w, compete, metric, reduce='mean_over_credit', threshold=None, teacher=None):
    """Steps |y_i| (sign(y_i) x - w_i), y = compete(nearness - threshold) or what the teacher imposes.

    'mean_over_credit' averages them with weights |y_i|.
    """
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for number, patch in enumerate(x):
        if metric == 'cosine' and compete is not None and not patch.any():
            continue
        y = (
            teacher[number]
            if compete is None
            else compete(above([nearness(patch, w_i, metric) for w_i in w], threshold))
        )
        for i in range(len(w)):
            weight = abs(y[i]) if reduce == 'mean_over_credit' else 1.0
            dw[i] += weight * abs(y[i]) * (np.sign(y[i]) * patch - w[i])
            credit[i] += abs(y[i])
    return reduced(dw, credit, len(x), reduce)


def som(x, w, places, radius):
    """Each patch's winner by angle, and its neighbours by exp(-d^2 / (2 radius^2)), d the larger of two distances."""
    steps, weights = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        j = ranks([nearness(patch, w_j, 'cosine') for w_j in w])[0]
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


def associate(x, w, kind, reduce='mean_over_patches', threshold=None, sequences=False):
    """dw_ij = sum of t_i x_j, t_i (x_j - t_i w_ij) or (t_i - w_i x) x_j, 0 for i = j; t is x, or what follows it.

    Nothing follows a last frame, which counts as a patch all the same; x is [S, T, D] then, or one sequence.
    """
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    pairs = [(patch, patch) for patch in x]
    if sequences:
        pairs = [pair for sequence in (x if x.ndim == 3 else [x]) for pair in itertools.pairwise(sequence)]
    for patch, target in pairs:
        for i in range(len(w)):
            y = target[i] - w[i] @ patch if kind == 'delta' else target[i]
            for j in range(len(w)):
                if i != j:
                    dw[i, j] += y * patch[j] - (y * y * w[i, j] if kind == 'oja' else 0.0)
            credit[i] += abs(y)
    return reduced(dw, credit, x.size // x.shape[-1], reduce)


def taylor(x, w, theta, compete=None, reduce='mean_over_patches', threshold=None):
    """dw_id = sum of theta_abc x_d^a y_i^b w_id^c."""
    dw, credit = np.zeros_like(w), np.zeros(len(w))
    for patch in x:
        y = (compete or everyone)(above([w_i @ patch for w_i in w], threshold))
        for i, d in np.ndindex(w.shape):
            for a, b, c in np.ndindex(theta.shape):
                dw[i, d] += theta[a, b, c] * patch[d] ** a * y[i] ** b * w[i, d] ** c
        credit += np.abs(y)
    return reduced(dw, credit, len(x), reduce)


def mlp(x, w, params, compete=None, threshold=None):
    """dw_id = w_out . tanh(w_in' z + b), z = means of y_i x_d, y_i, y_i^2 and x_d, and w_id."""
    y = np.array([(compete or everyone)(above([w_i @ patch for w_i in w], threshold)) for patch in x])
    dw = np.zeros_like(w)
    for i, d in np.ndindex(w.shape):
        known = [y[:, i] @ x[:, d] / len(x), y[:, i].mean(), (y[:, i] ** 2).mean(), x[:, d].mean(), w[i, d]]
        for column, bias, weight in zip(params[0].T, params[1], params[2]):
            dw[i, d] += weight * np.tanh(column @ known + bias)
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


def settle(images, weights, thresholds, gain, steps):
    """Two dense layers with rectified answers, image by image: images [B, D] -> settled answers [B, N'] of the second.

    u_1(t) = W_1 x - threshold_1 + gain s W_2' a_2(t - 1), s = rms(u_1(0)) / rms(W_2' a_2(0)); also the drives' changes
    per step [B, steps], summed squares.
    """
    (w1, w2), (threshold1, threshold2) = weights, thresholds
    answers, changes = np.zeros((len(images), len(w2))), np.zeros((len(images), steps))
    for b, x in enumerate(images):
        up = np.array([w_i @ x - threshold for w_i, threshold in zip(w1, threshold1)])
        u1, u2 = up, np.array([w_k @ np.maximum(up, 0) - threshold for w_k, threshold in zip(w2, threshold2)])
        scale = np.sqrt(np.mean(up**2)) / np.sqrt(np.mean((np.maximum(u2, 0) @ w2) ** 2))
        for t in range(steps):
            before = np.concatenate([u1, u2])
            u1 = up.copy()
            for i in range(len(w1)):
                for k in range(len(w2)):
                    u1[i] += gain * scale * w2[k, i] * max(u2[k], 0)
            u2 = np.array([w_k @ np.maximum(u1, 0) - threshold for w_k, threshold in zip(w2, threshold2)])
            changes[b, t] = np.sum((np.concatenate([u1, u2]) - before) ** 2)
        answers[b] = np.maximum(u2, 0)
    return answers, changes
