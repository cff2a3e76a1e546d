"""Hands from measurements, one at a time or as a motion: keypoints in 3D and in any number of views, markers, scans,
depth, outlines, contact.
"""

from jhand.fitting.between_models import Transfer as Transfer
from jhand.fitting.between_models import transfer as transfer
from jhand.fitting.calibrate import attach_markers as attach_markers
from jhand.fitting.calibrate import fit_landmarks as fit_landmarks
from jhand.fitting.lbfgs import Minimum as Minimum
from jhand.fitting.lbfgs import lbfgs as lbfgs
from jhand.fitting.lm import Solution as Solution
from jhand.fitting.lm import levenberg_marquardt as levenberg_marquardt
from jhand.fitting.measurements import FitSettings as FitSettings
from jhand.fitting.solver import DOUBTS as DOUBTS
from jhand.fitting.solver import Fit as Fit
from jhand.fitting.solver import fit as fit
from jhand.fitting.solver import fit_sequence as fit_sequence
from jhand.fitting.surfaces import collision_spheres as collision_spheres
from jhand.fitting.surfaces import contact as contact
from jhand.fitting.surfaces import object_penetration as object_penetration
from jhand.fitting.surfaces import point_cloud as point_cloud
from jhand.fitting.surfaces import point_cloud_planes as point_cloud_planes
from jhand.fitting.surfaces import points_from_depth as points_from_depth
from jhand.fitting.surfaces import self_penetration as self_penetration
from jhand.fitting.surfaces import silhouette as silhouette
from jhand.fitting.surfaces import surface_normals as surface_normals
from jhand.fitting.terms import Term as Term
from jhand.fitting.terms import mesh_vertices as mesh_vertices
from jhand.fitting.terms import points_2d as points_2d
from jhand.fitting.terms import points_3d as points_3d
from jhand.fitting.uncertainty import landmark_covariance as landmark_covariance
