"""One gloss per clip from body, hand and face points."""

import torch
from torch import Tensor, nn

from sign_dist.models.temporal import AttentionPool, TemporalTrunk, valid_steps
from sign_dist.video.landmarks import (
    FACE,
    HAND_MIDDLE_BASE,
    HAND_TIPS,
    HAND_WRIST,
    LEFT_HAND,
    LEFT_WRIST,
    MIRROR,
    NUM_LANDMARKS,
    POSE,
    POSE_POINTS,
    RIGHT_HAND,
    RIGHT_WRIST,
)

_NAMES = list(POSE_POINTS)
_BODY = [_NAMES.index(n) for n in ("nose", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")]
_SHOULDERS = ("left_shoulder", "right_shoulder")
_ANCHORS = [
    _NAMES.index(n) for n in ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "mouth_left", "mouth_right", *_SHOULDERS)
]
_KNUCKLES = (2, 5, 9, 13, 17)  # the joint each fingertip bends towards
_BONE_ENDS = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12),
              (0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20))  # fmt: skip
REST_MARGIN = 1
"""Frames kept beside the first and the last with a hand."""
_TOUCHING = (4, 8, 12)  # thumb, index and middle tips: what touches the face and the other hand


class LandmarkInputs(nn.Module):
    """Normalised points (B, T, K, 4) -> vectors (B, T, D): where the hands are, how they are shaped, how they move."""

    def __init__(self, num_landmarks: int, *, use_face: bool = False, use_depth: bool = False) -> None:
        super().__init__()
        self.use_face = use_face and num_landmarks == NUM_LANDMARKS
        self.use_depth = use_depth
        with torch.no_grad():
            probe = self(torch.zeros(1, 3, num_landmarks, 4), torch.tensor([3]))
        self.num_outputs = probe.shape[-1]

    def forward(self, points: Tensor, lengths: Tensor) -> Tensor:
        valid = valid_steps(lengths, points.shape[1])[..., None]
        pose = points[:, :, POSE]
        parts = [_flat(pose[:, :, _BODY, :2])]
        wrists, tips, seen = [], [], []
        moving: list[Tensor] = []
        for hand, pose_wrist in ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST)):
            xyz, found = points[:, :, hand, :3], points[:, :, hand, 3].amax(-1, keepdim=True)
            is_found = (found > 0).to(points.dtype)
            # Where the hand itself was not found, the pose still says where the wrist is.
            wrist = torch.where(found > 0, xyz[:, :, HAND_WRIST, :2], pose[:, :, pose_wrist, :2])
            shape, angles = self._hand_shape(xyz)
            parts += [wrist, found, shape * is_found, angles * is_found]
            moving += [wrist, shape * is_found * 0.5]
            wrists.append(wrist)
            tips.append(xyz[:, :, list(_TOUCHING), :2])
            seen.append(is_found)
            anchors = pose[:, :, _ANCHORS, :2]
            gaps = torch.cdist(tips[-1].flatten(0, 1), anchors.flatten(0, 1)).unflatten(0, points.shape[:2])
            parts.append(_closeness(gaps).flatten(2) * is_found)
        both = seen[0] * seen[1]
        gaps = torch.cdist(tips[0].flatten(0, 1), tips[1].flatten(0, 1)).unflatten(0, points.shape[:2])
        parts += [wrists[0] - wrists[1], _closeness(gaps).flatten(2) * both]
        if self.use_face:
            face = points[:, :, FACE]
            centre = face[..., :2].mean(2, keepdim=True)
            parts.append(_flat((face[..., :2] - centre) * 4.0 * (face[..., 3:] > 0)))
        still = torch.cat(moving, dim=-1)
        parts.append(_velocity(still) * 3.0)
        return torch.cat(parts, dim=-1) * valid

    def _hand_shape(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Points around the wrist in palm lengths, flat; and measures that no turn or size of the hand changes."""
        around = xyz - xyz[:, :, HAND_WRIST : HAND_WRIST + 1]
        palm = around[:, :, [HAND_MIDDLE_BASE, 5, 17], :2].norm(dim=-1).amax(-1).clamp(min=0.05)[..., None, None]
        around = around / palm
        kept = around if self.use_depth else around[..., :2]
        ends = torch.tensor(_BONE_ENDS, device=xyz.device)
        bones = nn.functional.normalize(around[:, :, ends[:, 1]] - around[:, :, ends[:, 0]], dim=-1, eps=1e-4)
        joints = [i for i in range(20) if i % 4 != 3]  # each bone with the next one of its finger
        bends = (bones[:, :, joints] * bones[:, :, [i + 1 for i in joints]]).sum(-1)
        reach = around[:, :, list(HAND_TIPS), :2].norm(dim=-1)
        pinch = (around[:, :, [8, 12, 16, 20], :2] - around[:, :, [4], :2]).norm(dim=-1)
        spread = (around[:, :, [12, 16, 20], :2] - around[:, :, [8, 12, 16], :2]).norm(dim=-1)
        stretch = (around[:, :, list(HAND_TIPS), :2] - around[:, :, list(_KNUCKLES), :2]).norm(dim=-1)
        return kept.flatten(2), torch.cat([bends, reach, pinch, spread, stretch], dim=-1)


def _flat(points: Tensor) -> Tensor:
    return points.flatten(2)


def _closeness(distance: Tensor) -> Tensor:
    """1 where two points touch, towards 0 beyond half a shoulder width."""
    return torch.exp(-2.0 * distance)


def _velocity(x: Tensor) -> Tensor:
    """Change since the step before; 0 at the first."""
    return torch.cat([torch.zeros_like(x[:, :1]), (x[:, 1:] - x[:, :-1]).clamp(-0.5, 0.5)], dim=1)


def mirror_points(points: Tensor) -> Tensor:
    """Left and right exchanged, as `video.transform.mirror` does, for tensors (..., K, 4)."""
    sign = points.new_tensor([-1.0, 1.0, 1.0, 1.0])
    num = points.shape[-2]
    return points[..., [i for i in MIRROR if i < num], :] * sign


def every_nth(points: Tensor, lengths: Tensor, step: int, phase: int) -> tuple[Tensor, Tensor]:
    """Frames `phase`, `phase + step`, ... of each clip (B, T, ...), and how many those are; at least one."""
    if step == 1:
        return points, lengths
    phase = min(phase, points.shape[1] - 1)
    kept = torch.div(lengths - phase + step - 1, step, rounding_mode="floor")
    if phase == 0 or bool((kept > 0).all()):
        return points[:, phase::step], kept
    # A clip shorter than the phase gives its first frame.
    first = torch.where((kept > 0)[:, None], points[:, phase].flatten(1), points[:, 0].flatten(1)).view_as(points[:, 0])
    return torch.cat([first[:, None], points[:, phase + step :: step]], dim=1), kept.clamp(min=1)


def cut_rest(points: Tensor, lengths: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """Clips (B, T, K, 4) without the frames before the first and after the last in which a hand was found, but for `margin`.

    A clip in which no hand was found stays whole. What stands behind a clip's new length is not to be read.
    """
    steps = torch.arange(points.shape[1], device=points.device)
    seen = (points[:, :, LEFT_HAND.start : RIGHT_HAND.stop, 3] > 0).any(-1) & valid_steps(lengths, points.shape[1])
    none = ~seen.any(1)
    first = torch.where(seen, steps, points.shape[1]).amin(1).masked_fill(none, 0)
    last = torch.where(seen, steps, -1).amax(1)
    first = (first - margin).clamp(min=0)
    end = torch.where(none, lengths, torch.minimum(last + 1 + margin, lengths))
    kept = (first[:, None] + steps).clamp(max=points.shape[1] - 1)
    cut = points[torch.arange(len(points), device=points.device)[:, None], kept]
    return cut[:, : int((end - first).amax())], end - first


class LandmarkClassifier(nn.Module):
    """features (B, T, K, 4) normalised points and lengths (B,) -> logits (B, V).

    Of every `frame_step` frames one is read: in training a random one, in evaluation each in turn, and the logits are
    averaged. Steps of about 1/15 s suit the kernels.
    With `cut_rest`, frames before the hands come and after they are gone are not read: some films begin and end with the signer
    at rest, others are cut to the sign.
    With `mirror_views`, the logits in evaluation are the mean over the clip and its mirror image, so that left- and
    right-handed signers are read alike; train with mirrored copies then.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_landmarks: int = NUM_LANDMARKS,
        channels: int = 4,
        width: int = 128,
        depth: int = 3,
        kernel: int = 5,
        stride: int = 2,
        num_attention: int = 1,
        num_heads: int = 4,
        dropout: float = 0.3,
        input_dropout: float = 0.2,
        use_face: bool = False,
        use_depth: bool = False,
        mirror_views: bool = True,
        cut_rest: bool = True,
        frame_step: int = 1,
    ) -> None:
        super().__init__()
        if channels != 4 or num_landmarks not in (NUM_LANDMARKS, FACE.start):
            allowed = f"4 channels and {NUM_LANDMARKS} or {FACE.start} landmarks"
            raise ValueError(f"need {allowed}: {channels=} {num_landmarks=}")
        self.num_landmarks = num_landmarks
        self.mirror_views = mirror_views
        self.cut_rest = cut_rest
        self.frame_step = frame_step
        self.inputs = LandmarkInputs(num_landmarks, use_face=use_face, use_depth=use_depth)
        self.trunk = TemporalTrunk(
            self.inputs.num_outputs,
            width=width,
            depth=depth,
            kernel=kernel,
            stride=stride,
            num_attention=num_attention,
            num_heads=num_heads,
            dropout=dropout,
            input_dropout=input_dropout,
        )
        self.pool = AttentionPool(width)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        if features.ndim != 4 or features.shape[2:] != (self.num_landmarks, 4):
            raise ValueError(f"need features (B, T, {self.num_landmarks}, 4): {tuple(features.shape)}")
        if self.cut_rest:
            features, lengths = cut_rest(features, lengths, REST_MARGIN)
        if self.training:
            phase = int(torch.randint(self.frame_step, ()))
            return self._logits(*every_nth(features, lengths, self.frame_step, phase))
        views = [every_nth(features, lengths, self.frame_step, phase) for phase in range(self.frame_step)]
        if self.mirror_views:
            views += [(mirror_points(points), length) for points, length in views]
        return torch.stack([self._logits(points, length) for points, length in views]).mean(0)

    def _logits(self, points: Tensor, lengths: Tensor) -> Tensor:
        x, lengths = self.trunk(self.inputs(points, lengths), lengths)
        return self.head(self.pool(x, valid_steps(lengths, x.shape[1])))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down to the input: what progressive unfreezing trains first to last."""
        return [("head", [self.head, self.pool]), *self.trunk.layer_groups()]
