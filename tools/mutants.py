"""Small changes of a program's text, each of which a test should notice.

Annotations, docstrings, messages of errors, `__all__`, text, blocks under `if TYPE_CHECKING` and lines with
`# pragma: no mutate` stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

ORDER = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
EQUALITY = {
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
OPPOSITES = ("any", "all"), ("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("floor", "ceil")
CALLS = {one: other for pair in OPPOSITES for one, other in (pair, pair[::-1])}
KEPT_KEYWORDS = (None, "default", "description", "strict")
"""`**fields`; a field's default, without which no config is made; what is said; whether `zip` should have checked."""
UNARY = {ast.Not: "not", ast.USub: "-", ast.Invert: "~"}


Placed = ast.expr | ast.stmt | ast.keyword
"""Nodes that say where they stand."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    Args:
        file: that is changed.
        operator: sort of change.
        start: first byte that is replaced.
        end: byte behind them.
        before: the text there.
        after: the text instead.
        lines: first and last line of the statement; a test that runs none of them cannot notice.
        function: qualified name of the outermost function whose body is changed; None: what runs at import.
    """

    file: Path
    operator: str
    start: int
    end: int
    before: str
    after: str
    lines: tuple[int, int]
    function: str | None

    def apply(self, source: bytes) -> bytes:
        """Return the changed text of the file."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def describe(self, source: bytes) -> str:
        """Return the line number, and the line before and after."""
        changed = replace(self, after=" ".join(self.after.split())).apply(source)
        first = source.rfind(b"\n", 0, self.start) + 1
        before, after = (text[first:].decode().split("\n")[0].strip() for text in (source, changed))
        return f"{source[: self.start].count(10) + 1}: [{self.operator}] {before}  ->  {after}"


def mutants_of(file: Path) -> list[Mutant]:
    """Return all mutants of a file, in the order of its text."""
    source = file.read_bytes()
    found = set(_Changes(file, source).of(ast.parse(source)))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.after))


class _Changes:
    def __init__(self, file: Path, source: bytes) -> None:
        self.file, self.source = file, source
        lines = source.split(b"\n")
        self.starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
        self.kept = {number for number, line in enumerate(lines, 1) if b"# pragma: no mutate" in line}
        self.scope: list[str] = []
        self.function: str | None = None
        self.lines = (0, 0)

    def of(self, node: ast.AST) -> Iterator[Mutant]:
        """Yield the mutants of a node and of all below it."""
        if self._is_kept(node):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from self._of_definition(node)
            return
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            self.lines = (node.lineno, body[0].lineno - 1 if body else node.end_lineno or node.lineno)
        yield from self._of_one(node)
        if _is_negative(node):
            return
        for name, value in ast.iter_fields(node):
            if name == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self.of(child)

    def _of_definition(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[Mutant]:
        self.lines = (node.lineno, node.body[0].lineno - 1)
        if isinstance(node, ast.FunctionDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                yield from self.of(default) if default is not None else ()
        self.scope.append(node.name)
        outermost = isinstance(node, ast.FunctionDef) and self.function is None
        self.function = ".".join(self.scope) if outermost else self.function
        for child in node.body:
            yield from self.of(child)
        self.function = None if outermost else self.function
        self.scope.pop()

    def _is_kept(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return True
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return True
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return True
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return True
        return getattr(node, "lineno", None) in self.kept

    def _of_one(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.Compare):
            for left, op, right in zip((node.left, *node.comparators), node.ops, node.comparators, strict=False):
                yield from self._operator("comparison", left, {**ORDER, **EQUALITY}.get(type(op)), right)
        elif isinstance(node, ast.BinOp):
            yield from self._operator("arithmetic", node.left, ARITHMETIC.get(type(node.op)), node.right)
        elif isinstance(node, ast.BoolOp):
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._operator("boolean", left, words, right)
        elif _is_negative(node):
            yield self._mutant("constant", self._start(node), self._end(node), repr(ast.literal_eval(node) + 1))
        elif isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
            start = self._start(node)
            yield self._mutant("sign", start, start + len(UNARY[type(node.op)]), "")
        elif isinstance(node, ast.Constant):
            yield from self._constant(node)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from self._condition(node.test)
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield self._mutant("return", self._start(node.value), self._end(node.value), "None")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield self._mutant("deleted", self._start(node), self._end(node), "pass")
        elif isinstance(node, ast.Call):
            yield from self._call(node)

    def _operator(
        self, operator: str, left: ast.expr, words: tuple[str, str] | None, right: ast.expr
    ) -> Iterator[Mutant]:
        """Yield the change of the operator between two operands, around which brackets may stand."""
        if words is not None:
            before, after = words
            gap = self.source[self._end(left) : self._start(right)].decode()
            at = self._end(left) + len(gap[: gap.index(before)].encode())
            yield self._mutant(operator, at, at + len(before), after)

    def _constant(self, node: ast.Constant) -> Iterator[Mutant]:
        if isinstance(node.value, bool):
            yield self._mutant("constant", self._start(node), self._end(node), str(not node.value))
        elif isinstance(node.value, int | float):
            yield self._mutant("constant", self._start(node), self._end(node), repr(node.value + 1))

    def _condition(self, test: ast.expr) -> Iterator[Mutant]:
        single = test.ops[0] if isinstance(test, ast.Compare) and len(test.ops) == 1 else None
        negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if not negated and type(single) not in EQUALITY:  # whose own change is the same
            start, end = self._start(test), self._end(test)
            yield self._mutant("condition", start, end, f"(not ({self.source[start:end].decode()}))")

    def _call(self, node: ast.Call) -> Iterator[Mutant]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in CALLS:
            end = self._end(node.func)
            yield self._mutant("call", end - len(name), end, CALLS[name])
        arguments: list[Placed] = sorted([*node.args, *node.keywords], key=self._start)
        for number, keyword in enumerate(arguments):
            if isinstance(keyword, ast.keyword) and keyword.arg not in KEPT_KEYWORDS:
                if number:
                    start, end = self._end(arguments[number - 1]), self._end(keyword)
                else:
                    start = self._start(keyword)
                    end = self._start(arguments[1]) if len(arguments) > 1 else self._end(keyword)
                yield self._mutant("keyword", start, end, "")

    def _mutant(self, operator: str, start: int, end: int, after: str) -> Mutant:
        before = self.source[start:end].decode()
        return Mutant(self.file, operator, start, end, before, after, self.lines, self.function)

    def _start(self, node: Placed) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def _end(self, node: Placed) -> int:
        return self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_negative(node: ast.AST) -> TypeGuard[ast.UnaryOp]:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
