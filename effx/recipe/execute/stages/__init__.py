"""How each stage is done: one module per stage, named after it, with a function ``run``.

``run`` takes the cell as :mod:`effx.recipe.execute.protocol` describes it and the folder in which to make
the cell's artifact; it returns the artifact's digest, if it has one, and a line about the result. Everything
heavy is imported within the function. See :data:`effx.specs.stages.STAGES` for the rows.
"""
