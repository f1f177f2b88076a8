"""One page per benchmark, and the headlines of benchmarks/README.md."""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from docs.generated_block import markdown_table, rewrite_block

from ..harness.measure import RESULTS, ROOT, read_results
from ..harness.table import quartiles, table

__all__ = ['HEADLINES', 'PAGES', 'README', 'RESULTS', 'headlines', 'page', 'provenance', 'tables']

PAGES, README = ROOT / 'benchmarks' / 'pages', ROOT / 'benchmarks' / 'README.md'
BEGIN, END = '<!-- results:begin -->', '<!-- results:end -->'
HEADLINES_BEGIN, HEADLINES_END = '<!-- headlines:begin -->', '<!-- headlines:end -->'
TOP1 = 'top-1 on crops (%)'


class Headline(NamedTuple):
    """One row of the table of headlines.

    Attributes:
        group: Beginning of the group's name.
        case: The case.
        text: What is compared.
        detail: Column quoted with its unit, instead of the case's ratio to its reference.
    """

    group: str
    case: str
    text: str
    detail: str = ''


# By results file. Losses stand beside wins: an entry is chosen by its question, not by its answer.
HEADLINES: Dict[str, List[Headline]] = {
    'throughput': [
        Headline('Inference, eager, float32', 'assemble_resnet50', '`assemble_resnet50` against `resnet50`'),
        Headline('Inference, optimized, bfloat16', 'assemble_resnet50', 'the same, optimized, bfloat16'),
        Headline('Inference, eager, float32, batch size 4, assemble_resnet152', 'assemble_resnet152',
                 '`assemble_resnet152` against `tf_efficientnet_b6`'),
        Headline('Inference, optimized, bfloat16, batch size 4, assemble_resnet152', 'assemble_resnet152',
                 'the same, optimized, bfloat16'),
        Headline('Training, eager, float32', 'assemble_resnet50', '`assemble_resnet50` against `resnet50`, training'),
    ],
    'throughput_cuda': [
        Headline('Inference, eager, float32', 'assemble_resnet50',
                 '`assemble_resnet50` against `resnet50`, NVIDIA H200'),
        Headline('Inference, eager, float32, batch size 128, assemble_resnet152', 'assemble_resnet152',
                 '`assemble_resnet152` against `tf_efficientnet_b6`'),
    ],
    'inference': [
        Headline('Batch size 1', 'assemble_resnet50', '`assemble_resnet50` against `resnet50`, batch size 1'),
    ],
    'layers': [
        Headline('Selective kernel, (8, 256', 'SelectiveKernelC3', '`SelectiveKernelC3` against its convolution'),
        Headline('DropBlock, (32, 1024', 'DropBlock2d', '`DropBlock2d` against the product with its mask'),
        Headline("Others' DropBlock, (32, 1024", "timm's drop_block_2d", "timm's `drop_block_2d`, one mask per image"),
    ],
    'training_step': [
        Headline('float32, eager', 'assemble_resnet50', '`assemble_resnet50` against `resnet50d`, per GMAC'),
        Headline('bfloat16 autocast, eager', 'assemble_resnet50', 'the same, bfloat16 autocast'),
        Headline('float32, eager', 'assemble_resnet50, gradient checkpointing', 'gradient checkpointing against none'),
    ],
    'deployment': [
        Headline('assemble_resnet50 at 256', 'optimized, float32', 'optimized against eager, float32'),
        Headline('assemble_resnet50 at 256', 'optimized, bfloat16', 'optimized, bfloat16 against eager, float32'),
        Headline('assemble_resnet50 at 256, batch size 4, threads 1', 'optimized, int8', 'optimized, int8'),
        Headline('First output', 'optimized', 'first output of the optimized model, new process'),
    ],
    'merges': [
        Headline("ResNet-D's 2x2 average", 'merged', "ResNet-D's average and 1x1 merged, float32"),
    ],
    'kd_step': [
        Headline('', 'stored logits', 'stored logits against no distillation'),
        Headline('', "timm's, tf_efficientnet_b4 run in each step", 'teacher `tf_efficientnet_b4` in each step'),
    ],
    'kd_accuracy': [
        Headline('Accuracy', 'no distillation', 'few labels, no distillation', TOP1),
        Headline('Accuracy', 'stored logits', 'stored logits', TOP1),
        Headline('Accuracy', '10 stored views', 'stored views, a quarter of the epochs', TOP1),
        Headline('Accuracy', 'teacher in each step, on mixed images', 'teacher in each step', TOP1),
        Headline('Time of an epoch: assemble', '10 stored views', 'epoch of `assemble_resnet50`, views against none'),
    ],
    'top_k': [
        Headline('A confident', 'all', 'all logits of ImageNet-1k on disk', 'MB for ImageNet-1k'),
        Headline('A confident', 'top 10', 'the 10 largest', 'MB for ImageNet-1k'),
        Headline('A confident', 'top 10', 'student loss with the 10 largest minus exact', 'minus that of exact rows'),
    ],
    'robustness': [
        Headline('One JPEG of 224, resnet18', 'timm_assemble.robustness', "`resnet18` against timm's validate.py"),
        Headline('One image of 256', 'mean of the 19', 'corrupting an image against classifying it'),
    ],
    'convert': [
        Headline('', 'convert', 'peak memory above the imports', 'above imports, in weights'),
        Headline('', 'convert', 'processor time against the imports alone'),
    ],
}
UNITS = {TOP1: '{:.1f} % top-1', 'above imports, in weights': '{:.2f}x the size of the weights',
         'MB for ImageNet-1k': '{:.0f} MB', 'minus that of exact rows': '{}'}


