"""Fitting a detector, asking it, and keeping it: used where one is trained and where one judges.

with open_album(images, size_px) as album:              decoded once, bounded in memory
    parts = PROTOCOLS["grouped"].split(album.images, seed=0)
    fitted = fit(choice, album, parts, FitSettings(), device=device)
    judged = judge(fitted.logits(album, parts.judge), album, parts.judge)
"""

from fruitgan.training.detection.album import Album, open_album
from fruitgan.training.detection.answers import predict
from fruitgan.training.detection.card import DetectorBundle, DetectorCard, load_detector, save_detector
from fruitgan.training.detection.fitting import FitSettings, FittedDetector, fit, fitting_augmentation
from fruitgan.training.detection.keeping import CheckpointKeeper, NothingToJudge
from fruitgan.training.detection.rounds import OnRound, Round
from fruitgan.training.detection.splits import PROTOCOLS, Parts, Protocol, grouped_parts, seed_parts
from fruitgan.training.detection.verdict import Confusion, Verdict, judge

__all__ = [
    "PROTOCOLS",
    "Album",
    "CheckpointKeeper",
    "Confusion",
    "DetectorBundle",
    "DetectorCard",
    "FitSettings",
    "FittedDetector",
    "NothingToJudge",
    "OnRound",
    "Parts",
    "Protocol",
    "Round",
    "Verdict",
    "fit",
    "fitting_augmentation",
    "grouped_parts",
    "judge",
    "load_detector",
    "open_album",
    "predict",
    "save_detector",
    "seed_parts",
]
