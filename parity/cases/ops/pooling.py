"""What the poolings are fed: any number of texts of any length; padding before, behind and between the tokens, and nothing but padding."""

from parity.cases import array, case, dims, left_out, mask, maybe, one_of, size

_REFUSED: list[dict] = [dict(x=array(3)), dict(x=array(2, 3, 4), mask=mask(3)), dict(x=array(2, 3, 4), mask=mask(2, 3, 4)),
                        dict(x=array(2, 3, 4), mask=array(2, 3))]
_ALIKE = {"np.where(keep, x, 0) -> np.where(keep, x, 1)": "padding has weight 0, whatever number stands there; NaN and infinity must go"}
_BENCH: dict = dict(x=array(32, 256, 384), mask=mask(32, 256))


def _drawn(draw):
    *texts, d = draw(dims(min_rank=1, max_rank=3))
    shape = (*texts, draw(size(0, 9)))
    some = mask(*shape, p=draw(one_of(0.7, 0.3)))
    return dict(x=draw(array(*shape, d)), mask=draw(one_of(some, some, left_out(maybe(some)))))


@case("ops.mean_pool", bench=_BENCH, refuses=_REFUSED, equivalent=_ALIKE)
def mean_pool(draw):
    return _drawn(draw)


@case("ops.mean_sqrt_len_pool", bench=_BENCH, refuses=_REFUSED, equivalent=_ALIKE)
def mean_sqrt_len_pool(draw):
    return _drawn(draw)


@case("ops.weighted_mean_pool", bench=_BENCH, refuses=_REFUSED, equivalent=_ALIKE)
def weighted_mean_pool(draw):
    return _drawn(draw)


@case("ops.cls_pool", bench=_BENCH, refuses=_REFUSED)
def cls_pool(draw):
    return _drawn(draw)


@case("ops.last_token_pool", bench=_BENCH, refuses=_REFUSED)
def last_token_pool(draw):
    return _drawn(draw)


@case("ops.max_pool", bench=_BENCH, refuses=_REFUSED)
def max_pool(draw):
    return _drawn(draw)
