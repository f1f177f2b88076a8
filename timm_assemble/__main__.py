"""``python -m timm_assemble`` and ``timm-assemble``."""
import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
