"""Knowledge distillation: a student learns from a teacher's probabilities and from the labels at once (Hinton et al. 2015)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, ids_below, in_range, integers, positive, same_shape
from numpy_impl.losses.kl import kl_forward
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy


def distillation(
    student_logits: NDArray,
    teacher_logits: NDArray,
    *,
    targets: NDArray,
    temperature: float = 2.0,
    alpha: float = 0.5,
    ignore_index: int = -100,
) -> tuple[NDArray, Callable]:
    """loss = α · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) · cross_entropy(student, targets).

    The soft loss compares softened distributions, whose gradients shrink with 1/T²; the factor T² undoes that, so that α keeps its
    meaning when the temperature changes.

    Parameters
    ----------
    student_logits : (..., V)   float32 or float64
    teacher_logits : (..., V)
    targets : (...,)            class ids in [0, V), or ignore_index
    temperature : float         T > 0; higher shows more of what the teacher thinks of the wrong classes
    alpha : float               α in [0, 1], the share of the soft loss
    ignore_index : int          a target of this value counts in neither loss

    Returns
    -------
    loss : ()   the mean over the positions that count; NaN if there are none
    backward : dloss () -> dstudent_logits (..., V), dteacher_logits (..., V)

    Raises
    ------
    ValueError   if shapes do not fit, V is 0, a target is out of range, temperature or alpha is, or a dtype differs

    References
    ----------
    Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2

    Examples
    --------
    >>> student, teacher = np.array([[0.0, 0.0]]), np.array([[0.0, 2 * np.log(3.0)]])
    >>> loss, backward = distillation(student, teacher, targets=np.array([1]))
    >>> round(float(loss), 4)
    0.6082
    >>> backward(np.array(1.0))[0]
    array([[ 0.5, -0.5]])
    """
    floats("distillation", student_logits=student_logits, teacher_logits=teacher_logits)
    at_least_rank("distillation", 1, student_logits=student_logits)
    demand("distillation", student_logits.shape[-1] > 0, "student_logits of at least one class", student_logits=student_logits)
    same_shape("distillation", student_logits.shape, teacher_logits=teacher_logits)
    integers("distillation", targets=targets)
    same_shape("distillation", student_logits.shape[:-1], targets=targets)
    counted = targets != ignore_index
    ids_below("distillation", student_logits.shape[-1], targets=np.where(counted, targets, 0))
    positive("distillation", temperature=temperature)
    in_range("distillation", 0, 1, alpha=alpha)

    soft, soft_backward = kl_forward(student_logits / temperature, teacher_logits / temperature, mask=np.asarray(counted))
    hard, hard_backward = softmax_cross_entropy(student_logits, targets=targets, ignore_index=ignore_index)
    soft_share, hard_share = alpha * temperature * temperature, 1 - alpha

    def backward(dloss):
        dstudent, dteacher = soft_backward(dloss * (soft_share / temperature))   # 1 / T: the logits were divided by it
        return dstudent + hard_backward(dloss * hard_share), dteacher

    return np.asarray(soft_share * soft + hard_share * hard), backward
