"""What embedding is fed: ids of any shape, repeated and absent ones, with a padding id counted from either end, or none."""

from parity.cases import array, case, dims, ids, integer, left_out, one_of, size


@case("ops.embedding", bench=dict(weight=array(16384, 768), ids=ids(16, 512, below=16384)),
      equivalent={
          "length * width -> width": "how many rows are summed at a time shows in no result",
          "length * width -> length": "how many rows are summed at a time shows in no result",
      },
      skip={"witness": "padding_idx withholds a gradient that a difference sees"},
      refuses=[dict(weight=array(3, 2), ids=ids(4, below=9, at_least=3)),
               dict(weight=array(3, 2), ids=ids(4, below=0, at_least=-2)),
               dict(weight=array(3, 2), ids=array(4)),
               dict(weight=array(3), ids=ids(4, below=3)),
               dict(weight=array(3, 2), ids=ids(4, below=3), padding_idx=3),
               dict(weight=array(3, 2), ids=ids(4, below=3), padding_idx=-4),
               dict(weight=array(3, 2), ids=ids(4, below=3), padding_idx=1.0)])
def embedding(draw):
    shape = draw(dims(min_rank=0, max_rank=3))
    n_rows, width = draw(size(1, 9)), draw(size(0, 5))
    return dict(weight=draw(array(n_rows, width)), ids=draw(ids(*shape, below=n_rows)),
                padding_idx=draw(left_out(one_of(None, integer(-n_rows, n_rows - 1)))))
