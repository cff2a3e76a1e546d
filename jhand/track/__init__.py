"""Photo or video in, hands out: MediaPipe's palm detector and hand landmark networks, run in JAX.

`detect_hands` for photos, `start_tracker` and `track_hands` for video; beneath them, `detect`, `crop` and `landmarks`.
"""

from jhand.track.detection import Detections as Detections
from jhand.track.detection import detect as detect
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
