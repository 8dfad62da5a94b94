"""Which images show one thing: what a manifest says, and what looks nearly alike."""

from __future__ import annotations

from collections.abc import Sequence

from fruitgan.data.groups import near_groups
from fruitgan.evaluate.leaks.facts import Facts


def merged_groups(facts: Sequence[Facts], groups: Sequence[str]) -> tuple[list[str], int]:
    """The group of each image after near-duplicates were joined, and how many images of groups that grew by it.

    Images that nearly are one picture (data/likeness.py), and all that share a group with them, become one group, by the name
    that sorts first.
    """
    near = near_groups([fact.content_sha256 for fact in facts], [fact.look for fact in facts])
    leader = {group: group for group in groups}

    def root(group: str) -> str:
        while leader[group] != group:
            leader[group] = leader[leader[group]]
            group = leader[group]
        return group

    first: dict[str, str] = {}
    for fact, group in zip(facts, groups, strict=True):
        other = first.setdefault(near[fact.content_sha256], group)
        low, high = sorted((root(group), root(other)))
        leader[high] = low
    merged = [root(group) for group in groups]
    grown = {root(group) for group in leader if root(group) != group}
    return merged, sum(group in grown for group in merged)
