"""The profile of searching embeddings runs."""
from benchmarks.profiles import retrieval


def test_search_prints_its_seconds_and_peak_memory(capsys):
    assert retrieval.main(['--images', '100', '--dimensions', '8', '--neighbours', '99', '--threads', '1']) == 0
    assert 'recall@99 100.00 %' in capsys.readouterr().out
