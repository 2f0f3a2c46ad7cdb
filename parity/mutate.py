"""Small wrong changes to a source file: what a component's laws must notice, or they prove nothing.

`mutants(source, "layer_norm")` returns one `Mutant` per change: an operator swapped, a term dropped, a sign lost, an axis off by
one, two gradients exchanged … each the smallest step from right code to wrong code. The changes themselves are found by
`parity.changes` in the course of a `parity.walk`; all three only rewrite syntax trees, import no NumPy, run nothing and know no
component. `parity.mutants` runs what is made here.

What is changed: the body and the parameter defaults of the public function or class, of the private functions and classes of the
same file that it reaches, and the module-level constants they read. What is not: other public functions (they are components of
their own), docstrings and every other string, annotations, decorators, imports, `raise` statements; of a call to `byhand.checks` only
the numbers it demands (what is refused is a law of its own).
"""

import ast
import dataclasses
import difflib
import functools

from parity.changes import Finder
from parity.walk import Where


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One wrong version of a source file.

    Parameters
    ----------
    operator : str      the kind of change, "drop a term", say
    where : str         "backward" inside a pullback (or in what only pullbacks reach), "forward" everywhere else
    line : int          of the original file
    before, after : str the smallest expression that shows the change, and what it became
    key : str           ``before -> after``, with `` #2``, `` #3`` … where the same change occurs again further down
    within : str        the function, class or constant of the file that was changed
    text : str          the whole changed file
    """

    operator: str
    where: Where
    line: int
    before: str
    after: str
    key: str
    within: str
    text: str = dataclasses.field(repr=False)

    def source(self) -> str:
        """The whole changed file."""
        return self.text


def mutants(source: str, *names: str) -> list[Mutant]:
    """Every mutant of the functions or classes `names` of a source file, in the order of the file, no two alike.

    Raises
    ------
    ValueError   if the file does not define one of them

    Examples
    --------
    >>> for mutant in mutants("def double(x):\\n    return 2 * x.sum(-1)\\n", "double"):
    ...     print(mutant.operator, "|", mutant.key)
    swap an operator | 2 * x.sum(-1) -> 2 / x.sum(-1)
    drop a term | 2 * x.sum(-1) -> x.sum(-1)
    drop a term | 2 * x.sum(-1) -> 2
    integer + 1 | 2 * x.sum(-1) -> 3 * x.sum(-1)
    sum <-> mean | x.sum(-1) -> x.mean(-1)
    drop a negation | x.sum(-1) -> x.sum(1)
    integer + 1 | x.sum(-1) -> x.sum(0)
    """
    tree = ast.parse(source)
    known = _definitions(tree)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"mutants needs a name the file defines; got {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    roles = _reached(known, *names)
    chunks = [ast.unparse(statement) for statement in tree.body]
    checks = _names_of_checks(tree)

    made: list[Mutant] = []
    seen: set[tuple[int, str]] = set()
    times: dict[str, int] = {}
    for index, statement in enumerate(tree.body):
        within = next((n for n in roles if known[n] is statement), None)
        if within is None:
            continue
        for change in Finder(statement, roles[within], checks).changes:
            before = change.name + ast.unparse(change.focus)
            with change:
                after, text = change.name + ast.unparse(change.shown()), ast.unparse(statement)
            if text == chunks[index] or (index, text) in seen or not _compiles(text):
                continue
            seen.add((index, text))
            key = f"{before} -> {after}"
            times[key] = times.get(key, 0) + 1
            key += f" #{times[key]}" if times[key] > 1 else ""
            whole = "\n".join([*chunks[:index], text, *chunks[index + 1:]]) + "\n"
            made.append(Mutant(change.operator, change.where, change.line, before, after, key, within, whole))
    return made


def definitions(source: str) -> list[str]:
    """The names of the functions and classes that the file defines."""
    return [node.name for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


@functools.lru_cache(maxsize=256)
def reached(source: str, name: str) -> frozenset[str]:
    """What of the file the mutants of `name` lie in: itself, its private helpers and its constants."""
    known = _definitions(ast.parse(source))
    return frozenset(_reached(known, name)) if name in known else frozenset()


def _compiles(text: str) -> bool:
    try:
        compile(text, "<mutant>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return False
    return True


# Which definitions of the file belong to a component


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Every name the file binds at its top level, and the statement that binds it."""
    found: dict[str, ast.stmt] = {}
    for statement in tree.body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                found[statement.name] = statement
            case ast.Assign(targets=targets):
                found |= {n.id: statement for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                found[name] = statement
    return found


def _reached(known: dict[str, ast.stmt], *names: str) -> dict[str, Where]:
    """What `names` use of their file, themselves first: private definitions and constants. What only pullbacks reach counts as backward."""
    roles: dict[str, Where] = {}
    later: list[str] = []

    def follow(start: str, role: Where) -> None:
        waiting = [start]
        while waiting:
            current = waiting.pop()
            if current in roles or (current not in names and not _belongs(current, known.get(current))):
                continue
            roles[current] = role
            for reference, where in Finder(known[current], role, frozenset()).references:
                (waiting if where == role else later).append(reference)

    for name in names:
        follow(name, "forward")
    while later:
        follow(later.pop(), "backward")
    return roles


def _belongs(name: str, definition: ast.stmt | None) -> bool:
    return definition is not None and (name.startswith("_") or isinstance(definition, (ast.Assign, ast.AnnAssign)))


def _names_of_checks(tree: ast.Module) -> frozenset[str]:
    """The names by which this file calls byhand.checks."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "byhand.checks":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "byhand":
            names |= {f"{alias.asname or alias.name}." for alias in node.names if alias.name == "checks"}
    return frozenset(names)


# One change of the tree
