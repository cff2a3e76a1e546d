"""Hands from measurements: keypoints, markers and landmarks in 3D and 2D, one hand at a time or as a motion."""
