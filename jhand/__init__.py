"""jhand: human hands as pure JAX functions.

A hand is a pytree of arrays. `load_hand` gives one, `forward` poses it, `fit` finds it in measurements.
"""

from jhand import metrics as metrics
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
from jhand.hand.model import HandModel as HandModel
from jhand.hand.model import HandParams as HandParams
from jhand.hand.model import T_world_wrist as T_world_wrist
from jhand.hand.model import with_T_world_wrist as with_T_world_wrist

__version__ = "0.1.0"
