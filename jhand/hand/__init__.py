"""The parametric hand: model and files, kinematics, orders, sides, pose spaces, anatomy, landmark sets."""

from jhand.hand.files import HandFileError as HandFileError
from jhand.hand.files import correct_left_shapedirs as correct_left_shapedirs
from jhand.hand.files import load_hand as load_hand
from jhand.hand.files import save_hand as save_hand
from jhand.hand.files import with_tips as with_tips
from jhand.hand.kinematics import HandMesh as HandMesh
from jhand.hand.kinematics import PosedHand as PosedHand
from jhand.hand.kinematics import ShapedHand as ShapedHand
from jhand.hand.kinematics import forward as forward
from jhand.hand.kinematics import joints as joints
from jhand.hand.kinematics import keypoints as keypoints
from jhand.hand.kinematics import pose_hand as pose_hand
from jhand.hand.kinematics import shape_hand as shape_hand
from jhand.hand.kinematics import skin as skin
from jhand.hand.model import HandModel as HandModel
from jhand.hand.model import HandParams as HandParams
from jhand.hand.model import T_world_wrist as T_world_wrist
from jhand.hand.model import make_hand as make_hand
from jhand.hand.model import rest_joints as rest_joints
from jhand.hand.model import with_T_world_wrist as with_T_world_wrist
