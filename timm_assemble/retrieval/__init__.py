"""Image retrieval with the embeddings of any model."""
from .evaluation import evaluate
from .report import Results

__all__ = ['Results', 'evaluate']
