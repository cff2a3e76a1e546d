"""Motion in time: smoothing, resampling, the paths of cameras."""

from jhand.motion.camera_paths import CameraPath as CameraPath
from jhand.motion.camera_paths import CameraPathError as CameraPathError
from jhand.motion.camera_paths import ColmapModel as ColmapModel
from jhand.motion.camera_paths import cameras_along as cameras_along
from jhand.motion.camera_paths import read_colmap as read_colmap
from jhand.motion.camera_paths import read_tum as read_tum
from jhand.motion.camera_paths import write_colmap as write_colmap
from jhand.motion.camera_paths import write_tum as write_tum
from jhand.motion.filters import OneEuro as OneEuro
from jhand.motion.filters import one_euro as one_euro
from jhand.motion.filters import one_euro_rotations as one_euro_rotations
from jhand.motion.filters import one_euro_start as one_euro_start
from jhand.motion.filters import one_euro_step as one_euro_step
from jhand.motion.filters import savitzky_golay as savitzky_golay
from jhand.motion.filters import savitzky_golay_rotations as savitzky_golay_rotations
from jhand.motion.keyframes import between_keyframes as between_keyframes
from jhand.motion.keyframes import minimum_jerk as minimum_jerk
from jhand.motion.keyframes import move_points as move_points
from jhand.motion.keyframes import move_rotations as move_rotations
from jhand.motion.resampling import resample as resample
from jhand.motion.resampling import resample_rotations as resample_rotations
from jhand.motion.resampling import resample_transforms as resample_transforms
from jhand.motion.smoothing import Smoothed as Smoothed
from jhand.motion.smoothing import rts_smooth as rts_smooth
from jhand.motion.smoothing import rts_smooth_rotations as rts_smooth_rotations
