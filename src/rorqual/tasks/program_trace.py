"""A tiny interpreter for the programs of `program_output`, which writes down what changes.

It walks the syntax tree of programs that this package generated: numbers, strings and lists,
assignments, if, for, while, one print at the end. Nothing is handed to Python's own evaluator, and
a statement it does not know is a bug of ours (NotImplementedError).
"""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Value = int | str | list[Any]

MAX_STEPS = 60
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Gt: (">", operator.gt),
    ast.Lt: ("<", operator.lt),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "sum": sum,
    "max": max,
    "min": min,
    "range": range,
    "sorted": sorted,
}


class TooLong(Exception):
    """The program takes more than MAX_STEPS steps."""


@dataclass(frozen=True, slots=True)
class Event:
    """`before` with its value, as in "x=3+4=" and "7"; begins_line: a new line of the trace."""

    before: str
    value: str
    begins_line: bool


@dataclass
class Interpreter:
    """Runs one program; `events` tell the run, `printed` is what it printed.

    spells: write expressions out with their numbers, which takes most of the time.
    """

    spells: bool = True
    events: list[Event] = field(default_factory=list[Event])
    printed: str = ""
    _variables: dict[str, Value] = field(default_factory=dict[str, Value])
    _num_steps: int = 0
    _depth: int = 0

    def run(self, source: str) -> str:
        """What the program prints."""
        self._block(ast.parse(source).body)
        return self.printed

    def _note(self, before: str, value: object, *, begins_line: bool | None = None) -> None:
        new = self._depth == 0 if begins_line is None else begins_line
        self.events.append(Event(before, str(value), new))

    def _block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._num_steps += 1
            if self._num_steps > MAX_STEPS:
                raise TooLong
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[target], value=value):
                self._assign(target, value)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                left = ast.Name(name, ast.Load())
                self._assign(ast.Name(name, ast.Store()), ast.BinOp(left, op, value))
            case ast.If(test=test, body=body, orelse=orelse):
                holds = self._test(test, begins_line=self._depth == 0)
                self._inner(body if holds else orelse)
            case ast.For(target=ast.Name(id=name), iter=iterable, body=body):
                for item in self._evaluate(iterable):
                    self._variables[name] = item
                    self._note(f"{name}=", repr(item), begins_line=True)
                    self._inner(body)
            case ast.While(test=test, body=body):
                while self._test(test, begins_line=True):
                    self._inner(body)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[shown])):
                value = self._evaluate(shown)
                self.printed = str(value)
                if not isinstance(shown, ast.Name):
                    self._note(f"{self._spell(shown)}=", value, begins_line=True)
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"))
            ):
                assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
                changed = self._variables[name]
                assert isinstance(changed, list)
                changed.append(self._evaluate(node.value.args[0]))
                self._note(f"{name}=", changed)
            case _:
                raise NotImplementedError(ast.dump(node))

    def _inner(self, body: list[ast.stmt]) -> None:
        self._depth += 1
        self._block(body)
        self._depth -= 1

    def _assign(self, target: ast.expr, expression: ast.expr) -> None:
        value = self._evaluate(expression)
        worked = f"{self._spell(expression)}=" if _is_arithmetic(expression, value) else ""
        if isinstance(target, ast.Name):
            self._variables[target.id] = value
            self._note(f"{target.id}={worked}", repr(value))
            return
        assert isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name)
        changed = self._variables[target.value.id]
        assert isinstance(changed, list)
        changed[self._evaluate(target.slice)] = value
        self._note(f"{target.value.id}=", changed)

    def _test(self, node: ast.expr, *, begins_line: bool) -> bool:
        assert isinstance(node, ast.Compare)
        left, right = self._evaluate(node.left), self._evaluate(node.comparators[0])
        sign, holds = _COMPARE[type(node.ops[0])]
        result = holds(left, right)
        told = f"{self._spell(node.left)}{sign}{self._spell(node.comparators[0])} "
        self._note(told, result, begins_line=begins_line)
        return result

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._variables[name]
            case ast.List(elts=items):
                return [self._evaluate(item) for item in items]
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._evaluate(left), self._evaluate(right))
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                parts = [
                    None if part is None else self._evaluate(part) for part in (lower, upper, step)
                ]
                return self._evaluate(value)[slice(*parts)]
            case ast.Subscript(value=value, slice=index):
                return self._evaluate(value)[self._evaluate(index)]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._evaluate(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return _FUNCTIONS[name](*map(self._evaluate, arguments))
            case ast.Call(func=ast.Attribute(value=value, attr="upper")):
                return self._evaluate(value).upper()
            case _:
                raise NotImplementedError(ast.dump(node))

    def _spell(self, node: ast.expr) -> str:
        """The expression with the numbers its variables hold, spaces left out."""
        if not self.spells:
            return ""
        return ast.unparse(_Substitution(self._evaluate).visit(node)).replace(" ", "")


class _Substitution(ast.NodeTransformer):
    """A copy of an expression with variables and list items replaced where they are numbers."""

    def __init__(self, evaluate: Callable[[ast.expr], Any]):
        self.evaluate = evaluate

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        return ast.BinOp(self.visit(node.left), node.op, self.visit(node.right))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._number_or(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return self._number_or(node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return node

    def _number_or(self, node: ast.expr) -> ast.expr:
        value = self.evaluate(node)
        return ast.Constant(value) if isinstance(value, int) else node


def _is_arithmetic(node: ast.expr, value: object) -> bool:
    return isinstance(value, int) and isinstance(node, ast.BinOp)
