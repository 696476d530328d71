"""Recipes: stages of training chained by configuration, from raw text to a small reasoning model.

The stages are those of DeepSeek-R1 (arXiv 2501.12948, section 2): reinforcement learning from the
base alone, cold start, reinforcement learning, rejection sampling and fine-tuning from the base,
reinforcement learning on everything, distillation.
"""

from rorqual.recipe.run import RecipeResult, run_recipe

__all__ = ["RecipeResult", "run_recipe"]
