"""How far a hand is from the truth, hand by hand: no function here averages over hands."""

from jhand.metrics.pose import mpjpe as mpjpe
from jhand.metrics.pose import pa_mpjpe as pa_mpjpe
from jhand.metrics.pose import root_aligned_mpjpe as root_aligned_mpjpe
