"""A fingerprint of a data set's samples, so that logits of one data set are not used with another."""
import hashlib
import os
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple

from torch.utils.data import IterableDataset

from ..errors import UserError

__all__ = ['SampleFingerprint', 'fingerprint']


@dataclass(frozen=True)
class SampleFingerprint:
    """Identity of a data set's samples.

    Attributes:
        count: Number of samples.
        samples: SHA-256 of all names and labels in order; of the labels if samples have no names.
        names: SHA-256 of the sorted names, ``''`` without names; equal for another order or other labels of the same
            images.
        classes: Number of classes of the data set; the highest label plus one if it does not say.
    """

    count: int
    samples: str
    names: str
    classes: int

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def difference(self, other: 'SampleFingerprint') -> Optional[str]:
        """Describe how ``other`` differs; None if the samples are the same."""
        if other.count != self.count:
            return f'{other.count} samples instead of {self.count}'
        if other.samples == self.samples:
            return None
        if other.names == self.names and self.names:
            return 'the same images in another order or with other labels'
        return 'other images or labels'


def _names_and_labels(dataset: Any) -> Tuple[Optional[List[str]], Optional[List[int]]]:
    reader: Any = getattr(dataset, 'reader', None)
    if hasattr(reader, 'samples'):  # timm's folders and tar files
        # `tar -C folder .` writes names as ./class/image
        names = [re.sub(r'^(\./)+', '', str(name).replace('\\', '/')) for name in dataset.filenames()]
        targets = getattr(reader, 'targets', None)
        return names, [int(y) for y in ([sample[-1] for sample in reader.samples] if targets is None else targets)]
    if hasattr(dataset, 'samples') and hasattr(dataset, 'root'):  # torchvision's folders
        root = str(dataset.root).rstrip('/') + '/'
        return [str(path).removeprefix(root) for path, _ in dataset.samples], [int(y) for _, y in dataset.samples]
    # Hugging Face datasets have an iterator; their names need decoded images
    targets = reader.iter_targets() if hasattr(reader, 'iter_targets') else getattr(dataset, 'targets', None)
    return None, None if targets is None else [int(y) for y in targets]


def fingerprint(dataset: Any) -> SampleFingerprint:
    """Return the fingerprint of a data set.

    It covers relative names and labels, so that the data set may have another location on another machine. The content
    of each sample is covered by ``Samples.checksum``.

    Args:
        dataset: Map-style data set of timm (folders, tar files, Hugging Face datasets) or torchvision.

    Raises:
        UserError: The data set streams: its samples have no index.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__getitem__'):
        raise UserError(f'dataset must have an index for stored logits, got {type(dataset).__name__}, which streams')
    names, labels = _names_and_labels(dataset)
    digest = hashlib.sha256()
    for value in (*(names or ()), *(labels or ())):
        digest.update(os.fsencode(f'{value}\n'))
    sorted_names = '' if names is None else hashlib.sha256(os.fsencode('\n'.join(sorted(names)))).hexdigest()
    reader = getattr(dataset, 'reader', dataset)
    class_to_idx = getattr(reader, 'class_to_idx', None) or getattr(reader, 'class_name_to_idx', None)
    classes = max(class_to_idx.values()) + 1 if class_to_idx else (max(labels) + 1 if labels else 0)
    return SampleFingerprint(len(dataset), digest.hexdigest(), sorted_names, classes)
