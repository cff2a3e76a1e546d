"""Recordings of hands and the readers of their formats."""

from jhand.data.body_files import BodyFileError as BodyFileError
from jhand.data.body_files import BodyHands as BodyHands
from jhand.data.body_files import read_body_hands as read_body_hands
from jhand.data.body_files import write_body_hands as write_body_hands
from jhand.data.recording import Recording as Recording
from jhand.data.recording import RecordingError as RecordingError
from jhand.data.recording import read_recording as read_recording
from jhand.data.recording import write_recording as write_recording
