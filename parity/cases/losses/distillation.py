"""What distillation is fed: two times any (..., V), every mixture, several temperatures, tokens that do not count, none at all."""

from parity.cases import array, case, dims, flag, ids, left_out, number, one_of
from parity.cases.losses.cross_entropy import token_ids


@case(
    "losses.distillation",
    bench=dict(student_logits=array(512, 8192), teacher_logits=array(512, 8192), targets=ids(512, below=8192)),
    refuses=[
        dict(student_logits=array(), teacher_logits=array(), targets=ids(below=3)),
        dict(student_logits=array(2, 0), teacher_logits=array(2, 0), targets=ids(2, below=1)),
        dict(student_logits=array(2, 3), teacher_logits=array(3), targets=ids(2, below=3)),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=array(2)),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(3, below=3)),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(2, below=4, at_least=3)),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(2, below=0, at_least=-1)),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(2, below=3), temperature=0.0),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(2, below=3), alpha=1.5),
        dict(student_logits=array(2, 3), teacher_logits=array(2, 3), targets=ids(2, below=3), alpha=-0.5),
    ],
)
def distillation(draw):
    *leading, v = draw(dims(min_rank=1, max_rank=4, min_last=1))
    if draw(flag()):
        targets, ignored = token_ids(draw, *leading, below=v), draw(left_out(-100))
    else:
        targets, ignored = ids(*leading, below=v), draw(one_of(0, -1))
    return dict(student_logits=array(*leading, v), teacher_logits=array(*leading, v), targets=targets, ignore_index=ignored,
                temperature=draw(left_out(number(0.5, 5.0))), alpha=draw(left_out(number(0.0, 1.0))))
