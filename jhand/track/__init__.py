"""Photo or video in, hands out: MediaPipe's palm detector and hand landmark networks, run in JAX.

`detect_hands` for photos, `start_tracker` and `track_hands` for video; beneath them, `detect`, `crop` and `landmarks`.
`hands_over_time` and `fit_tracked` find the hand behind the landmarks; `track_photo` and `track_video` look through
files.
"""

from jhand.track.detection import Detections as Detections
from jhand.track.detection import detect as detect
from jhand.track.fitted import TrackedHand as TrackedHand
from jhand.track.fitted import bone_vectors as bone_vectors
from jhand.track.fitted import fit_tracked as fit_tracked
from jhand.track.fitted import guess_camera as guess_camera
from jhand.track.fitted import hands_by_frame as hands_by_frame
from jhand.track.fitted import hands_of_one_person as hands_of_one_person
from jhand.track.fitted import hands_over_time as hands_over_time
from jhand.track.fitted import learn_landmarks as learn_landmarks
from jhand.track.fitted import place_points as place_points
from jhand.track.footage import Footage as Footage
from jhand.track.footage import files_in as files_in
from jhand.track.footage import is_picture as is_picture
from jhand.track.footage import track_frames as track_frames
from jhand.track.footage import track_photo as track_photo
from jhand.track.footage import track_video as track_video
from jhand.track.hands import Hands as Hands
from jhand.track.hands import hands_in_image as hands_in_image
from jhand.track.hands import hands_in_regions as hands_in_regions
from jhand.track.hands import landmarks as landmarks
from jhand.track.networks import Networks as Networks
from jhand.track.networks import load_networks as load_networks
from jhand.track.regions import Region as Region
from jhand.track.regions import crop as crop
from jhand.track.regions import overlap as overlap
from jhand.track.regions import points_in_image as points_in_image
from jhand.track.regions import region_from_keypoints as region_from_keypoints
from jhand.track.regions import region_from_palm as region_from_palm
from jhand.track.regions import whole_picture as whole_picture
from jhand.track.tracker import Tracker as Tracker
from jhand.track.tracker import detect_hands as detect_hands
from jhand.track.tracker import start_tracker as start_tracker
from jhand.track.tracker import track_hands as track_hands
