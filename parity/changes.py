"""The operators of mutation: every small wrong change to a syntax tree, found by one walk over it.

`Finder(statement, role, checks).changes` are the changes to one function, class or constant. Each is a context manager: inside `with
change:` the tree is the mutant's, afterwards it is the original's again. `parity.mutate` chooses the statements and makes mutants of them.
"""

import ast
import itertools
from collections.abc import Callable, Iterator

from parity.walk import Slot, Walk, Where, signed

# The node's own operator, and what it turns into. `@` is left: no other operator takes two matrices.
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}
_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return dict(pairs) | {b: a for a, b in pairs}


# Called by these names, as a method, as np.NAME or (max, min, any, all) as the built-in.
_REDUCTIONS = _both_ways(("sum", "mean"), ("nansum", "nanmean"))
_EXTREMES = _both_ways(("max", "min"), ("amax", "amin"), ("argmax", "argmin"), ("maximum", "minimum"), ("fmax", "fmin"))
_FUNCTION_FORMS = _both_ways(("add", "subtract"), ("multiply", "divide"), ("logical_and", "logical_or"), ("any", "all"),
                             ("less", "less_equal"), ("greater", "greater_equal"), ("equal", "not_equal"))
_FUNCTION_FORMS["true_divide"] = "multiply"
_BUILTINS = ("max", "min", "any", "all")

# Dropping an operand of np.add(a, b, out=c) puts the neutral element in its place, so that `out` is still written.
_NEUTRAL = {"add": 0, "subtract": 0, "multiply": 1, "divide": 1, "true_divide": 1}
_TRANSPOSES = ("transpose", "swapaxes", "moveaxis", "matrix_transpose", "permute_dims")
_IN_PLACE_CALLS = ("copyto", "put", "putmask", "place", "put_along_axis", "fill", "at")
_KNOWN_NUMBERS = ("pi", "e", "tau")  # of math and np: constants without digits


def _other_names(name: str) -> Iterator[tuple[str, str]]:
    """(operator, what this function is exchanged for)."""
    for operator, table in (("sum <-> mean", _REDUCTIONS), ("max <-> min", _EXTREMES), ("swap an operator", _FUNCTION_FORMS)):
        if name in table:
            yield operator, table[name]


