"""How far a hand is from the truth, hand by hand: nothing averages over hands, sequences, objects or pictures.

Lengths are in the unit of the points, which in jhand is the metre. Masks say what counts; where nothing does, the
answer is NaN with a gradient of zero, so that `jnp.nanmean` is the mean of the rest. Points x are predicted, y true.

=====================  ==========================================================  ===================================
function               definition                                                  source
=====================  ==========================================================  ===================================
`mpjpe`                mean_k |x_k - y_k|                                          Ionescu et al., PAMI 2014
`root_aligned_mpjpe`   the same of x_k - x_root and y_k - y_root                   Zimmermann & Brox, ICCV 2017
`scale_aligned_mpjpe`  the same after the best scale about the root                Rhodin et al., CVPR 2018 (N-MPJPE)
`pa_mpjpe`             the same after the best similarity                          Zimmermann et al., ICCV 2019
`pck`                  share of points with |x_k - y_k| <= threshold               Zimmermann & Brox, ICCV 2017
`pck_auc`              its area over 100 thresholds, 0 to 50 mm, over the range    FreiHAND's evaluation
`angular_error`        angle of R_x^T R_y                                          Huynh, JMIV 2009
`mpvpe`, `pa_mpvpe`    `mpjpe`, `pa_mpjpe` of vertices, aligned by vertices        Zimmermann et al., ICCV 2019
`f_score`              harmonic mean of precision and recall at a distance         Knapitsch et al., TOG 2017
`mpjve`                mean length of the difference of (x_t - x_{t-1}) fps        Pavllo et al., CVPR 2019
`acceleration`         mean |x_{t-1} - 2 x_t + x_{t+1}| fps^2                      as the next
`acceleration_error`   mean length of the difference of these vectors              Kanazawa et al., CVPR 2019 (HMMR)
`jitter`               mean |third difference of x| fps^3                          Yi et al., TOG 2021 (TransPose)
`ade`, `fde`           |x_t - y_t|, its mean and its last                          Pellegrini 2009; Alahi, CVPR 2016
`ga_mpjpe`             `mpjpe` after one similarity for the sequence               Yu et al., CVPR 2025 (Dyn-HaMR)
`w_mpjpe`              likewise for 100 frames, fitted to their first two          Ye et al., CVPR 2023 (SLAHMR)
`wa_mpjpe`             likewise for 100 frames, fitted to all of them              Ye et al., CVPR 2023 (SLAHMR)
`rte`                  distance after one rigid motion, over the path's length     Shin et al., CVPR 2024 (WHAM)
`contact_scores`       precision, recall and F1 of points in contact               Tripathi et al., ICCV 2023 (DECO)
`penetration_depth`    max_k max(-d_k, 0) of signed distances d                    Hasson et al., CVPR 2019 (ObMan)
`penetration_volume`   voxels inside both, times their volume                      Hasson et al., CVPR 2019 (ObMan)
`iou`, `mean_iou`      |A and B| / |A or B| of a class; mean over classes present  Everingham et al., IJCV 2010
`boundary_f`           F-measure of outlines within 0.008 of the diagonal          Perazzi et al., CVPR 2016 (DAVIS)
`add`                  mean_k |T_x p_k - T_y p_k|                                  Hinterstoisser et al., ACCV 2012
`add_s`                mean_k min_j |T_x p_j - T_y p_k|                            Xiang et al., RSS 2018 (PoseCNN)
`add_auc`              max(1 - ADD / 0.1 m, 0), whose mean is the area             Xiang et al., RSS 2018 (PoseCNN)
`add_accuracy`         ADD <= 0.1 diameter                                         Hinterstoisser et al., ACCV 2012
`oks`                  mean_k exp(-|x_k - y_k|^2 / (2 area (2 sigma_k)^2))         COCO; Jin et al., ECCV 2020
`oks_ap`               101-point interpolated precision at each threshold          Lin et al., ECCV 2014 (COCO)
`average_precision`    the same of any similarity                                  Lin et al., ECCV 2014 (COCO)
`correct_pose_score`   share of thresholds at which one has all points right       Wandt et al., CVPR 2021
`truth_rank`           share of hypotheses nearer to their median than the truth   Pierzchlewicz et al., 2022
`hypothesis_spread`    root of a point's variance over hypotheses                  Holmquist & Wandt, ICCV 2023
=====================  ==========================================================  ===================================

`contact_map` and `voxel_grid` make what two of these take; `expected_calibration_error` is how uneven ranks are,
`rank_correlation` is Spearman's, and `matched_gaussian` stands beside hypotheses for the best of as many random ones.
"""

from jhand.metrics.contact import contact_map as contact_map
from jhand.metrics.contact import contact_scores as contact_scores
from jhand.metrics.contact import penetration_depth as penetration_depth
from jhand.metrics.contact import penetration_volume as penetration_volume
from jhand.metrics.contact import voxel_grid as voxel_grid
from jhand.metrics.detection import HAND_SIGMAS as HAND_SIGMAS
from jhand.metrics.detection import OKS_THRESHOLDS as OKS_THRESHOLDS
from jhand.metrics.detection import average_precision as average_precision
from jhand.metrics.detection import oks as oks
from jhand.metrics.detection import oks_ap as oks_ap
from jhand.metrics.hypotheses import correct_pose_score as correct_pose_score
from jhand.metrics.hypotheses import expected_calibration_error as expected_calibration_error
from jhand.metrics.hypotheses import hypothesis_spread as hypothesis_spread
from jhand.metrics.hypotheses import matched_gaussian as matched_gaussian
from jhand.metrics.hypotheses import rank_correlation as rank_correlation
from jhand.metrics.hypotheses import truth_rank as truth_rank
from jhand.metrics.mesh import f_score as f_score
from jhand.metrics.mesh import mpvpe as mpvpe
from jhand.metrics.mesh import pa_mpvpe as pa_mpvpe
from jhand.metrics.motion import acceleration as acceleration
from jhand.metrics.motion import acceleration_error as acceleration_error
from jhand.metrics.motion import ade as ade
from jhand.metrics.motion import fde as fde
from jhand.metrics.motion import ga_mpjpe as ga_mpjpe
from jhand.metrics.motion import jitter as jitter
from jhand.metrics.motion import mpjve as mpjve
from jhand.metrics.motion import rte as rte
from jhand.metrics.motion import w_mpjpe as w_mpjpe
from jhand.metrics.motion import wa_mpjpe as wa_mpjpe
from jhand.metrics.objects import add as add
from jhand.metrics.objects import add_accuracy as add_accuracy
from jhand.metrics.objects import add_auc as add_auc
from jhand.metrics.objects import add_s as add_s
from jhand.metrics.pose import angular_error as angular_error
from jhand.metrics.pose import mpjpe as mpjpe
from jhand.metrics.pose import pa_mpjpe as pa_mpjpe
from jhand.metrics.pose import pck as pck
from jhand.metrics.pose import pck_auc as pck_auc
from jhand.metrics.pose import root_aligned_mpjpe as root_aligned_mpjpe
from jhand.metrics.pose import scale_aligned_mpjpe as scale_aligned_mpjpe
from jhand.metrics.segmentation import boundary_f as boundary_f
from jhand.metrics.segmentation import iou as iou
from jhand.metrics.segmentation import mean_iou as mean_iou