def provenance(results: Dict[str, Any], packages: Sequence[str] = ('torch', 'timm')) -> str:
    """Return command, date, commit, versions and machine, in one sentence."""
    env = results['environment']
    state = ', with uncommitted changes' if env['dirty'] else ''
    return (
        f'`{results["command"]}` on {env["date"][:10]}, commit {(env["commit"] or "unknown")[:12]}{state}; '
        f'{", ".join(f"{package} {env[package]}" for package in packages)}; '
        f'{env["cpu"]}, device {env["device"]}, threads {env["threads"]}, {env["clock"]}.')


def tables(path: Path) -> str:
    """Return the question, provenance and tables of a results file as Markdown."""
    results = read_results(path)
    source = provenance(results, ('timm_assemble', 'timm', 'torch', 'python'))
    return '\n\n'.join([f'**{results["question"]}**', source, table(results['rows'])])


def page(path: Path) -> str:
    """Return the page of a results file, with its tables between the markers.

    Text outside the markers is written by hand and stays; a new page gets a title.
    """
    target = PAGES / f'{path.stem}.md'
    text = target.read_text() if target.exists() else f'# {path.stem}\n\n{BEGIN}\n{END}\n'
    return rewrite_block(text, BEGIN, END, tables(path))


def _result(row: Dict[str, Any], headline: Headline) -> str:
    if headline.detail:
        return UNITS[headline.detail].format(row['details'][headline.detail])
    c = row['comparison']
    return quartiles(c, 2, 'x the images/s' if c['of'] == 'speed' else 'x the time')


def headlines(folder: Path = RESULTS) -> str:
    """Return the table of :data:`HEADLINES` as Markdown.

    Raises:
        ValueError: A headline's row is not in the results.
    """
    lines = []
    for name, chosen in HEADLINES.items():
        rows = read_results(folder / f'{name}.json')['rows']
        for i, headline in enumerate(chosen):
            found = [r for r in rows if r['group'].startswith(headline.group) and r['name'] == headline.case]
            if not found:
                raise ValueError(f'{name}.json has no {headline.case!r} in a group {headline.group!r}')
            lines.append(['' if i else f'[{name}](pages/{name}.md)', headline.text, _result(found[0], headline)])
    return markdown_table(['benchmark', 'measured', 'result'], lines)
