"""Tables as text, Markdown and LaTeX."""
from timm_assemble.evaluation.tables import Table, number


def test_tables_as_text_markdown_and_latex():
    table = Table('a 50 % title', ['model_1', 'x'], [['a|b_c', -0.001], ['d', None]])
    assert table.text() == 'a 50 % title\nmodel_1     x\na|b_c    0.00\nd           -'
    assert table.markdown().splitlines()[2:] == ['| model_1 | x |', '| --- | ---: |', '| a\\|b_c | 0.00 |', '| d | - |']
    assert r'\caption{a 50 \% title}' in table.latex() and r'a|b\_c & 0.00 \\' in table.latex().splitlines()
    assert number(-0.004) == '0.00' and number(-0.006) == '-0.01'
