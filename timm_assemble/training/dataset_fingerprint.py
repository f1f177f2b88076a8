"""What a data set's samples are, in a few figures, so that rows computed from one are not used with another.

Knows torch's data sets and those of timm and torchvision by what they offer: names of files, or targets.
"""
import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
from torch.utils.data import IterableDataset

__all__ = ['SampleFingerprint', 'fingerprint']

PICTURES = 64  # looked at where there are no names: two data sets of one kind and size differ in them


@dataclass(frozen=True)
class SampleFingerprint:
    """Identity of a data set's samples.

    Attributes:
        count: Number of samples.
        samples: SHA-256 of all (name, label) in order, or of labels and some pictures where there are no names.
        names: SHA-256 of the sorted names alone, to tell another order or other labels from other pictures; '' if none.
        classes: Classes of the data set, or the highest label and one where it does not say.
    """

    count: int
    samples: str
    names: str
    classes: int

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def difference(self, other: 'SampleFingerprint') -> Optional[str]:
        """In words, what ``other`` has that this has not; None if they are the same."""
        if other.count != self.count:
            return f'{other.count} samples, not {self.count}'
        if other.samples == self.samples:
            return None
        if other.names == self.names and self.names:
            return 'the same pictures in another order or with other labels'
        return 'other pictures or labels'


def _names_and_labels(dataset: Any) -> Tuple[Optional[List[str]], Optional[List[int]]]:
    reader = getattr(dataset, 'reader', None)
    if reader is not None and hasattr(reader, 'samples'):  # timm's folders and tar files
        names = [str(name).replace('\\', '/') for name in dataset.filenames()]
        targets = getattr(reader, 'targets', None)
        return names, [int(y) for y in ([sample[-1] for sample in reader.samples] if targets is None else targets)]
    if hasattr(dataset, 'samples') and hasattr(dataset, 'root'):  # torchvision's folders
        root = str(dataset.root).rstrip('/') + '/'
        return [str(path).removeprefix(root) for path, _ in dataset.samples], [int(y) for _, y in dataset.samples]
    if reader is not None and hasattr(reader, 'iter_targets'):  # Hugging Face's: names only by decoding the pictures
        return None, [int(y) for y in reader.iter_targets()]
    targets = getattr(dataset, 'targets', None)
    return None, None if targets is None else [int(y) for y in targets]


def _looked_at(dataset: Any) -> Iterator[bytes]:
    transform, dataset.transform = dataset.transform, None
    try:
        for i in np.linspace(0, len(dataset) - 1, min(PICTURES, len(dataset))).astype(int):
            picture, label = dataset[int(i)][:2]
            yield np.ascontiguousarray(picture).tobytes() + str(int(label)).encode()
    finally:
        dataset.transform = transform


def fingerprint(dataset: Any) -> SampleFingerprint:
    """Identity of a data set: of its relative names and labels, so that it may lie elsewhere on another machine.

    Args:
        dataset: Data set by index of timm (folders, tar files, Hugging Face) or torchvision.

    Raises:
        ValueError: It streams, so that a sample has no index.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__getitem__'):
        raise ValueError(f'stored logits need a data set with an index, got {type(dataset).__name__}, which streams')
    names, labels = _names_and_labels(dataset)
    digest = hashlib.sha256()
    if names is None or labels is None:
        for chunk in _looked_at(dataset):
            digest.update(chunk)
    for values in (names, labels):
        for value in values or ():
            digest.update(str(value).encode() + b'\n')
    sorted_names = '' if names is None else hashlib.sha256('\n'.join(sorted(names)).encode()).hexdigest()
    reader = getattr(dataset, 'reader', dataset)
    class_to_idx = getattr(reader, 'class_to_idx', None) or getattr(reader, 'class_name_to_idx', None)
    classes = max(class_to_idx.values()) + 1 if class_to_idx else (max(labels) + 1 if labels else 0)
    return SampleFingerprint(len(dataset), digest.hexdigest(), sorted_names, classes)
