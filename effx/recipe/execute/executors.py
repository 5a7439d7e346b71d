"""``--on``: where cells run."""

from __future__ import annotations

from effx.errors import UsageError, nearest
from effx.recipe.execute.run import Executor, Local
from effx.recipe.language.recipe import Recipe


def executor(place: str, recipe: Recipe) -> Executor:
    """Return the executor for ``local`` or ``ray[:ADDRESS]``.

    Raises:
        UsageError: the place is unknown, or the cluster cannot be used.
        MissingExtraError: Ray is not installed.
    """
    name, _, address = place.partition(":")
    if name == "local" and not address:
        return Local(recipe.budgets)
    if name == "ray":
        from effx.recipe.execute.on_ray import Cluster

        return Cluster(recipe, address or None)
    raise UsageError(
        f"--on {place}: unknown.{nearest(name, ('local', 'ray'))} Known: local, ray, ray:ADDRESS."
    )
