"""One walk over a top-level statement: which of it is code, what lies in a pullback, and the list of changes that is made on the way.

`Walk` knows no operator: what may go wrong at a node, `parity.changes` says.
"""

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

Where = Literal["backward", "forward"]
Slot = tuple[Any, str, int | None, Any]  # owner, field, index where the field is a list, new value
_LONG = 160  # characters; a longer expression (a table of coefficients) is named by its entry alone


@dataclasses.dataclass
class Change:
    """`with change:` the tree is the mutant's; afterwards it is the original's again."""

    operator: str
    where: Where
    line: int
    slots: list[Slot]
    focus: ast.AST           # what `before` and `after` show
    instead: ast.AST | None  # what stands where `focus` stood, if the focus itself is replaced
    name: str                # "eps=" before the default of eps

    def shown(self) -> ast.AST:
        return self.focus if self.instead is None else self.instead

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        for n, (owner, field, index, new) in enumerate(self.slots):
            if index is None:
                old = getattr(owner, field)
                setattr(owner, field, new)
            else:
                old = getattr(owner, field)[index]
                getattr(owner, field)[index] = new
            self.slots[n] = owner, field, index, old


class Walk:
    """Walks one top-level statement and lists every change, and every name that is read."""

    def __init__(self, statement: ast.stmt, role: Where, checks: frozenset[str]):
        self.changes: list[Change] = []
        self.references: list[tuple[str, Where]] = []
        self._checks = checks
        self._places: dict[int, tuple[Any, str, int | None]] = {}  # id of a node -> where it hangs
        self._pullbacks: set[int] = set()                          # ids of functions and lambdas returned as pullback
        for owner in ast.walk(statement):
            for field, value in ast.iter_fields(owner):
                for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    if isinstance(child, ast.AST):
                        self._places[id(child)] = owner, field, index
        for function in ast.walk(statement):
            if isinstance(function, ast.FunctionDef):
                self._mark_pullbacks(function)
        self._root = statement
        self._visit(statement, role)

    # Walking

    def _visit(self, node: ast.AST, where: Where) -> None:
        match node:
            case ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return
            case ast.FunctionDef() | ast.Lambda() if self._is_backward(node):
                where = "backward"
            case ast.Name(id=name, ctx=ast.Load()):
                self.references.append((name, where))
            case ast.Call() if self._is_check(node):
                self._check(node, where)
                return
        self._at(node, where)
        for child in self._children(node):
            self._visit(child, where)

    @staticmethod
    def _children(node: ast.AST) -> Iterator[ast.AST]:
        """The children that are code: no annotations, no decorators."""
        if signed(node) is not None:  # a number and its sign are one constant
            return
        skipped = ("annotation", "returns", "decorator_list", "ctx", "op", "ops")
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.arguments):  # in the order of the text
            fields = {"defaults": node.defaults, "kw_defaults": node.kw_defaults}
        for field, value in fields.items():
            if field not in skipped:
                yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST))

    def _is_backward(self, node: ast.FunctionDef | ast.Lambda) -> bool:
        name = getattr(node, "name", "")
        return name == "backward" or name.endswith("_backward") or id(node) in self._pullbacks

    def _mark_pullbacks(self, function: ast.FunctionDef) -> None:
        """`return y, pull` makes the nested function (or lambda) called `pull` a pullback, whatever its name."""
        own = list(_own_nodes(function))
        functions: dict[str, ast.AST] = {n.name: n for n in own if isinstance(n, ast.FunctionDef)}
        for node in own:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and isinstance(node.targets[0], ast.Name):
                functions[node.targets[0].id] = node.value
        for node in own:
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and node.value.elts:
                last = node.value.elts[-1]
                for option in (last.body, last.orelse) if isinstance(last, ast.IfExp) else (last,):
                    pullback = functions.get(option.id) if isinstance(option, ast.Name) else option
                    if isinstance(pullback, (ast.FunctionDef, ast.Lambda)):
                        self._pullbacks |= {id(pullback), id(option), id(last)}

    def _is_check(self, node: ast.Call) -> bool:
        match node.func:
            case ast.Name(id=name):
                return name in self._checks
            case ast.Attribute(value=ast.Name(id=name)):
                return f"{name}." in self._checks
        return False

    def _check(self, call: ast.Call, where: Where) -> None:
        """A call to byhand.checks: only the numbers it demands change, and by one, so that a refusal can tell."""
        demands = [*call.args, *(k.value for k in call.keywords if k.arg == "at_least")]
        for argument in demands:
            waiting: list[ast.AST] = [argument]
            while waiting:
                node = waiting.pop(0)
                if isinstance(node, ast.JoinedStr):
                    continue
                number = signed(node)
                if number is None:
                    waiting[:0] = self._children(node)
                elif not isinstance(number, bool):
                    self._constant("integer + 1" if isinstance(number, int) else "constant", node, where, number + 1)
        for node in ast.walk(call):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self.references.append((node.id, where))

    # Listing

    def _add(self, operator: str, node: ast.AST, where: Where, new: ast.AST | None = None, *,
             slots: list[Slot] | None = None, focus: ast.AST | None = None, name: str = "") -> None:
        """`new` in the place of `node`; or the given slots, shown at `focus`."""
        if slots is None:
            if id(node) not in self._places:
                return
            slots = [(*self._places[id(node)], new)]
        instead = new if focus is None else None
        self.changes.append(Change(operator, where, getattr(node, "lineno", 0), slots, focus or node, instead, name))

    def _constant(self, operator: str, node: ast.AST, where: Where, value: Any) -> None:
        """A leaf is shown inside the smallest expression around it: `x.mean(-1)`, not `-1`; and a default with its parameter's name."""
        new = value if isinstance(value, ast.AST) else _literal(value)
        focus = self._around(node)
        owner, field, index = self._places[id(node)]
        name = ""
        if isinstance(owner, ast.arguments) and index is not None:
            parameters = owner.kwonlyargs if field == "kw_defaults" else (owner.posonlyargs + owner.args)[-len(owner.defaults):]
            name = f"{parameters[index].arg}="
        self._add(operator, node, where, new, slots=[(owner, field, index, new)], focus=None if focus is node else focus, name=name)

    def _around(self, node: ast.AST) -> ast.AST:
        child, inner = node, node
        while id(child) in self._places:
            child = self._places[id(child)][0]
            if isinstance(child, (ast.expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)):
                inner = child
                if not isinstance(child, (ast.Slice, ast.Tuple, ast.List, ast.Starred)):
                    break
            elif not isinstance(child, ast.keyword):
                break
        return node if len(ast.unparse(inner)) > _LONG else inner

    def _at(self, node: ast.AST, where: Where) -> None:
        """Add every change whose root is this node."""
        raise TypeError(f"{type(self).__name__} defines no _at")


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function's body, not descending into the functions it defines (which are themselves yielded)."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def signed(node: ast.AST) -> bool | int | float | None:
    """The value of a number, with its minus sign, or of a boolean; None for everything else."""
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(value, bool):
            return -value
    return None


def _literal(value: bool | int | float) -> ast.expr:
    if not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
