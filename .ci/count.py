"""Print how large the source is: files, lines, and the share of docstrings and comments."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from pathlib import Path


def words(source: str) -> set[int]:
    """The numbers of the lines that hold a docstring or nothing but a comment."""
    found = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def main() -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path("src").rglob("*.py"))]
    lengths = [len(source.splitlines()) for source in sources]
    share = sum(len(words(source)) for source in sources) / sum(lengths)
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in Path("tests").rglob("*.py"))
    median = statistics.median(lengths)
    print(f"src: {sum(lengths):,} lines in {len(sources)} files (median {median:.0f}), {share:.1%} docstrings and comments")
    print(f"tests: {tests:,} lines")


if __name__ == "__main__":
    main()
