"""Pictures of hands and what is around them, with everything known about each pixel."""

from jhand.render.meshes import Light as Light
from jhand.render.meshes import Mesh as Mesh
from jhand.render.meshes import Picture as Picture
from jhand.render.meshes import Scene as Scene
from jhand.render.meshes import interpolate as interpolate
from jhand.render.meshes import make_mesh as make_mesh
from jhand.render.meshes import make_scene as make_scene
from jhand.render.meshes import render as render
from jhand.render.meshes import segmentation as segmentation
from jhand.render.outline import soft_mask as soft_mask
