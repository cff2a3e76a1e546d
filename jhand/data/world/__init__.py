"""The synthetic world: clips with everything known, as pure functions of a key."""

from jhand.data.world.assets import Assets as Assets
from jhand.data.world.assets import load_assets as load_assets
from jhand.data.world.backgrounds import load_backgrounds as load_backgrounds
from jhand.data.world.clips import SEGMENTS as SEGMENTS
from jhand.data.world.clips import WorldConfig as WorldConfig
from jhand.data.world.clips import WorldScene as WorldScene
from jhand.data.world.clips import annotate as annotate
from jhand.data.world.clips import make_clip as make_clip
from jhand.data.world.clips import make_clips as make_clips
from jhand.data.world.clips import sample_scene as sample_scene
from jhand.data.world.datasets import WORLDS as WORLDS
from jhand.data.world.datasets import cached_world as cached_world
from jhand.data.world.datasets import egocentric as egocentric
from jhand.data.world.datasets import grasps as grasps
from jhand.data.world.datasets import single_hand as single_hand
from jhand.data.world.datasets import two_hands as two_hands
from jhand.data.world.datasets import world_clips as world_clips
from jhand.data.world.scripts import Actors as Actors
