"""Inputs that cannot be worked on: another file, or another question, is needed."""

from __future__ import annotations

from phi4.errors.base import Phi4Error


class InputError(Phi4Error):
    """The input cannot be worked on."""

    code = "invalid_input"
    category = "input"


class EmptyInput(InputError):
    """The input file is empty."""

    code = "empty_input"


class UnreadableImage(InputError):
    """The image cannot be read: it is damaged, cut short, or not an image."""

    code = "unreadable_image"


class ImageTooLarge(InputError):
    """The image has more pixels than this service accepts; scale it down."""

    code = "image_too_large"


class ImageTooSmall(InputError):
    """The image is too small to hold anything readable."""

    code = "image_too_small"


class UnreadablePdf(InputError):
    """The PDF cannot be read: it is damaged, cut short, or not a PDF."""

    code = "unreadable_pdf"


class EncryptedPdf(InputError):
    """The PDF is protected with a password; remove the protection and send it again."""

    code = "encrypted_pdf"


class PageOutOfRange(InputError):
    """`params.pages` asks for a page the document does not have."""

    code = "page_out_of_range"


class TooManyPages(InputError):
    """The document has more pages than this service accepts; choose some with `params.pages`."""

    code = "too_many_pages"


class UnreadableAudio(InputError):
    """The recording cannot be read: it is damaged, cut short, or not audio."""

    code = "unreadable_audio"


class AudioTooShort(InputError):
    """The recording is shorter than a tenth of a second."""

    code = "audio_too_short"


class AudioTooLong(InputError):
    """The recording is longer than this service accepts; cut it into several jobs."""

    code = "audio_too_long"


class NothingHeard(InputError):
    """Nobody speaks in the recording."""

    code = "nothing_heard"


class PromptTooLong(InputError):
    """The question and its media are longer than the model's context."""

    code = "prompt_too_long"


class TooManyImages(InputError):
    """The question is asked over more images than the engine takes at once."""

    code = "too_many_images"


class UrlForbidden(InputError):
    """The URL does not lead to a public address."""

    code = "url_forbidden"


class FetchFailed(InputError):
    """The input could not be fetched from its URL."""

    code = "fetch_failed"
