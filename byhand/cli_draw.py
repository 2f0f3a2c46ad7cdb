"""The commands `byhand draw …`."""

from pathlib import Path
from typing import Literal

import cyclopts

from byhand.cli_common import OK, tune

drawings = cyclopts.App(name="draw", help="Pictures of what goes on inside a model.")


@drawings.command(name="attention")
def draw_attention(
    model: str,
    *,
    text: str = "def add(a, b):\n    return a + b\n",
    target: str | None = None,
    ids: str | None = None,
    layer: str | None = None,
    head: int | None = None,
    out: Path = Path("attention.html"),
    seed: int = 0,
) -> int:
    """Draw how the tokens of a text attend to each other: as .html (a page to point at), .png or .svg.

    Parameters
    ----------
    model
        A preset with random weights (gpt2-1m, llama-nano …), the directory of a `byhand train`, a .safetensors file of a
        `byhand experiment`, or a directory in the format of Hugging Face's hub.
    text
        What the model reads.
    target
        What it writes, for a model that reads one text and writes another; by default the same.
    ids
        The numbers of tokens to read, in place of a text.
    layer
        The layer's number, from 0, or its name; by default all.
    head
        The head's number, from 0; by default all.
    out
        The picture.
    seed
        Of random weights.
    """
    tune()
    from byhand.commands.draw import draw_attention as work

    work(model, text=text, target=target, ids=ids, layer=layer, head=head, out=out, seed=seed)
    return OK


@drawings.command(name="experts")
def draw_experts(
    run: str,
    *,
    text: str = "def add(a, b):\n    return a + b\n",
    ids: str | None = None,
    layer: str | None = None,
    show: Literal["both", "tokens", "training"] = "both",
    out: Path = Path("experts.png"),
    seed: int = 0,
) -> int:
    """Draw which experts the tokens of a text go to, and how evenly a run used its experts: as .png or .svg.

    Parameters
    ----------
    run
        The directory of a `byhand train` of a mixture of experts, or of a `byhand finetune` with MixLoRA; for the tokens alone also a
        preset with random weights (mixtral-nano …), or a directory in the format of Hugging Face's hub.
    text
        What the model reads.
    ids
        The numbers of tokens to read, in place of a text.
    layer
        The number of a block, or the name of a layer; by default all.
    show
        The tokens' experts, their use over training, or, where there are both, both.
    out
        The picture.
    seed
        Of random weights.
    """
    tune()
    from byhand.commands.draw_experts import draw_experts as work

    work(run, text=text, ids=ids, layer=layer, show=show, out=out, seed=seed)
    return OK
