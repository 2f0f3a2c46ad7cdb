"""The HTML report: one self-contained page with a matrix of components × laws and the measured errors."""

import html
import math
from typing import Any

from parity.laws import LAWS

ERRORS = (("float64", "forward"), ("float64", "gradient"), ("float32", "forward"), ("float32", "gradient"))
SCALE = {"float64": (-17.0, -9.0), "float32": (-9.0, -5.0)}  # decades: from best possible to the promise


def page(report: dict[str, Any]) -> str:
    """The report of `parity run --json` as a page."""
    rooms: dict[str, list[dict[str, Any]]] = {}
    for component in report["components"]:
        rooms.setdefault(component["room"], []).append(component)
    body = "".join(_room(room, members) for room, members in rooms.items())
    total = report["summary"]
    verdict = "all agree" if not total["failed"] else f"{total['failed']} disagree"
    worst = "".join(
        f"<div class=card><b>{item['relative']:.1e}</b><span>largest {html.escape(what)} error, in "
        f"<a href='#{html.escape(item['component'])}'>{html.escape(item['component'])}</a> ({html.escape(item['label'])})</span></div>"
        for what, item in total["worst"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in total["versions"].items())
    heads = "".join(f"<th class=turn><span title='{html.escape(_meaning(law))}'>{law}</span></th>" for law in LAWS)
    heads += "".join(f"<th class=turn><span>{precision} {role}</span></th>" for precision, role in ERRORS)
    scale = " ".join(
        f"{precision} " + "".join(f'<i style="{_shade(precision, 10.0**decade)}">1e{decade}</i>' for decade in decades)
        for precision, decades in (("float64", (-17, -13, -9)), ("float32", (-9, -7, -5)))
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parity report: {verdict}</title><style>{STYLE}</style></head><body>
<header><h1>Parity <em class="{'bad' if total['failed'] else 'good'}">{verdict}</em></h1>
<p>Every component written by hand in NumPy against its PyTorch twin, outputs and gradients, under {len(LAWS)} laws.
{total['components']} components, {total['examples']} examples, {html.escape(total['device'])}; {html.escape(versions)}.</p></header>
<section class=cards>{worst}</section>
<p class=legend>Errors are the largest over well-conditioned examples, relative to the tensor's scale.
{scale}
&nbsp; <i class=yes>✓</i> holds <i class=no>✗</i> fails <i class=na>·</i> does not apply (why: point at it)</p>
<table><thead><tr><th class=name>component</th>{heads}</tr></thead>{body}</table>
<footer>Click a component for its worst example. Columns are explained in docs/parity.md.</footer>
</body></html>
"""


def _room(room: str, members: list[dict[str, Any]]) -> str:
    width = 1 + len(LAWS) + len(ERRORS)
    head = f"<tr class=room><th colspan={width}>{html.escape(room)} <small>{len(members)}</small></th></tr>"
    return f"<tbody>{head}{''.join(_row(member) for member in members)}</tbody>"


def _row(component: dict[str, Any]) -> str:
    cells = "".join(_law(law, component["laws"].get(law, "not run")) for law in LAWS)
    cells += "".join(_error(component[precision], precision, role) for precision, role in ERRORS)
    name = html.escape(component["name"])
    return (
        f"<tr id='{name}' class={component['status']}><th class=name><details><summary>{name.split('.', 1)[1]} "
        f"<small>{component['kind']}</small></summary>{_details(component)}</details></th>{cells}</tr>"
    )


def _details(component: dict[str, Any]) -> str:
    lines = [f"{component['examples']} examples, {component['ill_conditioned']} of them ill-conditioned, {component['seconds']} s"]
    for precision, role in ERRORS:
        worst = component[precision][f"{role}_worst"]
        if worst:
            absolute = component[precision][f"{role}_absolute"]
            lines.append(
                f"{precision} {role}: {component[precision][role]:.2e} of scale ({absolute:.2e} absolute) in {worst['label']}, "
                f"{worst['example'].split('/', 1)[1]}"
            )
    for failure in component["failures"]:
        lines.append(f"✗ {failure['law']}: {failure['what']} — {failure['shapes'] or failure['example']}")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _law(law: str, verdict: str) -> str:
    mark, kind = {"passed": ("✓", "yes"), "failed": ("✗", "no")}.get(verdict, ("·", "na"))
    return f"<td class={kind} title='{html.escape(f'{law}: {verdict}', quote=True)}'>{mark}</td>"


def _error(figures: dict[str, Any], precision: str, role: str) -> str:
    value = figures[role]
    if value is None:
        return "<td class=na>·</td>"
    text = "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")
    return f"<td class=err style='{_shade(precision, value)}' title='{value:.3e} of scale'>{text}</td>"


def _shade(precision: str, value: float) -> str:
    """From green (nothing to see) over yellow to red (at the promise), on a logarithmic scale."""
    low, high = SCALE[precision]
    share = 0.0 if value <= 0 else min(max((math.log10(value) - low) / (high - low), 0.0), 1.0)
    return f"background:hsl({150 - 150 * share:.0f} 65% {82 - 14 * share:.0f}%)"


def _meaning(law: str) -> str:
    return (LAWS[law].__doc__ or "").split("\n")[0]


STYLE = """
:root{--ink:#1c2330;--soft:#667085;--line:#e4e7ec;--paper:#fff;--wash:#f7f8fa;--good:#067647;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2a3140;--paper:#12161f;--wash:#1a202c;--good:#47cd89;--bad:#f97066}}
*{box-sizing:border-box}body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:1180px;
padding:0 1rem}h1{font-size:1.7rem;margin:0 0 .3rem}h1 em{font-style:normal}.good{color:var(--good)}.bad{color:var(--bad)}
header p,.legend,footer{color:var(--soft)}.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.card{flex:1 1 220px;background:var(--wash);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}.card b{font-size:1.35rem;
display:block}.card span{color:var(--soft);font-size:.85rem}a{color:inherit}
.legend i{font-style:normal;padding:.1rem .4rem;border-radius:4px;color:#1c2330;margin:0 .1rem}
table{border-collapse:collapse;width:100%}thead th{position:sticky;top:0;background:var(--paper);z-index:1}
th.turn{height:8.2rem;vertical-align:bottom;padding:0;width:2.1rem}th.turn span{display:inline-block;writing-mode:vertical-rl;
transform:rotate(180deg);font-weight:500;color:var(--soft);padding:.3rem 0;white-space:nowrap}
th.name{text-align:left;font-weight:500;min-width:15rem}td{text-align:center;border-top:1px solid var(--line);padding:.2rem .1rem}
tr th.name{border-top:1px solid var(--line);padding:.2rem .3rem}thead th.name{vertical-align:bottom;border:0}
footer{margin-top:1.5rem}tr.room th{text-align:left;font-size:1.05rem;padding:1.1rem .3rem .3rem}
small{color:var(--soft);font-weight:400}td.err{color:#1c2330;font-size:.78rem;font-variant-numeric:tabular-nums;min-width:3rem}
.yes{color:var(--good)!important}.no{color:#fff!important;background:var(--bad);font-weight:700}.na{color:var(--soft)!important;opacity:.5}
tr.failed th.name{color:var(--bad)}summary{cursor:pointer}details p{margin:.2rem 0 .2rem 1rem;font-size:.8rem;color:var(--soft);
font-weight:400;max-width:30rem;overflow-wrap:anywhere}.legend .yes,.legend .no,.legend .na{color:inherit}
"""
