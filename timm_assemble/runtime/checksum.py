"""SHA-256 checksums of weights and files."""
import hashlib
from pathlib import Path
from typing import Mapping

import torch
from huggingface_hub.utils.sha import sha_fileobj

__all__ = ['file_sha256', 'weights_sha256']


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, shapes, dtypes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}\n'.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks of 1 MiB."""
    with path.open('rb') as file:
        return sha_fileobj(file).hex()
