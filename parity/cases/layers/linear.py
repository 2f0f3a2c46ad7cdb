"""What Linear is fed: any leading axes, widths from 1, with and without a bias."""

from parity.cases import array, case, dims, flag, left_out, size


@case(
    "layers.Linear",
    bench=dict(init=dict(in_features=768, out_features=3072), call=dict(x=array(1024, 768))),
    refuses=[
        dict(init=dict(in_features=0, out_features=2)),
        dict(init=dict(in_features=2, out_features=0)),
        dict(init=dict(in_features=2.0, out_features=3)),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=array(4, 2))),
    ],
)
def linear(draw):
    *lead, width = draw(dims(min_last=1))
    outputs = draw(size(8, 12) if draw.ordinary else size())  # enough entries to tell the distribution they start from
    return dict(init=dict(in_features=width, out_features=outputs, bias=draw(left_out(flag()))), call=dict(x=array(*lead, width)))
