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


def read_lines(path: Path) -> list[str]:
    """The lines of a text.

    Raises:
        ClipError: a file that is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ClipError(f"{path}: expected this file of the dataset: {error.strerror}") from error
    except ValueError as error:
        raise ClipError(f"{path}: not a text ({error}); is the download complete?") from error


def read_numbers(path: Path, each: int) -> np.ndarray:
    """Lines of numbers, apart by blanks: (lines, each) float64.

    Raises:
        ClipError: a file that is missing, empty, or has a line of another length or with what is no finite number.
    """
    lines = [line.split() for line in read_lines(path) if line.strip()]
    try:
        found = np.array(lines, np.float64)
    except ValueError as error:
        raise ClipError(f"{path}: expected lines of {each} numbers ({error}); is the download complete?") from error
    if found.ndim != 2 or found.shape[1] != each or not np.isfinite(found).all():
        raise ClipError(
            f"{path}: expected lines of {each} finite numbers, got {found.shape}; is the download complete?"
        )
    return found


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
