"""What the grouped linear map is fed: experts with rows and without, a bias or none; and what it refuses."""

import numpy as np

from parity.cases import array, case, ids, integer, left_out, maybe, one_of, size


def _expert_by_expert(side, x, weight, bias=None, *, counts):
    """Each expert is `ops.linear` of its own rows; on the torch side by every kernel."""
    grouped, linear = side.get("moe.grouped_linear"), side.get("ops.linear")
    ends = np.cumsum(side.numpy(counts)).tolist()
    if side.name == "numpy":
        y, backward = grouped(x, weight, bias, counts=counts)
        dx, dweight, dbias = backward(y)
        for e, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
            want, linear_backward = linear(x[start:stop], weight[e], None if bias is None else bias[e])
            dx_want, dweight_want, dbias_want = linear_backward(want)
            yield f"y {e}", y[start:stop], want
            yield f"dx {e}", dx[start:stop], dx_want
            yield f"dweight {e}", dweight[e], dweight_want
            if bias is not None:
                yield f"dbias {e}", dbias[e], dbias_want
    else:
        for kernel in ("auto", "loop"):
            y = grouped(x, weight, bias, counts=counts, kernel=kernel)
            for e, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
                yield f"y {e}, {kernel}", y[start:stop], linear(x[start:stop], weight[e], None if bias is None else bias[e])


_WEIGHT = array(3, 4, 2)


@case("moe.grouped_linear", also=[_expert_by_expert],
      bench=dict(x=array(8192, 512), weight=array(8, 1024, 512, scale=0.04), counts=np.full(8, 1024)),
      refuses=[dict(x=array(5, 3), weight=_WEIGHT, counts=np.array([2, 0, 3])),
               dict(x=array(5), weight=_WEIGHT, counts=np.array([2, 0, 3])),
               dict(x=array(5, 2), weight=array(4, 2), counts=np.array([2, 0, 3])),
               dict(x=array(5, 2), weight=_WEIGHT, bias=array(4), counts=np.array([2, 0, 3])),
               dict(x=array(5, 2), weight=_WEIGHT, counts=np.array([2, 0, 2])),
               dict(x=array(5, 2), weight=_WEIGHT, counts=np.array([2, -1, 4])),
               dict(x=array(5, 2), weight=_WEIGHT, counts=np.array([2, 3])),
               dict(x=array(5, 2), weight=_WEIGHT, counts=np.array([[2, 0, 3]])),
               dict(x=array(5, 2), weight=_WEIGHT, counts=array(3)),
               dict(x=ids(5, 2, below=3), weight=_WEIGHT, counts=np.array([2, 0, 3]))])
def grouped_linear(draw):
    experts, inputs, outputs = draw(size(1, 5)), draw(size(0, 6)), draw(size(0, 6))
    counts = np.array([draw(one_of(0, 1, integer(2, 5))) for _ in range(experts)], dtype=np.int64)
    return dict(x=draw(array(int(counts.sum()), inputs)), weight=draw(array(experts, outputs, inputs, scale=max(inputs, 1) ** -0.5)),
                bias=draw(left_out(maybe(array(experts, outputs)))), counts=counts)
