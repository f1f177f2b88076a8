"""The library entry: callables, a query and a gallery, the choice of head, and published data sets."""
import csv
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests import _oracles
from timm_assemble.data.images import list_images, read_image
from timm_assemble.errors import UserError
from timm_assemble.layers import GeMPool2d
from timm_assemble.retrieval import evaluate
from timm_assemble.retrieval.embedders import HEADS, load_embedder
from timm_assemble.runtime.checksum import weights_sha256

from ..robustness._samples import write_image

CPU = torch.device('cpu')


def mean_colours(images):
    """Return 3 x 2 x 2 means as the embedding."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def embedded(folder):
    """Return paths, embeddings and class names of a folder, by a loop over its images."""
    files = list_images(folder)
    transform = timm.data.create_transform(16, interpolation='bilinear', crop_pct=1.0, use_prefetcher=True)
    pixels = torch.stack([torch.as_tensor(transform(read_image(folder / name))) for name, _ in files.files])
    return ([folder / name for name, _ in files.files], mean_colours(pixels).tolist(),
            [files.classes[label] for _, label in files.files])


def test_callable_gives_what_a_loop_over_the_images_gives(samples):
    results = evaluate(mean_colours, samples / 'images', input_size=16, crop_pct=1.0, recall_at=[1, 3])
    _, embeddings, labels = embedded(samples / 'images')
    assert results.summary['mean_colours'] == pytest.approx(_oracles.all_among_others(embeddings, labels, [1, 3]))
    assert not results.unreadable and str(results) == results.tables()


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """Return queries of x, y and new, and a gallery of y, x and other; their files have the same names and sizes.

    One query is a link to an image of the gallery.
    """
    root, rng = tmp_path_factory.mktemp('searched'), np.random.RandomState(0)
    for role, classes in (('query', ('x', 'y', 'new')), ('gallery', ('other', 'y', 'x'))):
        for number, name in enumerate(classes):
            (root / role / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.randint(0, 256, (20, 20, 3)) // 2 + 20 * (number if role == 'query' else 2 - number)
                write_image(root / role / name / f'{i}.bmp', Image.fromarray(pixels.astype(np.uint8)))
    (root / 'query' / 'y' / '9.bmp').symlink_to(root / 'gallery' / 'y' / '0.bmp')
    return root


def as_split(root, path, *more):
    """Write a CSV file of the images that has one distractor instead of the gallery's class ``other``."""
    rows = [(file.relative_to(root), file.parent.name, role)
            for role in ('query', 'gallery') for file in sorted((root / role).glob('*/*'))]
    with path.open('w', newline='', encoding='utf-8-sig') as file:
        writer = csv.writer(file)
        writer.writerows([('split', 'path', 'more', 'label'), *(
            ('distractor' if name == 'other' else role, image, '', '' if name == 'other' else name)
            for image, name, role in rows), *more])
    return path


def test_queries_in_a_gallery_give_what_a_loop_over_the_images_gives(searched, tmp_path):
    paths, embeddings, labels = embedded(searched / 'query')
    places, gallery, gallery_labels = embedded(searched / 'gallery')
    own = [places.index(path.resolve()) if path.is_symlink() else None for path in paths]
    assert sum(number is not None for number in own) == 1
    expected = _oracles.retrieval(embeddings, labels, gallery, gallery_labels, own, [1, 2, 11])
    options = dict(input_size=16, crop_pct=1.0, recall_at=[1, 2, 11])
    folders = evaluate(mean_colours, query=searched / 'query', gallery=searched / 'gallery', **options)
    assert folders.summary['mean_colours'] == pytest.approx(expected) and expected['recall@1'] < 100
    split = as_split(searched, searched / 'split.csv', ('train', 'missing.bmp', '', 'x'))
    in_root = evaluate(mean_colours, split=split, **options)
    elsewhere = evaluate(mean_colours, searched, split=shutil.copy(split, tmp_path), **options)
    for results, name in ((folders, 'gallery'), (in_root, 'split'), (elsewhere, 'split')):
        [report], values = results.to_dict()['models'], results.to_dict()
        assert [report[key] for key in ('queries', 'gallery', 'distractors')] == [9, 12, 4]
        assert report['metrics'] == folders.summary['mean_colours'] and values['protocol']['name'] == name
        low, high = report['intervals']['recall@1']
        assert low < report['metrics']['recall@1'] < high
        assert values['notes'] == ['4 of 13 queries have no other image of their class to find, and are left out; '
                                   'their classes are new']
        assert {key: data['items'] for key, data in values['data'].items()} == dict(query=13, gallery=12)
    assert '13 queries of 3 classes, searched among 12 images of 3 classes by cosine' in str(folders)
    assert '13 queries of 3 classes, searched among 12 images of 2 classes by cosine' in str(in_root)


