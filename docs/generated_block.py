"""Put generated text between two marker comments of a Markdown page. Knows nothing of what is generated."""
__all__ = ['rewrite_block']


def rewrite_block(text: str, begin: str, end: str, block: str) -> str:
    """The page with ``block`` between its markers, in the place of what stood there.

    Args:
        text: Page with both markers once, in order.
        begin: Marker before the block.
        end: Marker after it.
        block: Text that goes between them, with an empty line on both sides.

    Raises:
        ValueError: Not exactly one of each marker, in order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in rest or end in before + after:
        raise ValueError(f'the page must have the markers {begin!r} and {end!r} once, in this order.')
    return f'{before}{begin}\n\n{block}\n\n{end}{after}'
