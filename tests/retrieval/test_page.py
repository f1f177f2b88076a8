"""The Python code of docs/retrieval.md, with one epoch."""
import contextlib
import io

import pytest

from tests.tools.test_docs import ROOT, code_blocks


@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')  # timm's dataset leaves that to Python
def test_code_of_the_page_splits_trains_and_searches(tmp_path, monkeypatch):
    pytest.importorskip('pytorch_metric_learning')
    code = '\n'.join(code_blocks(ROOT / 'docs' / 'retrieval.md', 'python'))
    assert code.count('EPOCHS = 20') == 1
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace('EPOCHS = 20', 'EPOCHS = 1'), {})
    lines = printed.getvalue().splitlines()
    assert lines[0].startswith('epoch 1: loss ') and "'recall@1': 9" in lines[-1]  # of the raw pixels
    assert len([*tmp_path.glob('digits/unseen/*/*.png')]) == 716 and len([*tmp_path.glob('digits/train/*')]) == 5
    assert {path.name for path in tmp_path.iterdir()} == {'digits', 'untrained', 'metric'}
