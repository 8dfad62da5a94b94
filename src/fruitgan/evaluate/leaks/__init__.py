"""What tells real from generated images without looking at what they show: it makes any detector's accuracy meaningless.

facts = list(inspect(paths, generated))     one look at each file
leaks = find_leaks(facts)                   named findings, worst first
"""

from fruitgan.evaluate.leaks.facts import Facts, inspect
from fruitgan.evaluate.leaks.finding import Leak, find_leaks
from fruitgan.evaluate.leaks.grouping import merged_groups

__all__ = ["Facts", "Leak", "find_leaks", "inspect", "merged_groups"]
