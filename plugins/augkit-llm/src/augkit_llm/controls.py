"""What every strategy of a search is measured beside."""

from __future__ import annotations

CONTROLS = {
    "none": "no augmentation beyond the recipe's base",
    "uniform_class_choice": "a random operator for each class and epoch: what choosing by class gives without learning",
    "trivialaugment": "a random operator for each image",
}
"""Built-in strategies, and what each is a control for."""
