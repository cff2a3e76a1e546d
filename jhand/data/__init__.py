"""Clips of hands: their schema, the synthetic world, readers of published datasets, recordings, augmentation."""

from jhand.data.augmentation import Augmentation as Augmentation
from jhand.data.augmentation import augment as augment
from jhand.data.augmentation import crop_to_hand as crop_to_hand
from jhand.data.augmentation import flip as flip
from jhand.data.augmentation import similarity as similarity
from jhand.data.augmentation import warp as warp
from jhand.data.body_files import BodyFileError as BodyFileError
from jhand.data.body_files import BodyHands as BodyHands
from jhand.data.body_files import read_body_hands as read_body_hands
from jhand.data.body_files import write_body_hands as write_body_hands
from jhand.data.clip import ENTRIES as ENTRIES
from jhand.data.clip import ClipError as ClipError
from jhand.data.clip import check_clip as check_clip
from jhand.data.clip import select as select
from jhand.data.readers.freihand import FreiHAND as FreiHAND
from jhand.data.readers.interhand import InterHand as InterHand
from jhand.data.recording import Recording as Recording
from jhand.data.recording import RecordingError as RecordingError
from jhand.data.recording import read_recording as read_recording
from jhand.data.recording import write_recording as write_recording
from jhand.data.records import ClipRecords as ClipRecords
from jhand.data.records import write_clips as write_clips