class Finder(Walk):
    """The walk that lists every change of every operator."""

    def _at(self, node: ast.AST, where: Where) -> None:
        """Every change whose root is this node."""
        number = signed(node)
        match node:
            case _ if number is not None:
                self._number(node, number, where)
            case ast.Attribute(value=ast.Name(id="math" | "np"), attr=attr) if attr in _KNOWN_NUMBERS:
                for factor in (1.001, 1 + 1e-6):
                    self._constant("constant", node, where, ast.BinOp(node, ast.Mult(), ast.Constant(float(f"{factor:.15g}"))))
            case ast.Attribute(value=ast.Name(id="np") as np, attr=attr) if not self._is_called(node):
                for operator, other in _other_names(attr):  # handed on as a function: by_blocks(np.multiply, dy, slope)
                    self._constant(operator, node, where, ast.Attribute(np, other, ast.Load()))
            case ast.BinOp():
                self._binary(node, where)
            case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
                self._add("drop a negation", node, where, node.operand)
            case ast.Compare():
                self._comparison(node, where)
            case ast.BoolOp():
                new = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                self._add("and <-> or", node, where, ast.BoolOp(new, node.values))
            case ast.AugAssign() if type(node.op) in _OPERATORS:
                self._add("swap an operator", node, where, ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value))
                self._add("drop a statement", node, where, ast.Pass())
            case ast.AugAssign():
                self._add("drop a statement", node, where, ast.Pass())
            case ast.Assign(targets=targets) if all(isinstance(t, ast.Subscript) for t in targets):
                self._add("drop a statement", node, where, ast.Pass())
            case ast.Expr(value=ast.Call() as call):
                self._bare_call(node, call, where)
            case ast.Attribute(attr="T" | "mT", ctx=ast.Load()):
                self._add("drop a transpose", node, where, node.value)
            case ast.Call():
                self._call(node, where)
            case ast.Return(value=ast.expr() as value):
                self._returned(value, where)
            case ast.Lambda() if id(node) in self._pullbacks:
                self._returned(node.body, where)

    def _is_called(self, node: ast.AST) -> bool:
        """Whether it is the function of a call, or the left of another dot."""
        owner, field, _ = self._places[id(node)]
        return field == "func" or isinstance(owner, ast.Attribute)

    def _number(self, node: ast.AST, number: bool | int | float, where: Where) -> None:
        if isinstance(number, bool):
            owner, _, _ = self._places[id(node)]
            if isinstance(owner, ast.keyword) and (owner.arg == "strict" or (owner.arg == "copy" and not number)):
                return  # zip's own check, and a copy more than needed: nothing a result can show
            self._constant("flip a boolean", node, where, not number)
            return
        if isinstance(node, ast.UnaryOp):
            self._constant("drop a negation", node, where, -number)
        if isinstance(number, int):
            self._constant("integer + 1", node, where, number + 1)
        elif number == 0:
            self._constant("constant", node, where, 1.0)
        else:
            for factor in (1.001, 1 + 1e-6):
                self._constant("constant", node, where, float(f"{number * factor:.15g}"))

    def _binary(self, node: ast.BinOp, where: Where) -> None:
        if isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return
        if type(node.op) in _OPERATORS:
            self._add("swap an operator", node, where, ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
        match node.op:
            case ast.Add() | ast.Mult():
                self._add("drop a term", node, where, node.right)
                self._add("drop a term", node, where, node.left)
            case ast.Sub():
                self._add("drop a term", node, where, ast.UnaryOp(ast.USub(), node.right))
                self._add("drop a term", node, where, node.left)
            case ast.Div():
                self._add("drop a term", node, where, node.left)

    def _comparison(self, node: ast.Compare, where: Where) -> None:
        for i, op in enumerate(node.ops):
            if type(op) in _COMPARISONS:
                ops = [*node.ops[:i], _COMPARISONS[type(op)](), *node.ops[i + 1:]]
                self._add("comparison", node, where, ast.Compare(node.left, ops, node.comparators))

    def _bare_call(self, node: ast.Expr, call: ast.Call, where: Where) -> None:
        """A statement that is only a call works in place: it can be forgotten."""
        attr = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if attr == "at" and _dotted(call.func) == "np.add.at" and len(call.args) == 3:
            array, index, value = call.args
            target = ast.Subscript(array, index, ast.Store())
            self._add("np.add.at -> fancy +=", node, where, ast.AugAssign(target, ast.Add(), value))
        if attr in _IN_PLACE_CALLS or any(k.arg == "out" for k in call.keywords):
            self._add("drop a statement", node, where, ast.Pass())

    def _call(self, node: ast.Call, where: Where) -> None:
        name, numpy = "", False
        match node.func:
            case ast.Name(id=name):
                self._renamed(node, name if name in _BUILTINS else "", where, lambda other: ast.Name(other, ast.Load()))
            case ast.Attribute(value=of, attr=name):
                numpy = _dotted(of) == "np"
                self._renamed(node, name, where, lambda other: ast.Attribute(of, other, ast.Load()))
                if isinstance(of, ast.Attribute) and _dotted(of.value) == "np":  # np.add.reduce
                    np = of.value
                    self._renamed(node, of.attr, where, lambda other: ast.Attribute(ast.Attribute(np, other, ast.Load()), name, ast.Load()))
                if name == "grads":
                    self._swapped(node, "keywords", where)
        if name in _TRANSPOSES and isinstance(node.func, ast.Attribute):
            if not numpy:
                self._add("drop a transpose", node, where, node.func.value)
            elif node.args:
                self._add("drop a transpose", node, where, node.args[0])
        if numpy and name in _NEUTRAL and len(node.args) >= 2:
            for side in (0, 1):
                if side == 0 and name in ("divide", "true_divide"):
                    continue
                args = [*node.args]
                args[side] = ast.Constant(_NEUTRAL[name])
                self._add("drop a term", node, where, ast.Call(node.func, args, node.keywords))
        if numpy and name == "where" and len(node.args) == 3:
            condition, yes, no = node.args
            self._add("swap the branches of where", node, where, ast.Call(node.func, [condition, no, yes], node.keywords))

    def _renamed(self, call: ast.Call, name: str, where: Where, function: Callable[[str], ast.expr]) -> None:
        """sum <-> mean and their like: the same call by the other name."""
        for operator, other in _other_names(name):
            self._add(operator, call, where, ast.Call(function(other), call.args, call.keywords))

    # Exchanging what is returned

    def _returned(self, value: ast.expr, where: Where) -> None:
        match value:
            case ast.Tuple(elts=elements):
                self._swapped(value, "elts", where)
                for element in elements:
                    self._returned(element, where)
            case ast.Dict():
                self._swapped(value, "values", where)
                for element in value.values:
                    self._returned(element, where)
            case ast.Call(func=ast.Name(id=name)) if name[:1].isupper() or name[:2].lstrip("_").isupper():
                self._swapped(value, "args", where)
                self._swapped(value, "keywords", where)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                self._returned(left, where)
                self._returned(right, where)
            case ast.IfExp(body=body, orelse=orelse):
                self._returned(body, where)
                self._returned(orelse, where)

    def _swapped(self, node: ast.expr, field: str, where: Where) -> None:
        """Each two neighbours change places: entries of a tuple, arguments, values of a dict or of keywords."""
        entries = getattr(node, field)
        for i, (first, second) in enumerate(itertools.pairwise(entries)):
            if id(first) in self._pullbacks or id(second) in self._pullbacks:
                continue
            slots: list[Slot]
            if field == "keywords":
                if first.arg is None or second.arg is None:
                    continue
                slots = [(first, "value", None, second.value), (second, "value", None, first.value)]
            else:
                slots = [(node, field, i, second), (node, field, i + 1, first)]
            self._add("swap what is returned", node, where, slots=slots, focus=node)


def _dotted(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
    return ""
