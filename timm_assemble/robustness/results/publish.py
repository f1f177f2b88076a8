"""The files of results in a folder, which are never written over those of another measurement."""
import json
from pathlib import Path

__all__ = ['check_output']


def check_output(folder: Path, measurement: str) -> None:
    """Check that a folder has no results of another measurement; the ValueError says of which models they are."""
    try:
        earlier = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
        if earlier['measurement'] == measurement:
            return
        about = f'protocol {earlier["protocol"]["name"]}, {", ".join(model["label"] for model in earlier["models"])}'
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, KeyError, TypeError):
        about = 'of another version'
    raise ValueError(f'output must not have results of another measurement, {folder / "results.json"} has ({about}); '
                     f'give another folder, and this one\'s cache as `cache` to reuse its tasks')
