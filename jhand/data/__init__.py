"""Recordings of hands and the readers of their formats."""

from jhand.data.recording import Recording as Recording
from jhand.data.recording import RecordingError as RecordingError
from jhand.data.recording import read_recording as read_recording
from jhand.data.recording import write_recording as write_recording
