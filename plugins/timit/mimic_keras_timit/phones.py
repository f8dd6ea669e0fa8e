"""The 61 phones of TIMIT's transcripts, with three states each, and the 39 classes used for scoring."""

from __future__ import annotations

import numpy as np

PHONES = tuple(
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl "
    "l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh".split()
)
STATES = 3
NUM_STATES = STATES * len(PHONES)
STATE_NAMES = tuple(f"{phone}/{state}" for phone in PHONES for state in range(STATES))

# Lee & Hon 1989, "Speaker-independent phone recognition using hidden Markov models", Table 2: the phones of one class
# count as the same, and the glottal stop q is removed from both transcripts.
_SAME = {
    "aa": ("ao",),
    "ah": ("ax", "ax-h"),
    "er": ("axr",),
    "hh": ("hv",),
    "ih": ("ix",),
    "l": ("el",),
    "m": ("em",),
    "n": ("en", "nx"),
    "ng": ("eng",),
    "sh": ("zh",),
    "sil": ("h#", "pau", "epi", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"),
    "uw": ("ux",),
}
DELETED = "q"
_CLASS_OF = {phone: name for name, phones in _SAME.items() for phone in phones}
CLASSES = tuple(sorted({_CLASS_OF.get(phone, phone) for phone in PHONES} - {DELETED}))

# The class of each phone, [61]; -1 for the deleted one.
FOLDED = np.array([-1 if phone == DELETED else CLASSES.index(_CLASS_OF.get(phone, phone)) for phone in PHONES])


def fold(phones: np.ndarray) -> np.ndarray:
    """Phones (int [N], indices into `PHONES`) to classes (int [M], indices into `CLASSES`), M <= N.

    Example:
        >>> [CLASSES[c] for c in fold(np.array([PHONES.index(p) for p in ("h#", "q", "ix", "tcl", "t")]))]
        ['sil', 'ih', 'sil', 't']
    """
    classes = FOLDED[np.asarray(phones, np.int64)]
    return classes[classes >= 0]
