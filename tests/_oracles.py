"""Definitions of the papers as slow loops over single numbers."""
import math

import numpy as np


def selective_kernel(branches: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(2, B, F, H, W) branches and (2, B, F) logits: softmax across the two, weighted sum."""
    _, batch, chs, height, width = branches.shape
    y = np.zeros((batch, chs, height, width))
    for b in range(batch):
        for c in range(chs):
            e = [math.exp(logits[k, b, c]) for k in (0, 1)]
            for k in (0, 1):
                y[b, c] += e[k] / sum(e) * branches[k, b, c]
    return y


def reflect(i: int, n: int) -> int:
    """Index i of a line of n values continued by reflection without repeating the edge."""
    if i < 0:
        return -i
    return 2 * (n - 1) - i if i >= n else i


def blur_down(x: np.ndarray, size: int, stride: int = 2) -> np.ndarray:
    """(H, W) blurred by a binomial filter, reflected at the border, and subsampled by 2."""
    height, width = x.shape
    tap = [math.comb(size - 1, i) / 2 ** (size - 1) for i in range(size)]
    pad = (size - 1) // 2
    y = np.zeros((-(-height // stride), -(-width // stride)))
    for r in range(y.shape[0]):
        for c in range(y.shape[1]):
            for i in range(size):
                for j in range(size):
                    source = x[reflect(stride * r + i - pad, height), reflect(stride * c + j - pad, width)]
                    y[r, c] += tap[i] * tap[j] * source
    return y


def gem(x: np.ndarray, p: float = 3.0, low: float = 1e-6, high: float = 1e12) -> float:
    """Generalised mean of a feature map, with bounds on the values and a lower one on the sum of powers."""
    total = 0.0
    for value in x.ravel():
        total += min(max(value, low), high) ** p
    return (max(total, low) / x.size) ** (1 / p)


def drop_block_mask(starts: np.ndarray, height: int, width: int, kh: int, kw: int) -> np.ndarray:
    """(H, W) mask before normalisation: a block clears kh x kw positions to the right and below of its start."""
    mask = np.ones((height, width))
    for r, c in np.argwhere(starts):
        for i in range(kh):
            for j in range(kw):
                mask[r + i, c + j] = 0
    return mask


def max_pool_same(x: np.ndarray, size: int = 3, stride: int = 2) -> np.ndarray:
    """(H, W), TensorFlow's "SAME": ceil(side / stride) windows, odd padding at the end."""
    height, width = x.shape
    y = np.full((-(-height // stride), -(-width // stride)), -np.inf)
    before = [max((n - 1) * stride + size - side, 0) // 2 for n, side in zip(y.shape, x.shape)]
    for r in range(y.shape[0]):
        for c in range(y.shape[1]):
            for i in range(size):
                for j in range(size):
                    a, b = stride * r + i - before[0], stride * c + j - before[1]
                    if 0 <= a < height and 0 <= b < width:
                        y[r, c] = max(y[r, c], x[a, b])
    return y


def shortcut_pool(x: np.ndarray, kind: str, stride: int) -> np.ndarray:
    """(H, W) of a shortcut before its convolution."""
    height, width = x.shape
    size, before = (3, 1) if kind == 'big_little' else (2, 0)
    y = np.zeros((-(-height // stride), -(-width // stride)))
    for r in range(y.shape[0]):
        for c in range(y.shape[1]):
            total, inside = 0.0, 0
            for i in range(size):
                for j in range(size):
                    a, b = stride * r + i - before, stride * c + j - before
                    if 0 <= a < height and 0 <= b < width:
                        total, inside = total + x[a, b], inside + 1
            # D at stride 1 is TensorFlow's "SAME" average, which does not count the padding; the others do
            y[r, c] = total / (inside if stride == 1 else size * size)
    return y


def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) to (height, width) by nearest neighbours."""
    y = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            y[r, c] = x[r * x.shape[0] // height, c * x.shape[1] // width]
    return y


def mixed_with_reverse(rows: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """(B, C) rows, each mixed with that of the reversed batch by its own weight; as many rows as weights."""
    mixed = np.zeros((len(lam), rows.shape[1]))
    for i in range(len(lam)):
        for c in range(rows.shape[1]):
            mixed[i, c] = lam[i] * rows[i, c] + (1 - lam[i]) * rows[len(rows) - 1 - i, c]
    return mixed


def smoothed(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """(B,) class indices to (B, C) class weights, a part of them spread evenly over all classes."""
    weights = np.full((len(labels), classes), smoothing / classes)
    for i, label in enumerate(labels):
        weights[i, label] += 1 - smoothing
    return weights


def spread_evenly(logits: np.ndarray, k: int) -> np.ndarray:
    """(C,) logits to probabilities: the k largest unchanged, the rest spread evenly."""
    e = np.exp(logits - logits.max())
    probs = e / e.sum()
    largest = np.argsort(-logits)[:k]
    out = np.zeros_like(probs)
    for c in range(len(probs)):
        out[c] = probs[c] if c in largest else (1 - probs[largest].sum()) / (len(probs) - k)
    return out


def softened(logits, temperature: float = 1.0) -> list:
    """Softmax of the logits over the temperature."""
    e = [math.exp((z - max(logits)) / temperature) for z in logits]
    return [x / sum(e) for x in e]


def standardized(logits) -> list:
    """Logits minus their mean, over their deviation."""
    mean = sum(logits) / len(logits)
    deviation = math.sqrt(sum((z - mean) ** 2 for z in logits) / len(logits))
    return [(z - mean) / deviation for z in logits]


def divergence(p, q) -> float:
    """KL divergence of q from p; a class without probability in p adds nothing."""
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


def distillation_loss(name: str, logits, teacher, labels, temperature: float) -> float:
    """Loss of a batch of student's logits and teacher's probabilities; a label is {class: weight in the mixture}."""
    rows = [softened(z, temperature) for z in logits]
    total = 0.0
    for q, p, label in zip(rows, teacher, labels):
        if name == 'kl':
            total += divergence(p, q) / len(rows)
        elif name == 'ce':
            total -= sum(a * math.log(b) for a, b in zip(p, q)) / len(rows)
        elif name == 'dkd':
            for target, weight in label.items():
                others = [c for c in range(len(q)) if c != target]
                p_rest, q_rest = (sum(v[c] for c in others) for v in (p, q))
                binary = divergence((p[target], p_rest), (q[target], q_rest))
                among = divergence([p[c] / p_rest for c in others], [q[c] / q_rest for c in others])
                total += weight * (binary + 0.5 * among) / len(rows)
        else:
            total += (1 - np.corrcoef(q, p)[0, 1]) / len(rows)
    if name == 'dist':
        for c in range(len(rows[0])):
            total += (1 - np.corrcoef([q[c] for q in rows], [p[c] for p in teacher])[0, 1]) / len(rows[0])
    return float(total) * temperature ** 2


def corruption_error(errors, reference):
    """Sum over severities relative to that of the reference, whose single mean stands for every severity."""
    top = bottom = 0.0
    for s, error in enumerate(errors):
        top += error
        bottom += reference[s] if hasattr(reference, '__len__') else reference
    return 100 * top / bottom


def relative_corruption_error(errors, clean, reference, reference_clean):
    """The same for the difference to the error on clean images."""
    top = bottom = 0.0
    for s, error in enumerate(errors):
        top += error - clean
        bottom += (reference[s] if hasattr(reference, '__len__') else reference) - reference_clean
    return 100 * top / bottom


def flip_rate(sequences, with_first: bool) -> float:
    """Percent of pairs of frames whose classes differ."""
    flips = pairs = 0
    for frames in sequences:
        for j in range(1, len(frames)):
            pairs += 1
            if frames[j] != (frames[0] if with_first else frames[j - 1]):
                flips += 1
    return 100 * flips / pairs


def calibration_error(confidences, hits, bins: int) -> float:
    """ECE: difference of mean confidence and accuracy per bin of confidence (low, high], weighted by its size."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins]
        if inside:
            confidence = sum(confidences[i] for i in inside) / len(inside)
            accuracy = sum(hits[i] for i in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(confidence - accuracy)
    return total


def scores(probabilities, right):
    """NLL and Brier score of an image: its right classes are one class, whose probability is their sum."""
    merged = sum(probabilities[c] for c in right)
    brier = (1 - merged) ** 2
    for c, p in enumerate(probabilities):
        if c not in right:
            brier += p ** 2
    return -math.log(merged), brier


def _wrong_of_most(count, confidences, wrong) -> float:
    """Sum of ``wrong`` over the most confident images; an image on the edge counts in part, equal ones alike."""
    total, left = 0.0, count
    for level in sorted({*confidences}, reverse=True):
        tied = [w for c, w in zip(confidences, wrong) if c == level]
        part = min(left, len(tied))
        total, left = total + part * sum(tied) / len(tied), left - part
    return total


def selection(confidences, hits) -> dict:
    """AURC, the mean over k of the error of the k most confident images; accuracy at coverages; adaptive ECE.

    Adaptive ECE has 15 bins of equally many images, in percent as the others.
    """
    n, wrong = len(hits), [1 - float(h) for h in hits]
    gaps = [float(h) - c for h, c in zip(hits, confidences)]
    aurc = sum(_wrong_of_most(k, confidences, wrong) / k for k in range(1, n + 1)) / n
    inner = [_wrong_of_most(n * b / 15, confidences, gaps) for b in range(16)]
    found = {f'accuracy_at_{c}': 100 - 100 * _wrong_of_most(n * c / 100, confidences, wrong) / (n * c / 100)
             for c in (80, 90)}
    return dict(found, aurc=100 * aurc, adaptive_ece=100 * sum(abs(inner[b + 1] - inner[b]) for b in range(15)) / n)


def detection(inside, outside):
    """Return AUROC, AUPR and FPR at 95 % true positives, in percent, by counting; the others are the positives.

    The threshold is the one whose recall is nearest to 95 %, the larger one of two, as in Hendrycks' code; the loosest
    of the thresholds with this recall, but the strictest that finds all.
    """
    auroc = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside])
    thresholds = sorted({*inside, *outside}, reverse=True)
    points = [(np.mean([b <= t for b in outside]), np.mean([a <= t for a in inside])) for t in sorted(thresholds)]
    points = points[:[recall for recall, _ in points].index(1.0) + 1]
    fpr95 = min(reversed(points), key=lambda point: abs(point[0] - 0.95))[1]
    precision_sum, before = 0.0, 0.0
    for t in sorted(thresholds):  # the lowest scores are found first
        found = sum(b <= t for b in outside)
        recall = found / len(outside)
        precision_sum += (recall - before) * found / (found + sum(a <= t for a in inside))
        before = recall
    return 100 * float(auroc), 100 * precision_sum, 100 * float(fpr95)


def wilson(wrong, images):
    """Return the two rates whose distance to the observed one is 1.96 of their own standard deviations."""
    z, p = 1.959963984540054, wrong / images
    center, spread = p + z * z / (2 * images), z * math.sqrt(p * (1 - p) / images + z * z / (4 * images ** 2))
    return tuple(max(0, (center + sign * spread) / (1 + z * z / images)) for sign in (-1, 1))


def mcnemar(first, second):
    """Return the exact two-sided p-value: twice the smaller tail of a fair coin."""
    from math import comb
    b = sum(x and not y for x, y in zip(first, second))
    c = sum(y and not x for x, y in zip(first, second))
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    return min(1.0, 2 * tail)


def neighbours(query, gallery, own=None) -> list:
    """Return the gallery's images but ``own`` by cosine similarity, the nearest first, equally near ones by number."""
    def cosine(a, b):
        dot = sum(float(x) * float(y) for x, y in zip(a, b))
        lengths = math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))
        return dot / lengths if lengths else 0.0
    others = [i for i in range(len(gallery)) if i != own]
    return sorted(others, key=lambda i: (-cosine(query, gallery[i]), i))


def retrieval(queries, labels, gallery, gallery_labels, own, recall_at) -> dict:
    """Return recall@k, mAP and MAP@R in percent, over the queries that have an image of their class to find.

    ``own`` has the number of the gallery's image that is the query, None for none.
    """
    recalls, averages, averages_r = {k: [] for k in recall_at}, [], []
    for query, label, itself in zip(queries, labels, own):
        right = [gallery_labels[i] == label for i in neighbours(query, gallery, itself)]
        relevant = sum(right)
        if relevant:
            for k in recall_at:
                recalls[k].append(any(right[:k]))
            precision = [right[i] * sum(right[:i + 1]) / (i + 1) for i in range(len(right))]
            averages.append(sum(precision) / relevant)
            averages_r.append(sum(precision[:relevant]) / relevant)
    return {**{f'recall@{k}': 100 * sum(hits) / len(hits) for k, hits in recalls.items()},
            'map': 100 * sum(averages) / len(averages), 'map@r': 100 * sum(averages_r) / len(averages_r)}


def all_among_others(embeddings, labels, recall_at) -> dict:
    """Return :func:`retrieval` of every image among all others."""
    return retrieval(embeddings, labels, embeddings, labels, range(len(labels)), recall_at)
