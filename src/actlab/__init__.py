"""actlab: which activation function, at which learning rate, should my regressor use, and is the difference real?"""

import os

# Intel MKL otherwise picks code paths by the address of a matrix, and a member's last bits would depend on its place
# in a stack. It reads this once, before its first product; the cost is within the noise of measurement.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
