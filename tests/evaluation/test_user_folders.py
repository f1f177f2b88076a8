"""Folders, names and sizes as users have them, through both commands."""
import json
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from timm_assemble.__main__ import main
from timm_assemble.retrieval import evaluate as retrieve
from timm_assemble.robustness import evaluate
from timm_assemble.robustness.evaluation import load_classifier
from timm_assemble.robustness.plan import RobustnessOptions, make_plan

from ..robustness._samples import error_of, red_over_half, write_image

NAMES = ('a', 'b')


def mean_colours(images):
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def save(folder, label_names=None, **args):
    torch.manual_seed(0)
    model = timm.create_model('test_assemble_resnet', **args)
    save_for_hf(model, str(folder), model_args=args, safe_serialization=True,
                model_config=dict(label_names=label_names) if label_names else None)
    return f'local-dir:{folder}'


@pytest.fixture
def odd_files(tmp_path):
    """Two classes: red images and others, and what is named like an image but is none."""
    root = tmp_path / 'images'
    for i in range(6):
        write_image(root / NAMES[i % 2] / f'{i}.png', Image.new('RGB', (40, 40), (240 * (i % 2), i, 0)))
    write_image(root / 'a' / 'deep.png', Image.fromarray(np.full((40, 40), 20000, np.uint16)))
    write_image(root / 'b' / 'cmyk.jpg', Image.new('CMYK', (40, 40), (0, 255, 255, 0)))
    write_image(root / 'a' / 'more' / 'webp.WEBP', Image.new('RGB', (40, 40)))
    os.rename(root / 'a' / 'more' / 'webp.WEBP', root / 'a' / 'webp.WEBP')
    (root / 'a' / 'more').rmdir()
    (root / 'a' / 'link.png').symlink_to('nowhere.png')
    (root / 'b' / 'pointer.jpg').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n')
    (root / 'b' / 'folder.png').mkdir()
    with open(os.fsencode(root / 'a') + b'/caf\xe9.png', 'wb') as file:
        file.write((root / 'a' / '0.png').read_bytes())
    return root


UNREADABLE = {'link.png': 'it is a link to nowhere.png, which does not exist', 'folder.png': 'it is a folder',
              'pointer.jpg': 'it is a pointer of Git LFS, without the image', r'caf\xe9.png': 'its name is not UTF-8'}


def test_odd_files_are_read_or_named_alike_by_both_evaluations(odd_files):
    robustness = evaluate({'red': red_over_half}, clean=odd_files, input_size=32)
    retrieval = retrieve(mean_colours, odd_files, input_size=32)
    for results in (robustness, retrieval):
        named = {file.path.rpartition('/')[2]: file.reason for file in results.unreadable}
        assert named == UNREADABLE and all(file.tasks == 1 for file in results.unreadable)
    assert robustness.to_dict()['models'][0]['clean']['images'] == 9 == retrieval.to_dict()['models'][0]['gallery']
    assert robustness.summary['red']['top1'] == 100  # 20000 of 65535 is dark, CMYK's red is red


@pytest.mark.filterwarnings('default')
def test_odd_files_end_no_command(odd_files, tmp_path, capsys):
    source = save(tmp_path / 'model', num_classes=2)
    for command in (['robustness', source, '--clean', odd_files], ['retrieval', source, '--data-dir', odd_files]):
        line = error_of(capsys, *command, '--output', tmp_path / command[0], '--workers', 0, '--input-size', 32,
                        printed=True)
        assert '4 of the files cannot be read, and are left out' in line and r'caf\xe9.png (its name is not' in line
        assert len(json.loads((tmp_path / command[0] / 'results.json').read_text())['unreadable']) == 4


def plan_of(root, *names):
    for name in names:
        write_image(root / name / '0.png', Image.new('RGB', (256, 256)))
    return make_plan(RobustnessOptions(clean=root, input_size=32))


