"""What tells real from generated images without looking at what they show: it makes any detector's accuracy meaningless.

facts = list(inspect(paths, generated))     one look at each file
leaks = find_leaks(facts)                   named findings, worst first
"""

from fruitgan.evaluation.leaks.facts import Facts, inspect
from fruitgan.evaluation.leaks.finding import Leak, find_leaks
from fruitgan.evaluation.leaks.grouping import merged_groups

__all__ = ["Facts", "Leak", "find_leaks", "inspect", "merged_groups"]