def test_queries_with_the_names_and_sizes_of_the_gallerys_images_have_their_own_embeddings(searched, tmp_path):
    for folder in ('query/x', 'query/y', 'gallery/x', 'gallery/y'):
        shutil.copytree(searched / folder, tmp_path / folder, ignore=shutil.ignore_patterns('9.bmp'))
    (paths, *query), (_, *gallery) = embedded(tmp_path / 'query'), embedded(tmp_path / 'gallery')
    results = evaluate(
        mean_colours, query=tmp_path / 'query', gallery=tmp_path / 'gallery', input_size=16, crop_pct=1.0)
    data = results.to_dict()['data']
    assert data['query']['fingerprint'] == data['gallery']['fingerprint']
    assert results.summary['mean_colours'] == pytest.approx(
        _oracles.retrieval(*query, *gallery, [None] * len(paths), [1, 2, 4, 8]))


def test_queries_that_are_the_gallery_are_searched_among_all_others(searched):
    one = evaluate(mean_colours, searched / 'query', input_size=16)
    both = evaluate(mean_colours, query=searched / 'query', gallery=searched / 'query', input_size=16)
    assert one.summary == both.summary and one.values.measurement == both.values.measurement


def test_unreadable_query_leaves_out_no_image_of_the_gallery(searched, tmp_path):
    """It has the name and the number of one."""
    shutil.copytree(searched / 'query', tmp_path / 'query')
    (tmp_path / 'query' / 'x' / '0.bmp').write_bytes(b'?')
    results = evaluate(mean_colours, query=tmp_path / 'query', gallery=searched / 'gallery', input_size=16)
    [report] = results.to_dict()['models']
    assert (report['queries'], report['gallery']) == (8, 12) and len(results.unreadable) == 1


@pytest.mark.parametrize('arguments, message', [
    ({}, 'data_dir must be given, alone or with `dataset` or `split`, or `query` and `gallery` instead'),
    (dict(data_dir='d', query='q', gallery='g'), 'data_dir must be given, alone'),
    (dict(split='s', query='q', gallery='g'), 'data_dir must be given, alone'),
    (dict(data_dir='d', split='s', dataset='cub'), 'data_dir must be given, alone'),
    (dict(gallery='g'), 'data_dir must be given, .* or `query` and `gallery` instead'),
    (dict(query='gallery/other', gallery='g'), 'gallery must be a folder with one folder per class, got g'),
    (dict(query='new', gallery='gallery'), 'gallery must have two images of one class .*; got 12 of 12 images, of the '
                                           'classes other, x, y, and queries of new'),
    (dict(split='missing.csv'), "split 'missing.csv' cannot be used: No such file"),
    (dict(split='query/x/0.bmp'), 'split must be a CSV file in UTF-8, query/x/0.bmp is not'),
    (dict(split='a,b\n1,2'), "split must be a CSV file with the columns path, label and split, once each, got 'a,b'"),
    (dict(split='path,label,split\na,x,querry'), "split must be .* one of query, gallery, .* got 'a,x,querry'"),
    (dict(split='path,label,split\na,,gallery'), "split must be .* got 'a,,gallery'"),
    (dict(split='path,label,split\na,x,query\na,x,query'), "split must be .* once in the gallery, got 'a'"),
    (dict(split='path,label,split,,\na,x,query\n./a,x,query'), r"split must be .* once in the gallery, got '\./a'"),
    (dict(split='path,label,split,label\na,x,query,y'), "split must be .* once each, got 'path,label,split,label'"),
    (dict(split='path,label,split\na,x,query'), "split must be a CSV file with images of .* gallery, got 's.csv'"),
    (dict(split='path,label,split\na,x,query\nb,x,gallery'), 'data_dir must have the images .* lacks 1 of 1: a'),
    (dict(split='path,label,split\nquery/x/0.bmp,x,query\nquery/x/0.bmp,,distractor'),
     'split must give an image the class that it has as a query, query/x/0.bmp has another one'),
])
def test_bad_queries_and_galleries_are_named(searched, arguments, message, tmp_path, monkeypatch):
    for folder in ('query', 'gallery'):
        (tmp_path / folder).symlink_to(searched / folder)
    (tmp_path / 'new' / 'new').mkdir(parents=True)
    shutil.copy(searched / 'query' / 'new' / '0.bmp', tmp_path / 'new' / 'new')
    monkeypatch.chdir(tmp_path)
    if '\n' in arguments.get('split', ''):
        (tmp_path / 's.csv').write_text(arguments['split'])
        arguments = dict(split='s.csv')
    with pytest.raises(UserError, match=message):
        evaluate(mean_colours, input_size=16, **arguments)