def classes_of(source, plan):
    classifier = load_classifier('m', source, plan, torch.device('cpu'))
    targets = plan.tasks[0].label_map(classifier).targets
    return dict(zip(plan.tasks[0].classes, (t[0] for t in targets))), classifier


def test_names_decide_wherever_a_model_has_them(tmp_path):
    source = save(tmp_path / 'model', ['d', 'c', 'b', 'a'], num_classes=4)
    found, classifier = classes_of(source, plan_of(tmp_path / 'all', *'abcd'))
    assert found == dict(a=3, b=2, c=1, d=0) and classifier.details['classes_by'] == "the model's label_names"
    assert classes_of(source, plan_of(tmp_path / 'some', *'bcd'))[0] == dict(b=2, c=1, d=0)
    with pytest.raises(ValueError, match=r'clean for m must have folders named by .*, d, c, b, a; got b, c, d, e in '
                                         r'.*, of which e is no class'):
        classes_of(source, plan_of(tmp_path / 'others', *'bcde'))


def test_without_names_the_order_of_the_folders_decides_and_the_results_say_so(tmp_path):
    root = plan_of(tmp_path / 'all', *'ab').tasks[0].folder
    results = evaluate({'red': red_over_half}, clean=root, input_size=32)
    assert 'red: classes are by the order of the folders, because nothing names the classes' in results.tables()
    assert results.to_dict()['models'][0]['classes_by'].startswith('the order of the folders')


def test_inputs_are_height_times_width(tmp_path):
    for i in range(4):
        write_image(tmp_path / 'images' / NAMES[i % 2] / f'{i}.png', Image.new('RGB', (256, 256), (60 * i, 0, 0)))
    args = dict(num_classes=2)
    torch.manual_seed(0)
    model = timm.create_model('test_assemble_resnet', pretrained_cfg_overlay=dict(
        input_size=(3, 64, 96), test_input_size=None), **args)
    save_for_hf(model, str(tmp_path / 'model'), model_args=args, safe_serialization=True)
    source, shapes = f'local-dir:{tmp_path / "model"}', []

    def seen(images):
        shapes.append(tuple(images.shape[1:]))
        return mean_colours(images)
    retrieved = retrieve({'own': source}, tmp_path / 'images')
    assert retrieved.to_dict()['models'][0]['input_size'] == [64, 96] and '64 x 96' in retrieved.tables()
    retrieve({'seen': seen}, tmp_path / 'images', input_size=(64, 96))
    assert {*shapes} == {(3, 64, 96)}
    measured = evaluate({'own': source}, clean=tmp_path / 'images')
    assert 'own is made for images of 64 x 96, and was measured at 224 x 224' in measured.values.notes
    measured = evaluate({'own': source}, clean=tmp_path / 'images', input_size=(64, 96))
    assert measured.to_dict()['protocol']['input_size'] == [64, 96]
    assert not any('made for images' in note for note in measured.values.notes)


def test_functions_that_write_into_their_images_leave_the_others_theirs(tmp_path):
    root = plan_of(tmp_path / 'all', *'ab').tasks[0].folder
    seen = []

    def writes(images):
        images[:] = 7
        return images[:, :2, 0, 0].float()

    def reads(images):
        seen.append(images.unique().tolist())
        return images[:, :2, 0, 0].float()
    evaluate(dict(one=writes, two=writes, three=reads), clean=root, input_size=32)
    assert seen == [[0], [0]]
    seen.clear()
    shutil.copy(root / 'a' / '0.png', root / 'a' / '1.png')
    retrieve(dict(one=writes, two=reads), root, input_size=32)
    assert len(seen) == 2 and all(value == [0] for value in seen)


def test_command_takes_height_and_width(tmp_path, capsys):
    source, root = save(tmp_path / 'model', num_classes=2), plan_of(tmp_path / 'all', *'ab').tasks[0].folder
    assert main(['robustness', source, '--clean', str(root), '--input-size', '32', '64', '--workers', '0', '--output',
                 str(tmp_path / 'o')]) == 0
    assert 'then resized to 32 x 64' in capsys.readouterr().out
