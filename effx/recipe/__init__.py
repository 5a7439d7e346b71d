"""Recipes: a YAML file becomes a plan of cells, and the plan is worked through, here or on Ray.

recipe.yaml ── schema ── Recipe ── cells ── Plan ── run ── workspace: cells/, engines/, results/, report/

Reading, planning and resuming need no torch: each cell runs in a process of its own.
"""

from effx.recipe.execute.run import plan, run
from effx.recipe.language.recipe import Recipe
from effx.recipe.language.schema import RecipeError, load

__all__ = ["Recipe", "RecipeError", "load", "plan", "run"]
