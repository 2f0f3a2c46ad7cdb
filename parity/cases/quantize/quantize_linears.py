"""Models whose linear layers are put in four bits, by name and by pattern; what is refused before anything is replaced."""

import numpy as np

from parity.cases import case, flag, left_out, one_of
from parity.cases.finetune._models import GPT2, IDS, LLAMA, made, trained


def _quantized(side, model, poison=None, **options):
    """Which layers were replaced by what, and the loss with its gradients."""
    model = made(side, {"gpt2": GPT2, "llama": LLAMA}[model])
    if poison is not None:
        model.state_dict()["blocks.1.mlp.up_proj.weight"][1, 2] = poison
    names = side.get("quantize.quantize_linears")(model, **options)
    shown = {f"{i}. {name}": side.numpy(layer.codes) for i, name, layer in _replaced(side, model, names)}
    for _, _, layer in _replaced(side, model, names):
        wanted = {"kind": "nf4", "block": 64, "double": False} | options
        assert all(getattr(layer, option) == wanted[option] for option in ("kind", "block", "double"))
    # a bias of the keys moves all scores of a query alike: its gradient is zero, and what is computed is rounding
    learned = {name: value for name, value in trained(side, model).items() if not name.endswith("k_proj.bias")}
    return shown | {"logits": model(side.array(IDS))} | learned


def _replaced(side, model, names):
    layers = dict(model.named_modules() if side.name == "torch" else model.modules())
    return [(i, name, layers[name]) for i, name in enumerate(names)]


@case(
    "quantize.quantize_linears", kind="play", play=_quantized,
    refuses=[
        dict(model="llama", targets=("q_prj",)),
        dict(model="llama", targets=("q_proj", "*.attn")),
        dict(model="llama", targets="q_proj"),
        dict(model="llama", targets=(3,)),
        dict(model="llama", exclude="head"),
        dict(model="llama", exclude=(3,)),
        dict(model="llama", kind="nf5"),
        dict(model="llama", block=0),
        dict(model="llama", double=2),
        dict(model="llama", poison=np.nan),
        dict(model="llama", poison=np.inf),
        dict(model="llama", poison=-np.inf),
        dict(model="gpt2", poison=1e39),
    ],
)
def quantize_linears(draw):
    return dict(
        model=draw(one_of("gpt2", "llama")),
        targets=draw(left_out(one_of(("*",), ("q_proj", "*.k_proj"), ("blocks.1.*", "v_proj")))),
        exclude=draw(left_out(one_of((), ("head", "blocks.0.*"), ("k_proj",), ("nothing",)))),
        kind=draw(left_out(one_of("nf4", "fp4"))), block=draw(left_out(one_of(4, 7))), double=draw(left_out(flag())),
    )
