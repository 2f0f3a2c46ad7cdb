"""What the dense computation is fed: the same as the sparse one, which equals it."""

from parity.cases import case
from parity.cases.moe.experts import bench, chosen_by_experts, drawn, equals_dense, refused


@case("moe.dense_experts", also=[equals_dense, chosen_by_experts], bench=bench(tokens=512), refuses=refused())
def dense_experts(draw):
    return drawn(draw)
