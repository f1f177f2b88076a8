"""Write all pages and plots from results/*.json. ``python -m benchmarks.reports``"""
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from docs.generated_block import markdown_table, rewrite_block

from ..harness.measure import RESULTS, ROOT, read_results
from ..harness.table import provenance, quartiles, table
from . import plots, speed

__all__ = ['HEADLINES', 'PAGES', 'headlines', 'pages']

PAGES, README, FRONT_PAGE = ROOT / 'benchmarks' / 'pages', ROOT / 'benchmarks' / 'README.md', ROOT / 'README.md'


class Headline(NamedTuple):
    """One row of the table of headlines.

    Attributes:
        group: Beginning of the group's name.
        case: The case.
        text: What is compared.
        detail: Column quoted by ``unit``, instead of the case's ratio to its reference.
    """

    group: str
    case: str
    text: str
    detail: str = ''
    unit: str = ''


_TOP1 = 'top-1 on crops (%)', '{:.1f} % top-1'
_PAIR = '`assemble_resnet152` against `tf_efficientnet_b6`'
# By results file. Losses stand beside wins: an entry is chosen by its question, not by its answer.
HEADLINES: Dict[str, List[Headline]] = {
    'throughput': [
        Headline('Inference, eager, float32', 'assemble_resnet50', '`assemble_resnet50` against `resnet50`'),
        Headline('Inference, optimized, bfloat16', 'assemble_resnet50', 'the same, optimized, bfloat16'),
        Headline('Inference, eager, float32, batch size 4, assemble_resnet152', 'assemble_resnet152', _PAIR),
        Headline('Inference, optimized, bfloat16, batch size 4, assemble_resnet152', 'assemble_resnet152',
                 'the same, optimized, bfloat16'),
        Headline('Training, eager, float32', 'assemble_resnet50', '`assemble_resnet50` against `resnet50`, training')],
    'throughput_cuda': [
        Headline('Inference, eager, float32', 'assemble_resnet50',
                 '`assemble_resnet50` against `resnet50`, NVIDIA H200'),
        Headline('Inference, eager, float32, batch size 128, assemble_resnet152', 'assemble_resnet152', _PAIR)],
    'inference': [
        Headline('Inference, eager, float32, batch size 1', 'assemble_resnet50',
                 '`assemble_resnet50` against `resnet50`, batch size 1')],
    'layers': [
        Headline('Selective kernel, (8, 256', 'SelectiveKernelC3', '`SelectiveKernelC3` against its convolution'),
        Headline('DropBlock, (32, 1024', 'DropBlock2d', '`DropBlock2d` against the product with its mask'),
        Headline("Others' DropBlock, (32, 1024", "timm's drop_block_2d", "timm's `drop_block_2d`, one mask per image")],
    'training_step': [
        Headline('float32, eager', 'assemble_resnet50', '`assemble_resnet50` against `resnet50d`, per GMAC'),
        Headline('bfloat16 autocast, eager', 'assemble_resnet50', 'the same, bfloat16 autocast'),
        Headline('float32, eager', 'assemble_resnet50, gradient checkpointing', 'gradient checkpointing against none')],
    'deployment': [
        Headline('assemble_resnet50 at 256, batch size 4, threads 1', 'ours, float32, inductor',
                 'assemble_resnet50, float32 with Winograd, against eager'),
        Headline('assemble_resnet50 at 256, batch size 4, threads 1', 'ours, bfloat16, openvino', 'the same, bfloat16'),
        Headline('assemble_resnet50 at 256, batch size 4, threads 1', 'ours, int8', 'the same, int8')],
    'kd_step': [
        Headline('', 'stored logits', 'stored logits against no distillation'),
        Headline('', "timm's, tf_efficientnet_b4 run in each step", 'teacher `tf_efficientnet_b4` in each step')],
    'kd_accuracy': [
        Headline('Accuracy', 'no distillation', 'few labels, no distillation', *_TOP1),
        Headline('Accuracy', 'stored logits', 'stored logits', *_TOP1),
        Headline('Accuracy', '10 stored views of mixed images', 'stored views of mixed images', *_TOP1),
        Headline('Accuracy', 'teacher in each step, on mixed images', 'teacher in each step', *_TOP1),
        Headline('Time of an epoch: assemble', '10 stored views of mixed images',
                 'epoch of `assemble_resnet50`, these views against none')],
    'robustness': [
        Headline('One JPEG of 224, resnet18', 'timm_assemble.robustness', "`resnet18` against timm's validate.py"),
        Headline('One image of 256', 'mean of the 19', 'corrupting an image against classifying it')],
    'convert': [
        Headline('', 'convert', 'peak memory above the imports', 'above imports, in weights',
                 '{:.2f}x the size of the weights'),
        Headline('', 'convert', 'processor time against the imports alone')],
    'official_pipeline': [
        Headline('AutoAugment', 'official, imagenet', "the official AutoAugment against timm's `original`"),
        Headline('Training', 'official, imagenet', 'the same with the crop, from a decoded image'),
        Headline('Evaluation', 'official', "the official evaluation against timm's transform")],
}


def headlines(results: Dict[str, Any]) -> str:
    """Return the table of :data:`HEADLINES`, from results by name."""
    lines = []
    for name, chosen in HEADLINES.items():
        for i, headline in enumerate(chosen):
            row = next(row for row in results[name]['rows']
                       if row['group'].startswith(headline.group) and row['name'] == headline.case)
            c, details = row['comparison'], row['details']
            lines.append(['' if i else f'[{name}](pages/{name}.md)', headline.text, (
                headline.unit.format(details[headline.detail]) if headline.detail else
                quartiles(c, 2, 'x the images/s' if c['of'] == 'speed' else 'x the time'))])
    return markdown_table(['benchmark', 'measured', 'result'], lines)


def pages() -> Dict[Path, str]:
    """Return the front page, benchmarks/README.md and the pages of all benchmarks, by their paths."""
    results = {path.stem: read_results(path) for path in sorted(RESULTS.glob('*.json'))}
    throughput = [results['throughput'], results['throughput_cuda']]
    blocks = {
        FRONT_PAGE: {'models': speed.models_table(*throughput)},
        README: {'headlines': headlines(results)},
        **{PAGES / f'{name}.md': {'results': '\n\n'.join([
            f'**{r["question"]}**', provenance(r), table(r['rows'])])} for name, r in results.items()}}
    for name in ('throughput', 'throughput_cuda'):
        blocks[PAGES / f'{name}.md']['overview'] = speed.overview(results[name])
    texts = {}
    for path, found in blocks.items():
        texts[path] = path.read_text('utf-8')
        for name, block in found.items():
            texts[path] = rewrite_block(texts[path], name, block)
    return texts


def main() -> int:
    """Write all pages and plots."""
    for path, text in pages().items():
        path.write_text(text, 'utf-8')
    for name, plot in (('throughput', plots.plot_throughput), ('kd_accuracy', plots.plot_kd_accuracy)):
        plot(read_results(RESULTS / f'{name}.json'), RESULTS / f'{name}.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
