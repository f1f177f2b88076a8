"""Image retrieval with the embeddings of any model."""
from .evaluation import evaluate
from .results import Results

__all__ = ['Results', 'evaluate']
