"""Type aliases for signatures."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Array", "ArrayLike", "Edits", "Params"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Params: TypeAlias = dict[str, Any]  # a model's weights: nested dicts and lists of arrays, see picogpt/utils.py
Edit: TypeAlias = Callable[[Array], ArrayLike | None] | ArrayLike  # a change of an activation, see docs/inside.md
Edits: TypeAlias = Mapping[str, Edit]  # by the names of activations
