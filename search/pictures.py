"""Where the frames' pictures come from: the embedded mode's folder, or Kafka by reference."""

from __future__ import annotations

from ocrstream.messages import Frame, FrameInfo
from ocrstream.storage.frames import FrameStore
from ocrstream.transport import Transport


class StoredPictures:
    """Pictures kept on disk."""

    def __init__(self, frames: FrameStore) -> None:
        self._frames = frames

    def get(self, info: FrameInfo) -> bytes | None:
        """A frame's encoded picture, or None when it is no longer kept.

        Raises:
            StoreError: it is there and cannot be read.
        """
        return self._frames.get(info.frame_id, info.captured_at_ns)


class KafkaPictures:
    """Pictures fetched from the topic that keeps them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, info: FrameInfo) -> bytes | None:
        """A frame's encoded picture, or None when the topic no longer keeps it.

        Raises:
            TransportError: the broker is away.
        """
        delivery = None if info.picture is None else self._transport.fetch(info.picture)
        frame = None if delivery is None else delivery.open()
        # After a topic was made anew its offsets begin again: another frame may lie there now.
        if not isinstance(frame, Frame) or frame.info.frame_id != info.frame_id:
            return None
        return frame.picture.encoded()


class NoPictures:
    """A page without pictures, where no broker is named."""

    def get(self, info: FrameInfo) -> bytes | None:  # noqa: ARG002 the protocol's form
        """Always None."""
        return None
