"""Hands from measurements: keypoints, markers and landmarks in 3D and 2D, one hand at a time or as a motion."""

from jhand.fitting.calibrate import attach_markers as attach_markers
from jhand.fitting.calibrate import fit_landmarks as fit_landmarks
from jhand.fitting.lm import Solution as Solution
from jhand.fitting.lm import levenberg_marquardt as levenberg_marquardt
from jhand.fitting.measurements import FitSettings as FitSettings
from jhand.fitting.solver import Fit as Fit
from jhand.fitting.solver import fit as fit
from jhand.fitting.solver import fit_sequence as fit_sequence
