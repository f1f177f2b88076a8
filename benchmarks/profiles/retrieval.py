"""CPU time and peak memory of searching embeddings: ``python -m benchmarks.profiles.retrieval``.

The embeddings are drawn, and searched as ``timm-assemble retrieval`` does it, all of them among all others. The peak is
that of this process, with Python, torch and the embeddings. ``--faiss`` times faiss's exact index too, where it is
installed.
"""
import argparse
import resource
import sys
import time
from typing import List, Optional

import torch

from timm_assemble.retrieval.search import block_rows, normalize, rank_gallery


def search_with_faiss(embeddings: torch.Tensor, neighbours: int, threads: int) -> float:
    """Return the CPU time that faiss's exact index takes to find the neighbours of all."""
    import faiss

    faiss.omp_set_num_threads(threads)
    began = time.process_time()
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings.numpy())
    index.search(embeddings.numpy(), neighbours + 1)
    return time.process_time() - began


def main(argv: Optional[List[str]] = None) -> int:
    """Search and print."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.profiles.retrieval')
    parser.add_argument('--images', type=int, default=60_000)
    parser.add_argument('--dimensions', type=int, default=2048)
    parser.add_argument('--neighbours', type=int, default=1000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--faiss', action='store_true', help="time faiss's exact index, too")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(args.images, args.dimensions, generator=generator))
    labels = torch.arange(args.images) // 5  # as in Stanford Online Products, about
    began, found = time.process_time(), 0
    for own in torch.arange(args.images).split(block_rows(args.images)):
        indices = rank_gallery(embeddings[own], embeddings, own)[0][:, :args.neighbours]
        found += int((labels[indices] == labels[own, None]).any(1).sum())
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20  # KiB on Linux
    print(f'{args.images} embeddings of {args.dimensions} numbers, {args.neighbours} neighbours, {args.threads} '
          f'threads: {seconds:.0f} s of CPU time, peak memory {peak:.2f} GiB, '
          f'recall@{args.neighbours} {100 * found / args.images:.2f} %')
    if args.faiss:
        print(f'faiss: {search_with_faiss(embeddings, args.neighbours, args.threads):.0f} s of CPU time')
    return 0


if __name__ == '__main__':
    sys.exit(main())
