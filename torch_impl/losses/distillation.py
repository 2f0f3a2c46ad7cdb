"""Knowledge distillation: a student learns from a teacher's probabilities and from the labels at once (Hinton et al. 2015)."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, ids_below, in_range, integers, positive, same_shape
from torch_impl.losses.kl import kl_forward
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy


def distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    targets: Tensor,
    temperature: float = 2.0,
    alpha: float = 0.5,
    ignore_index: int = -100,
) -> Tensor:
    """loss = α · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) · cross_entropy(student, targets).

    student_logits (..., V), teacher_logits (..., V), targets (...,) -> (), the mean over the positions that count.
    """
    floats("distillation", student_logits=student_logits, teacher_logits=teacher_logits)
    at_least_rank("distillation", 1, student_logits=student_logits)
    demand("distillation", student_logits.shape[-1] > 0, "student_logits of at least one class", student_logits=student_logits)
    same_shape("distillation", student_logits.shape, teacher_logits=teacher_logits)
    integers("distillation", targets=targets)
    same_shape("distillation", student_logits.shape[:-1], targets=targets)
    targets = targets.long()
    counted = targets != ignore_index
    ids_below("distillation", student_logits.shape[-1], targets=torch.where(counted, targets, 0))
    positive("distillation", temperature=temperature)
    in_range("distillation", 0, 1, alpha=alpha)
    soft = kl_forward(student_logits / temperature, teacher_logits / temperature, mask=counted)
    hard = softmax_cross_entropy(student_logits, targets=targets, ignore_index=ignore_index)
    return alpha * temperature * temperature * soft + (1 - alpha) * hard
