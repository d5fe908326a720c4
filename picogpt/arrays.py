"""Type aliases for signatures."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Array", "ArrayLike", "Params"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Params: TypeAlias = dict[str, Any]  # a model's weights: nested dicts and lists of arrays, see picogpt/utils.py
