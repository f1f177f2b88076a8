"""Write the table of models into docs/models.md. ``python -m docs.variants``

Parameters and multiply-adds are counted on the models; published numbers are those of the recipes' table.
"""
import sys
from pathlib import Path
from typing import Any, List

import timm

import timm_assemble  # noqa: F401  registers the models
from benchmarks.harness.networks import multiply_adds
from docs.generated_block import markdown_table, rewrite_block
from timm_assemble.models.family import registered_models
from timm_assemble.recipes.paper import MOBILENETS, TECHNIQUES, Row, rows_of, span

__all__ = ['PAGE', 'page', 'table']

PAGE = Path(__file__).with_name('models.md')
BEGIN, END = '<!-- variants:begin -->', '<!-- variants:end -->'
FOR_TESTS = 'test_assemble_resnet'
TITLES = (
    'model', 'paper row', 'techniques', 'params (M)', 'GMACs', 'test size', 'top-1 (%)', 'mCE', 'images/s')
NUMBERS = ('params (M)', 'GMACs', 'test size', 'top-1 (%)', 'mCE', 'images/s')


def _names(rows: List[Row]) -> str:
    """Return the names of rows, as a range where they are consecutive."""
    names = [row.name for row in rows]
    consecutive = int(names[-1][1:]) - int(names[0][1:]) < len(names) if names else True
    return span(names) if consecutive else ', '.join(names)


def _row(name: str) -> List[str]:
    model: Any = timm.create_model(name, device='meta').eval()
    size = (model.pretrained_cfg.get('test_input_size') or model.pretrained_cfg['input_size'])[-1]
    rows = rows_of(name)
    cells = [
        f'`{name}`', _names(rows), {**TECHNIQUES, **MOBILENETS}[name],
        f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}', f'{multiply_adds(model, size) / 1e9:.2f}', str(size),
        span([f'{row.top1:.2f}' for row in rows]), span([f'{row.mce:.2f}' for row in rows]),
        span([str(row.images_per_s) for row in rows if row.images_per_s])]
    return [cell or '-' for cell in cells]


def table() -> str:
    """Return one row per registered model, in the paper's order.

    Raises:
        ValueError: The paper's table and the registry have different models.
    """
    registered, listed = set(registered_models()) - {FOR_TESTS}, [*TECHNIQUES, *MOBILENETS]
    if registered != set(listed):
        raise ValueError(f'TECHNIQUES, MOBILENETS and the registry differ in {sorted(registered ^ set(listed))}')
    return markdown_table(TITLES, [_row(name) for name in listed], NUMBERS)


def page() -> str:
    """Return docs/models.md with the table of the models."""
    return rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, table())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
    sys.stdout.write(table() + '\n')
