"""Recipes: a YAML file becomes a plan of cells, and the cells are done, here or on Ray.

recipe.yaml ── schema ── Recipe ── cells ── CellPlan ── run ── workspace: cells/, engines/, results/, report/

Reading, planning and resuming need no PyTorch: each cell is done in a worker process.
"""

from effx.recipe.execute.run import plan, run
from effx.recipe.language.recipe import Recipe
from effx.recipe.language.schema import RecipeError, load

__all__ = ["Recipe", "RecipeError", "load", "plan", "run"]
