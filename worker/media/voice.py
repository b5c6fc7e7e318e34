"""Judges how likely sound is speech, window by window: Silero's detector, as faster-whisper ships it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

WINDOW = 512  #: samples judged at once: 32 ms at 16 kHz
_CONTEXT = 64  # samples before a window that the detector wants to see with it


class Detector:
    """The detector within one recording: it remembers what came before. Its model is shared by all threads."""

    def __init__(self) -> None:
        self._state = (np.zeros((1, 1, 128), np.float32),) * 2
        self._before = np.zeros(_CONTEXT, np.float32)

    def judge(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the probability of speech for each of consecutive windows; `windows`: count × `WINDOW`, mono at 16 kHz.

        One call for many windows, because each call hands over the interpreter twice.
        """
        before = np.vstack((self._before, windows[:-1, -_CONTEXT:]))
        self._before = windows[-1, -_CONTEXT:]
        given = {"input": np.hstack((before, windows)), "h": self._state[0], "c": self._state[1]}
        probabilities, *state = _model().run(None, given)
        self._state = (state[0], state[1])
        return np.asarray(probabilities, np.float32).reshape(len(windows))


@cache
def _model() -> onnxruntime.InferenceSession:
    package = find_spec("faster_whisper")  # found, not imported: that would load a whole speech engine
    assert package
    assert package.origin
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # recordings are what runs side by side
    options.log_severity_level = 3
    path = Path(package.origin).parent / "assets" / "silero_vad_v6.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
