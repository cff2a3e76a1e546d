"""Hands that touch: things to hold, grasps, two hands beside each other."""

from jhand.contact.between_hands import clearance_along as clearance_along
from jhand.contact.between_hands import skin_gap as skin_gap
from jhand.contact.grasping import Grasp as Grasp
from jhand.contact.grasping import close_fingers as close_fingers
from jhand.contact.grasping import grasping_skin as grasping_skin
from jhand.contact.grasping import palm_normal as palm_normal
from jhand.contact.grasping import sample_grasp as sample_grasp
from jhand.contact.solids import KINDS as KINDS
from jhand.contact.solids import Solid as Solid
from jhand.contact.solids import make_solid as make_solid
from jhand.contact.solids import sample_solid as sample_solid
from jhand.contact.solids import solid_distance as solid_distance
from jhand.contact.solids import solid_faces as solid_faces
from jhand.contact.solids import solid_vertices as solid_vertices
from jhand.contact.taxonomy import GRASP_TYPES as GRASP_TYPES
from jhand.contact.taxonomy import HOGRASPNET_GRASPS as HOGRASPNET_GRASPS
from jhand.contact.taxonomy import GraspType as GraspType
from jhand.contact.taxonomy import grasp_attributes as grasp_attributes
from jhand.contact.taxonomy import grasp_type as grasp_type
from jhand.contact.templates import grasp_of_type as grasp_of_type
from jhand.contact.templates import gripped_part as gripped_part
