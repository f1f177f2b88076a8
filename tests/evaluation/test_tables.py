"""Tables as text, Markdown and LaTeX."""
from timm_assemble.evaluation.tables import Table, number


def test_tables_as_text_markdown_and_latex():
    table = Table('a 50 % title', ['model_1', 'x'], [['a|b_c', -0.001], ['d', None]])
    assert [line.split() for line in table.text().splitlines()[1:]] == [['model_1', 'x'], ['a|b_c', '0.00'], ['d', '-']]
    assert table.markdown().splitlines()[3].count('-:') == 1 and r'| a\|b_c' in table.markdown()
    assert r'\caption{a 50 \% title}' in table.latex() and r'a|b\_c' in table.latex() and r'\toprule' in table.latex()
    assert number(-0.004) == '0.00' and number(-0.006) == '-0.01'
