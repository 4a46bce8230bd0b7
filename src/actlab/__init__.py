"""actlab: which activation function, at which learning rate, should my regressor use, and is the difference real?"""

import os
from typing import TYPE_CHECKING, Any

# Intel MKL otherwise picks code paths by the address of a matrix, and a member's last bits would depend on its place
# in a stack. It reads this once, before its first product; the cost is within the noise of measurement.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    from actlab.api import Run, compare, load_run, load_runs, search

__version__ = "0.1.0"
__all__ = ["Run", "compare", "load_run", "load_runs", "search"]


def __getattr__(name: str) -> Any:
    """`actlab.compare` and the others, imported when first used: `import actlab` itself stays light."""
    if name in __all__:
        from actlab import api

        return getattr(api, name)
    raise AttributeError(f"module 'actlab' has no attribute {name!r}")
