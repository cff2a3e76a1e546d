"""jhand: human hands as pure JAX functions.

A hand is a pytree of arrays. `load_hand` gives one, `forward` poses it, `fit` finds it in measurements.
"""

from jhand import metrics as metrics
from jhand.compile_cache import enable_compile_cache as enable_compile_cache
from jhand.fitting.between_models import transfer as transfer
from jhand.fitting.calibrate import attach_markers as attach_markers
from jhand.fitting.calibrate import fit_landmarks as fit_landmarks
from jhand.fitting.lm import levenberg_marquardt as levenberg_marquardt
from jhand.fitting.measurements import FitSettings as FitSettings
from jhand.fitting.solver import Fit as Fit
from jhand.fitting.solver import fit as fit
from jhand.fitting.solver import fit_sequence as fit_sequence
from jhand.geometry.camera import Camera as Camera
from jhand.geometry.camera import WeakCamera as WeakCamera
from jhand.geometry.camera import make_camera as make_camera
from jhand.geometry.camera import project as project
from jhand.hand.anatomy import joint_angles as joint_angles
from jhand.hand.anatomy import limit_penalty as limit_penalty
from jhand.hand.anatomy import pose_from_angles as pose_from_angles
from jhand.hand.anatomy import sample_poses as sample_poses
from jhand.hand.files import correct_left_shapedirs as correct_left_shapedirs
from jhand.hand.files import load_hand as load_hand
from jhand.hand.files import save_hand as save_hand
from jhand.hand.kinematics import HandMesh as HandMesh
from jhand.hand.kinematics import forward as forward
from jhand.hand.kinematics import joints as joints
from jhand.hand.kinematics import keypoints as keypoints
from jhand.hand.kinematics import pose_hand as pose_hand
from jhand.hand.kinematics import shape_hand as shape_hand
from jhand.hand.kinematics import skin as skin
from jhand.hand.landmark_sets import LandmarkSet as LandmarkSet
from jhand.hand.landmark_sets import landmarks as landmarks
from jhand.hand.measures import hand_measures as hand_measures
from jhand.hand.measures import shape_from_measures as shape_from_measures
from jhand.hand.model import HandModel as HandModel
from jhand.hand.model import HandParams as HandParams
from jhand.hand.model import T_world_wrist as T_world_wrist
from jhand.hand.model import with_T_world_wrist as with_T_world_wrist
from jhand.hand.pose_space import pose_from_pca as pose_from_pca
from jhand.hand.pose_space import pose_to_pca as pose_to_pca
from jhand.hand.sides import mirror_hand as mirror_hand
from jhand.hand.sides import mirror_params as mirror_params
from jhand.hand.skeleton import convert_keypoints as convert_keypoints

__version__ = "0.1.0"
