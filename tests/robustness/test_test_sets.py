"""Small trees of published test sets, with missing classes, unreadable files and odd modes."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import RealLabelsImagenet

from timm_assemble.robustness import evaluate
from timm_assemble.data.classes import ClassMap
from timm_assemble.data.images import read_image
from timm_assemble.robustness.plan import RobustnessOptions, make_plan
from timm_assemble.robustness.protocols import PROTOCOLS
from timm_assemble.robustness.test_sets import MAPPINGS, known_test_set, synsets

from .. import _oracles as oracles
from ._samples import write_image

IMAGENET = synsets()
NUMBER = {name: i for i, name in enumerate(IMAGENET)}
A, R = synsets('a'), synsets('r')


def says(classes):
    """Return a callable of 1000 classes (or more): red pixels name the class, green ones a second one it likes better.

    Blue ones scale the logits.
    """
    def classify(images):
        red, green, blue = (images[:, c].float().mean((1, 2)).round().long() for c in range(3))
        logits = torch.zeros(len(images), classes)
        for row, first, second, scale in zip(logits, red, green, blue):
            row[first + classes - 1000] = 3.0 * (1 + scale / 100)
            if second:
                row[second + classes - 1000] = 4.0 * (1 + scale / 100)
        return logits
    return classify


def coloured(path, red, green=0, blue=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64, 64), (red, green, blue)).save(path, 'PNG')  # whatever its name: JPEG changes colours
    return path


def first_of(names, count):
    """Return the first synsets whose class fits into a pixel."""
    return [name for name in names if 0 < NUMBER[name] < 256][:count]


def measured(models=None, **options):
    results = evaluate(models or dict(m=says(1000)), input_size=32, **options).to_dict()
    return results, results['models'][0]


@pytest.mark.parametrize('name, classes', [('imagenet-a', A), ('imagenet-r', R)])
def test_variants_of_200_classes_are_measured_among_these(tmp_path, name, classes):
    assert len(classes) == 200 == len({*classes}) and {*classes} <= {*IMAGENET}
    outside = next(i for i in range(1, 256) if IMAGENET[i] not in classes)
    one, two, three = first_of(classes, 3)
    root, clean = tmp_path / name, tmp_path / 'clean'
    for folder in (root, clean):
        coloured(folder / one / '0.jpg', NUMBER[one], outside)  # right only without the class outside
        coloured(folder / two / '0.png', NUMBER[one])
    coloured(clean / two / '1.png', NUMBER[two])
    coloured(clean / IMAGENET[outside] / '0.png', outside)  # of no class of the variant
    (root / three).mkdir()
    results, report = measured(test_sets={name: root}, clean=clean)
    entry = report['test_sets'][name]
    assert (entry['images'], entry['top1_error'], entry['predicted_among']) == (2, 50, f'200 classes of {name}')
    assert entry['reference'] == f'{name}-clean' and report['test_sets'][f'{name}-clean']['images'] == 3
    assert entry['top1_diff'] == pytest.approx(50 - 200 / 3) and report['clean']['top1_error'] == 50
    assert any(f'{name}: 197 of 200 classes have no folder: ' in note for note in results['notes'])
    assert any(f'1 of 3 class folders have no images: {three}' in note for note in results['notes'])
    assert 'm predicts among all of its 1000 classes on 3 of them' in results['notes']
    (root / IMAGENET[outside]).mkdir()
    with pytest.raises(ValueError, match=f'{name} must have folders of its 200 classes, .* {IMAGENET[outside]}'):
        measured(test_sets={name: root})


def test_sketch_and_v2_have_all_classes_and_numbers(tmp_path):
    for number in (3, 20, 100):
        coloured(tmp_path / 'v2' / str(number) / '0.jpeg', number)
        coloured(tmp_path / 'sketch' / IMAGENET[number] / '0.JPEG', number)
    sets = {'imagenetv2-matched-frequency': tmp_path / 'v2', 'imagenet-sketch': tmp_path / 'sketch'}
    for classes in (1000, 1001):  # official checkpoints have a background class
        results, report = measured(dict(m=says(classes)), test_sets=sets)
        for name in sets:
            assert report['test_sets'][name]['top1_error'] == 0
            assert report['test_sets'][name]['predicted_among'] == f'all {classes} classes'
            assert any(f'{name}: 997 of 1000 classes have no folder: ' in note for note in results['notes'])
            assert report['test_sets'][name]['reference'] is None and report['test_sets'][name]['top1_diff'] is None
    with pytest.raises(ValueError, match=r"test_sets imagenetv2.* must be a model of ImageNet's 1000 classes, got 3"):
        measured(dict(m=lambda images: torch.zeros(len(images), 3)), test_sets=sets)


def write_mappings(root):
    """Write ObjectNet's four files, whose order of classes is not ImageNet's."""
    names = {i: f'name {i}, also {i}' for i in range(1000)}
    number_of_class = {i: (i + 7) % 1000 for i in range(1000)}
    lines = {number: names[i] for i, number in number_of_class.items()}
    texts = [json.dumps({'chair': 'Chair', 'mug': 'Mug', 'toy': 'Toy'}),
             json.dumps({'Chair': f'{names[20]}; {names[90]}', 'Mug': names[5]}), json.dumps(number_of_class),
             '\n'.join(lines[i] for i in range(1000)) + '\n']
    (root / 'mappings').mkdir(parents=True)
    for name, text in zip(MAPPINGS, texts):
        (root / 'mappings' / name).write_text(text)


def test_objectnet_is_measured_on_the_classes_of_its_mappings_without_the_border(tmp_path):
    write_mappings(tmp_path)
    for folder, name, colour in (('chair', 'a', 90), ('chair', 'b', 20), ('mug', 'c', 20), ('toy', 'd', 1)):
        image = Image.new('RGB', (68, 68), (255, 0, 0))
        image.paste(Image.new('RGB', (64, 64), (colour, 0, 0)), (2, 2))
        write_image(tmp_path / 'images' / folder / f'{name}.png', image)
    _, report = measured(test_sets=dict(objectnet=tmp_path))
    entry = report['test_sets']['objectnet']
    assert entry['images'] == 3 and entry['top1_error'] == pytest.approx(100 / 3)  # both chairs are right
    (tmp_path / 'mappings' / MAPPINGS[1]).write_text('{"Chair": "unknown"}')
    with pytest.raises(ValueError, match=r'test_sets objectnet must be a folder with images/ and .* KeyError'):
        measured(test_sets=dict(objectnet=tmp_path))


@pytest.mark.parametrize('name', ['imagenet-c-bar', 'imagenet-3dcc'])
def test_other_trees_of_corruptions_have_their_own_names(tmp_path, name):
    corruptions = PROTOCOLS[name].corruptions
    content = write_image(tmp_path / 'x.JPEG', Image.new('RGB', (224, 224), (20, 0, 0))).read_bytes()
    for corruption in corruptions:
        for severity in '12345':
            path = tmp_path / name / corruption / severity / IMAGENET[20] / 'ILSVRC2012_val_00000293.JPEG'
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    _, report = measured(dict(m=says(1000), n=says(1000)), imagenet_c=tmp_path / name, protocol=name)
    assert [*report['corruptions']] == [*corruptions] and report['means']['top1_error'] == 0 and report['mce'] is None
    assert len(corruptions) == dict([('imagenet-c-bar', 10), ('imagenet-3dcc', 12)])[name]
    with pytest.raises(ValueError, match='imagenet_c must have 15 corruptions'):
        measured(imagenet_c=tmp_path / name)
    with pytest.raises(ValueError, match=f'protocol {name} needs `imagenet_c`'):
        measured(clean=tmp_path / name / corruptions[0] / '1', protocol=name)


def test_imagenet_o_is_told_from_the_clean_images_of_its_classes(tmp_path):
    one, two, three = first_of(IMAGENET, 3)
    outside = NUMBER[three]
    inside = [coloured(tmp_path / 'clean' / name / f'{i}.png', NUMBER[one], 0, i * 40)
              for i, name in enumerate((one, two, one))]
    coloured(tmp_path / 'clean' / three / '9.png', outside, 0, 250)  # not of ImageNet-O's classes
    others = [coloured(tmp_path / 'o' / two / f'{i}.png', NUMBER[two], outside, 20 + i * 40)
              for i in range(2)]
    (tmp_path / 'o' / one).mkdir()  # the classes of the folders are the mask, with images or without
    coloured(tmp_path / 'textures' / 'any' / '0.png', outside, 0, 50)
    sets = {'imagenet-o': tmp_path / 'o', 'textures': tmp_path / 'textures'}
    _, report = measured(ood=sets, clean=tmp_path / 'clean')
    scores = {}
    for files, target in ((inside, NUMBER[one]), (others, NUMBER[two])):
        for path in files:
            scale = np.asarray(Image.open(path))[0, 0, 2] / 100
            logits = [3.0 * (1 + scale) if c == target else 0.0 for c in (NUMBER[one], NUMBER[two])]
            scores[path] = dict(msp=max(np.exp(logits)) / sum(np.exp(logits)), energy=np.log(sum(np.exp(logits))))
    entry = report['ood']['imagenet-o']
    for score in ('msp', 'energy'):
        expected = oracles.detection(*([scores[path][score] for path in files] for files in (inside, others)))
        assert tuple(entry[score].values()) == pytest.approx(expected)
    assert entry['predicted_among'] == '2 classes of imagenet-o' and entry['images'] == 2
    assert report['ood']['textures']['predicted_among'] == 'all 1000 classes'
    with pytest.raises(ValueError, match='ood needs `clean` or `generate`'):
        measured(ood=dict(textures=tmp_path / 'textures'), test_sets=dict(mine=tmp_path / 'textures'))


def test_files_of_odd_modes_are_read_and_the_others_named(tmp_path):
    folder = tmp_path / 'set' / IMAGENET[20]
    level = 20
    for name, image in (
            ('rgb.png', Image.new('RGB', (40, 40), (level, 0, 0))),
            ('tiff.tif', Image.new('RGB', (40, 40), (level, 0, 0))),
            ('palette.png', Image.new('RGB', (40, 40), (level, 0, 0)).quantize(4)),
            ('alpha.png', Image.new('RGBA', (40, 40), (level, 0, 0, 90))),
            ('cmyk.jpg', Image.new('CMYK', (40, 40), (255 - level, 255, 255, 0))),
            ('tiny.png', Image.new('RGB', (1, 1), (level, 0, 0)))):
        write_image(folder / name, image)
        pixels = np.asarray(read_image(folder / name))
        assert np.abs(pixels.reshape(-1, 3).astype(int) - (level, 0, 0)).max() <= 3, name
    deep = np.linspace(0, 65535, 1600).reshape(40, 40).astype(np.uint16)
    write_image(folder / 'deep.png', Image.fromarray(deep))
    np.testing.assert_array_equal(np.asarray(read_image(folder / 'deep.png'))[..., 1], np.round(deep / 257))
    write_image(folder / 'float.tif', Image.new('F', (40, 40)))
    content = (folder / 'rgb.png').read_bytes()
    (folder / 'truncated.png').write_bytes(content[:60])
    (folder / 'notes.gif').write_bytes(b'GIF')
    transparent = Image.new('P', (40, 40))
    transparent.info['transparency'] = bytes([0] * 4)
    transparent.save(folder / 'transparent.png')
    read_image(folder / 'transparent.png')  # without Pillow's warning
    results, report = measured(test_sets=dict(mine=tmp_path / 'set'))
    assert {path['path'].rpartition('/')[2]: path['tasks'] for path in results['unreadable']} == {
        'float.tif': 1, 'truncated.png': 1}
    assert report['test_sets']['mine']['images'] == 8
    assert any('1 files are not read' in note and f'{IMAGENET[20]}/notes.gif' in note for note in results['notes'])


def test_mce_against_alexnet_needs_images_in_all_thousand_folders(tmp_path):
    for name in IMAGENET:
        (tmp_path / name).mkdir()
    for name in IMAGENET[:60]:
        (tmp_path / name / '0.png').write_bytes(b'')
    plan = make_plan(RobustnessOptions(clean=tmp_path))
    assert len(plan.classes) == 60 and len(plan.tasks[0].classes) == 1000
    assert f'{tmp_path}: 940 of 1000 class folders have no images: ' in plan.notes[0]
    for name in IMAGENET[60:]:
        (tmp_path / name / '0.png').write_bytes(b'')
    assert {*make_plan(RobustnessOptions(clean=tmp_path)).classes} == {*IMAGENET}


def test_masks_of_models_with_a_background_class():
    space = known_test_set('imagenet-a', Path()).space
    got = space.label_map(ClassMap.of_count(1001), (A[0],), 'm')
    assert got.targets == ((NUMBER[A[0]] + 1,),) and got.mask == tuple(NUMBER[name] + 1 for name in A)


def test_real_labels_decide_for_each_image_as_in_timm(tmp_path):
    """A model says one class; two labels, none, another class than the folder's."""
    labels, names = [[] for _ in range(50000)], [f'ILSVRC2012_val_{i + 1:08d}.JPEG' for i in range(4)]
    for i, (said, right) in enumerate(((20, [20, 90]), (90, [20, 90]), (20, [5]), (20, []))):
        coloured(tmp_path / 'val' / IMAGENET[20] / names[i], said)
        labels[i] = right
    (tmp_path / 'real.json').write_text(json.dumps(labels))
    options = dict(clean=tmp_path / 'val', test_sets={'imagenet-real': tmp_path / 'real.json'})
    results, report = measured(keep_predictions=True, **options)
    entry, reader = report['test_sets']['imagenet-real'], RealLabelsImagenet(
        [names[i // 2] if i < 8 else '' for i in range(50000)], tmp_path / 'real.json')
    reader.filenames = names
    reader.add_result(says(1000)(torch.tensor([20, 90, 20, 20], dtype=torch.uint8)[:, None, None, None] * torch.tensor(
        [1, 0, 0], dtype=torch.uint8)[None, :, None, None]))
    assert entry['images'] == 3 and 100 - entry['top1_error'] == pytest.approx(reader.get_accuracy(1))
    assert entry['reference'] == 'clean' and entry['top1_diff'] == pytest.approx(200 / 3 - 75)
    probabilities = np.exp([3.0] + [0.0] * 999) / (np.exp(3) + 999)
    nll = [-np.log(probabilities[0] + probabilities[1])] * 2 + [-np.log(probabilities[1])]
    assert entry['nll'] == pytest.approx(np.mean(nll), rel=1e-4)
    assert [*report['statistics']['per_class']] == ['clean'] and 'imagenet-real' in report['statistics']['reliability']
    labels[2] = [20]
    (tmp_path / 'real.json').write_text(json.dumps(labels))
    again, report = measured(**options)
    assert report['test_sets']['imagenet-real']['top1_error'] == 0 and again['measurement'] != results['measurement']
    with pytest.raises(ValueError, match='test_sets imagenet-real needs `clean`'):
        measured(test_sets=options['test_sets'])
    (tmp_path / 'real.json').write_text('[[1]]')
    with pytest.raises(ValueError, match='test_sets imagenet-real must be a JSON file of 50,000 lists'):
        measured(**options)
    for wrong, message in (([-1], 'a label is not from 0 to 999'), ([True], 'a label is not from 0 to 999'),
                           ([], 'must have labels of images of `clean`')):
        (tmp_path / 'real.json').write_text(json.dumps([wrong] * 50000))
        with pytest.raises(ValueError, match=message):
            measured(**options)
    labels[0] *= 2  # counts once
    (tmp_path / 'real.json').write_text(json.dumps(labels))
    assert measured(**options)[1]['test_sets']['imagenet-real']['nll'] == report['test_sets']['imagenet-real']['nll']
    coloured(tmp_path / 'val' / IMAGENET[20] / 'x.png', 20)
    (tmp_path / 'real.json').write_text(json.dumps(labels))
    with pytest.raises(ValueError, match=r"clean must have ImageNet's validation images .*'x.png'"):
        measured(**options)
