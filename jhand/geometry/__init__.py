"""Rotations, cameras, several views, alignment and distances. Nothing here knows a hand."""

from jhand.geometry.alignment import nearest_rotation as nearest_rotation
from jhand.geometry.alignment import procrustes as procrustes
from jhand.geometry.alignment import rigid_procrustes as rigid_procrustes
from jhand.geometry.camera import Camera as Camera
from jhand.geometry.camera import WeakCamera as WeakCamera
from jhand.geometry.camera import distort as distort
from jhand.geometry.camera import make_camera as make_camera
from jhand.geometry.camera import project as project
from jhand.geometry.camera import translation_from_weak as translation_from_weak
from jhand.geometry.camera import undistort as undistort
from jhand.geometry.camera import unproject as unproject
from jhand.geometry.camera import weak_from_camera as weak_from_camera
from jhand.geometry.distance import closest_on_mesh as closest_on_mesh
from jhand.geometry.multiview import Triangulated as Triangulated
from jhand.geometry.multiview import triangulate as triangulate
from jhand.geometry.rotations import rigid as rigid
from jhand.geometry.rotations import rotation_from_6d as rotation_from_6d
from jhand.geometry.rotations import rotation_from_quaternion as rotation_from_quaternion
from jhand.geometry.rotations import rotation_to_6d as rotation_to_6d
from jhand.geometry.rotations import rotation_to_quaternion as rotation_to_quaternion
from jhand.geometry.rotations import skew as skew
from jhand.geometry.rotations import so3_exp as so3_exp
from jhand.geometry.rotations import so3_left_jacobian as so3_left_jacobian
from jhand.geometry.rotations import so3_log as so3_log
from jhand.geometry.rotations import transform as transform
