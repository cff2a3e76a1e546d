"""Files of strangers: JSON and pictures, with errors that say which file and what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from jhand.data.clip import ClipError


def read_json(path: Path, encoding: str = "utf-8") -> Any:
    """What a JSON file holds; `utf-8-sig` takes files that begin with a byte order mark, too.

    Raises:
        ClipError: a file that is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding=encoding))
    except OSError as error:
        raise ClipError(f"{path}: expected this file of the dataset: {error.strerror}") from error
    except ValueError as error:
        raise ClipError(f"{path}: not JSON ({error}); is the download complete?") from error


def read_picture(path: Path) -> np.ndarray:
    """A picture as (H, W, 3) uint8.

    Raises:
        ClipError: a file that is missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ClipError(f"{path}: not a picture that can be read ({error}); is the download complete?") from error
    except OSError as error:
        if not path.is_file():
            raise ClipError(f"{path}: expected this picture of the dataset; it is not there") from error
        raise ClipError(f"{path}: not a whole picture ({error}); is the download complete?") from error
