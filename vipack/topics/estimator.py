"""What estimators of topics share with scikit-learn's: parameters that can be read, set and cloned."""

from __future__ import annotations

import inspect
from typing import Any, Self

from vipack.errors import UsageError

__all__ = ["Estimator"]


class Estimator:
    """An estimator as scikit-learn expects it, which needs not be installed: ``__init__`` stores its arguments and nothing else."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of ``__init__`` by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change some of them.

        Raises:
            UsageError: there is none of that name.
        """
        for name, value in params.items():
            if name not in self._names():
                raise UsageError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(self._names())}.")
            setattr(self, name, value)
        return self

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def __repr__(self) -> str:
        defaults = {name: each.default for name, each in inspect.signature(type(self).__init__).parameters.items()}
        changed = [
            f"{name}={value!r}" for name, value in self.get_params().items() if repr(value) != repr(defaults[name])
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return not vars(self).keys().isdisjoint(("components_", "topics_"))  # asked for by name, topics may be computed

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(positive_only=True, sparse=True),
        )
