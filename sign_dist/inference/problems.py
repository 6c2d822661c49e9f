"""What can go wrong between a client and the service: codes, their HTTP status, and their form on the wire (RFC 9457)."""

from http import HTTPStatus

from pydantic import BaseModel, Field

from sign_dist.errors import SignDistError

RETRY_AFTER_S = 2

# code -> (status, title). A video's own reason codes that are not listed are 422.
PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_multipart": (400, "The request body cannot be read"),
    "disconnected": (400, "The client went away"),
    "not_found": (404, "There is nothing at this address"),
    "method_not_allowed": (405, "This address does not take this method"),
    "slow_upload": (408, "The upload took too long"),
    "too_many_bytes": (413, "The video file is too large"),
    "not_multipart": (415, "The request is no form upload"),
    "not_video": (415, "The file is no video"),
    "no_pictures": (415, "The file has no pictures"),
    "not_a_track": (415, "The file is no landmark track"),
    "no_detector": (415, "The model reads landmark tracks alone"),
    "playlist": (415, "The file only names other files"),
    "no_video_stream": (415, "The file holds no pictures"),
    "unsupported_codec": (415, "The video is coded in an unknown way"),
    "encrypted": (415, "The video is encrypted"),
    "no_video_field": (422, "The form has no video"),
    "two_videos": (422, "The form has more than one video"),
    "invalid_query": (422, "A parameter is not allowed"),
    "empty": (422, "The video file is empty"),
    "too_long": (422, "The video is too long"),
    "too_short": (422, "The video is too short"),
    "too_small": (422, "The picture is too small"),
    "too_large": (422, "The picture is too large"),
    "too_many_pixels": (422, "The picture is too large"),
    "decode_failed": (422, "The video cannot be decoded"),
    "truncated": (422, "The video breaks off"),
    "mixed_sizes": (422, "The picture size changes in the video"),
    "blank": (422, "The video shows nothing"),
    "frozen": (422, "The video shows a still"),
    "not_finite": (422, "The landmark track holds no numbers"),
    "out_of_memory": (422, "The video takes too much memory"),
    "no_signer": (422, "No person is found in the video"),
    "too_many_requests": (429, "Too many requests"),
    "internal": (500, "The server failed"),
    "busy": (503, "The server is busy"),
    "not_ready": (503, "The model is still loading"),
    "unavailable": (503, "The recognizer is not available"),
    "timed_out": (504, "The answer took too long"),
}
UNUSABLE = (422, "The video cannot be used")


class ApiError(SignDistError):
    """A refusal by the interface itself; `code` is one of PROBLEMS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    type: str = Field(description="Names the kind of problem", examples=["urn:problem-type:sign-dist:too_long"])
    title: str = Field(description="The kind of problem in words", examples=["The video is too long"])
    status: int = Field(description="The HTTP status", examples=[422])
    detail: str = Field(
        description="What is wrong with this request, what is allowed, and the remedy",
        examples=["the video says it is 95.0 s long; at most 30 s are allowed: cut it"],
    )
    code: str = Field(description="Stable name of the kind, for programs", examples=["too_long"])
    request_id: str = Field(description="As in the `x-request-id` header; quote it when you report a fault")

    @classmethod
    def of(cls, code: str, detail: str, *, request_id: str, status: int = 0) -> "Problem":
        """A problem of a known code, or of a status for which HTTP's own phrase must do."""
        known, title = PROBLEMS.get(code, (status, HTTPStatus(status).phrase) if status else UNUSABLE)
        kind = f"urn:problem-type:sign-dist:{code}"
        return cls(type=kind, title=title, status=known, detail=detail, code=code, request_id=request_id)
