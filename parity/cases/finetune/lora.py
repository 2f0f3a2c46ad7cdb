"""What the LoRA functions are fed: any leading axes, ranks from 0 to above the matrix's, scalings of any size and sign, dropout."""

from parity.cases import array, case, dims, flag, left_out, maybe, noise, number, one_of, size


@case(
    "finetune.lora_scaling",
    gradient=False,
    refuses=[
        dict(r=-1, alpha=16),
        dict(r=2.0, alpha=16),
        dict(r=True, alpha=16),
        dict(r=8, alpha=-1.0),
        dict(r=8, alpha=float("nan")),
        dict(r=8, alpha=float("inf")),
        dict(r=8, alpha=1.0000005e30),
    ],
)
def lora_scaling(draw):
    return dict(r=draw(one_of(0, 1, 4, 8, 13, 64)), alpha=draw(one_of(0, 0.5, 1, 16, 1e9)), rslora=draw(left_out(flag())))


@case(
    "finetune.lora_delta",
    bench=dict(x=array(1024, 768), lora_A=array(8, 768), lora_B=array(768, 8), scaling=2.0),
    refuses=[
        dict(x=array(), lora_A=array(2, 1), lora_B=array(4, 2), scaling=1.0),
        dict(x=array(5, 3), lora_A=array(3), lora_B=array(4, 2), scaling=1.0),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4), scaling=1.0),
        dict(x=array(5, 3), lora_A=array(2, 4), lora_B=array(4, 2), scaling=1.0),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4, 3), scaling=1.0),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4, 2), scaling=float("nan")),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4, 2), scaling=float("inf")),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4, 2), scaling=1.0, dropout=-0.1),
        dict(x=array(5, 3), lora_A=array(2, 3), lora_B=array(4, 2), scaling=1.0, dropout=1.1, noise=noise()),
    ],
)
def lora_delta(draw):
    *lead, width = draw(dims())
    rank, outputs = draw(one_of(0, 1, 2, 9)), draw(size(0))
    return dict(
        x=draw(array(*lead, width)), lora_A=draw(array(rank, width)), lora_B=draw(array(outputs, rank)),
        scaling=draw(one_of(0.0, 2.0, -0.5, 1e4, number(0, 3))), dropout=draw(left_out(one_of(0.0, 0.3, 1.0))),
        noise=draw(left_out(maybe(noise()))),
    )