@pytest.mark.parametrize('arguments, message', [
    (dict(), 'input_size must be given for a callable'),
    (dict(input_size=16, head='gem'), 'head and `last_stride` are for models by name'),
    (dict(input_size=16, output='o'), 'identities must say which weights mean_colours has'),
    (dict(input_size=16, cache='c'), 'cache needs `output`'),
    (dict(input_size=16, last_stride=3), 'last_stride must be one of 1, 2, got 3'),
    (dict(input_size=16, batch_size=0), 'batch_size must be an integer of 1 or more, got 0'),
    (dict(input_size=16, head='mean'), 'head must be one of model, avg, gem, flat, embedding'),
])
def test_bad_arguments_are_named(samples, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate(mean_colours, samples / 'images', **arguments)


@pytest.mark.parametrize('returned, message', [
    (lambda x: x.float(), r'embeddings must be \(1, D\), got \(1, 3, 16, 16\)'),
    (lambda x: None, r'embeddings must be \(1, D\), got NoneType'),
    (lambda x: torch.full((len(x), 2), torch.nan), 'embeddings must be finite, got others for 1 of 1 images'),
])
def test_callables_that_return_no_embeddings_are_rejected(samples, returned, message):
    with pytest.raises(ValueError, match=f'models must return embeddings .* m does not: {message}'):
        evaluate({'m': returned}, samples / 'images', input_size=16)


def make(folder, name, **kwargs):
    """Write a model in Hugging Face format and return it with its source."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **kwargs).eval()
    timm.models.save_for_hf(model, folder, model_args=kwargs, safe_serialization=True)
    return model, f'local-dir:{folder}'


def embed(source, images, **options):
    embedder = load_embedder('m', source, CPU, input_size=images.shape[2:], **options)
    with torch.inference_mode():
        found = embedder.compute(images)
    assert embedder.details['dimensions'] == found.shape[1]
    return found


def test_heads_of_the_network_are_those_that_its_arguments_make(tmp_path):
    """Pooling, embedding and last stride by arguments of the network, and by options of the evaluation."""
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    model, source = make(tmp_path / 'a', 'test_assemble_resnet', embedding_size=5)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) * 255 for key in ('mean', 'std'))
    with torch.no_grad():
        x = (images.float() - mean) / std
        feature_map = model.forward_features(x)
        torch.testing.assert_close(embed(source, images), model.forward_head(feature_map, pre_logits=True))
        before = embed(source, images, head='embedding')
        assert before.shape == (2, 5) and (before < 0).any()
        torch.testing.assert_close(before.relu(), embed(source, images))
        torch.testing.assert_close(embed(source, images, head='avg'), feature_map.mean((2, 3)))
        torch.testing.assert_close(embed(source, images, head='gem'), GeMPool2d()(feature_map).flatten(1))
        torch.testing.assert_close(embed(source, images, head='flat'), feature_map.flatten(1))
        wider = timm.create_model('test_assemble_resnet', num_classes=3, embedding_size=5, last_stride=1).eval()
        wider.load_state_dict(model.state_dict())
        found = embed(source, images, head='flat', last_stride=1)
        assert found.shape[1] == 4 * feature_map[0].numel()
        torch.testing.assert_close(found, wider.forward_features(x).flatten(1))


def test_an_embedding_as_wide_as_the_features_is_one_and_a_pooling_of_another_width_is_none(tmp_path):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    _, wide = make(tmp_path / 'a', 'test_assemble_resnet', embedding_size=256)
    assert (embed(wide, images, head='embedding') < 0).any()
    _, pooled = make(tmp_path / 'b', 'test_assemble_resnet', global_pool='catavgmax')
    with pytest.raises(ValueError, match='head embedding needs a layer between pooling and classifier'):
        embed(pooled, images, head='embedding')


def test_the_checksum_is_that_of_the_weights_before_another_size(tmp_path):
    model, source = make(tmp_path / 'a', 'test_vit', img_size=64)
    found = load_embedder('a', source, CPU, input_size=(96, 96))
    assert found.details['checksum'] == found.identity['checksum'] == weights_sha256(model.state_dict())


@pytest.mark.parametrize('name, kwargs, size, channels', [
    ('resnet10t', {}, 64, 512),  # (B, C, H, W)
    ('test_vit', dict(img_size=64), 64, 64),  # tokens, the first of the class
    ('test_convnext', {}, 64, 64),
    ('swin_tiny_patch4_window7_224', dict(img_size=56, depths=(1, 1), embed_dim=24, num_heads=(2, 2)), 56, 48),
])
def test_heads_of_other_models_pool_their_feature_map(tmp_path, name, kwargs, size, channels):
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    model, source = make(tmp_path / 'm', name, **kwargs)
    shapes = {head: embed(source, images, head=head).shape[1] for head in HEADS if head != 'embedding'}
    assert shapes['avg'] == shapes['gem'] == channels == model.num_features
    assert shapes['flat'] % channels == 0 and shapes['flat'] > channels
    for options, message in ((dict(head='embedding'), 'head embedding needs a layer between pooling and classifier'),
                             (dict(last_stride=1), "last_stride must not be given .* this package's models alone")):
        with pytest.raises(ValueError, match=message):
            embed(source, images, **options)


def write_published(root, dataset, image):
    """Write the published layout with two images of each of four classes, the last two for tests."""
    lines = {}
    if dataset == 'cub':
        names = [f'{c:03d}.Bird/{i}.jpg' for c in (1, 100, 101, 200) for i in range(2)]
        lines['CUB_200_2011/images.txt'] = [f'{i} {name}' for i, name in enumerate(names, 1)]
        lines['CUB_200_2011/image_class_labels.txt'] = [f'{i} {int(n[:3])}' for i, n in enumerate(names, 1)]
        paths = [f'CUB_200_2011/images/{name}' for name in names]
    elif dataset == 'cars196':
        lines['names.csv'] = [f'Car {c}/S' for c in range(1, 197)]
        for split in ('train', 'test'):
            lines[f'anno_{split}.csv'] = [f'{c}.jpg,1,2,3,4,{c}' for c in (1, 98, 99, 196)]
        paths = [f'car_data/car_data/{split}/Car {c}-S/{c}.jpg'
                 for split in ('train', 'test') for c in (1, 98, 99, 196)]
    else:
        for split, classes in (('train', (1, 2)), ('test', (11319, 11320))):
            names = [f'bicycle_final/{c}_{i}.JPG' for c in classes for i in range(2)]
            lines[f'Stanford_Online_Products/Ebay_{split}.txt'] = ['image_id class_id super_class_id path'] + [
                f'{i} {name.split("/")[1].split("_")[0]} 1 {name}' for i, name in enumerate(names, 1)]
        paths = [f'Stanford_Online_Products/bicycle_final/{c}_{i}.JPG' for c in (1, 2, 11319, 11320) for i in range(2)]
    for name, rows in lines.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('\n'.join(rows) + '\n')
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image)
    return [path for path in paths if '99' in path or '196' in path] if dataset == 'cars196' else paths[4:]


@pytest.mark.parametrize('dataset, images, recalls', [
    ('cub', '5924', [1, 2]), ('cars196', '8131', [1, 2]), ('sop', '60502', [1])])
def test_published_data_sets_are_searched_among_their_test_classes(samples, tmp_path, dataset, images, recalls):
    pytest.importorskip('pytorch_metric_learning')
    image = next((samples / 'images' / 'x').iterdir()).read_bytes()
    tests = write_published(tmp_path, dataset, image)
    values = evaluate(mean_colours, tmp_path, dataset=dataset, input_size=16).to_dict()
    assert values['data']['gallery']['items'] == 4 == len(tests) and values['data']['gallery']['classes'] == 2
    assert values['protocol']['recall_at'] == recalls and values['protocol']['name'] == dataset
    assert f'{images} test images as published, 4 here' in values['notes'][0]
    (tmp_path / tests[0]).unlink()
    with pytest.raises(ValueError, match=f'data_dir must have the images .* lacks 1 of 4: {tests[0]}'):
        evaluate(mean_colours, tmp_path, dataset=dataset, input_size=16)
    with pytest.raises(ValueError, match=r'data_dir must hold .* as published, .* `download` fetches it'):
        evaluate(mean_colours, tmp_path / 'missing', dataset=dataset, input_size=16)


def test_galleries_of_equal_names_and_sizes_have_their_own_embeddings(searched, tmp_path):
    """Files of BMP are as large as others of equal sides."""
    for number, classes in enumerate(('xy', 'yx')):
        for name, of in zip('xy', classes):
            shutil.copytree(searched / 'gallery' / of, tmp_path / str(number) / name)
    found = [evaluate(mean_colours, query=searched / 'query', gallery=tmp_path / gallery, input_size=16, examples=0,
                      identities=dict(mean_colours='1'),
                      output=tmp_path / f'{gallery}{cache}', cache=tmp_path / cache).summary
             for gallery, cache in (('0', 'a'), ('1', 'a'), ('1', 'b'))]
    assert found[1] == found[2] != found[0]


def test_a_query_with_two_links_in_the_gallery_is_rejected(searched, tmp_path):
    shutil.copytree(searched / 'gallery', tmp_path / 'gallery')
    [query, *_] = sorted((searched / 'query' / 'x').iterdir())
    (tmp_path / 'gallery' / 'x' / 'soft.bmp').symlink_to(query)
    (tmp_path / 'gallery' / 'x' / 'hard.bmp').hardlink_to(query)
    with pytest.raises(ValueError, match=r'gallery must have an image that is a query once, got .*hard.*soft'):
        evaluate(mean_colours, query=searched / 'query', gallery=tmp_path / 'gallery', input_size=16)
