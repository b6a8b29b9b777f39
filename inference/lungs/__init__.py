"""Lungs, trachea and main bronchi on chest CT by published methods without weights.

Arrays only: axes (slice towards the head, row towards the back, column towards the left), HU.
The lungs are found on a grid of about 2 mm and refined on the full one; nothing is random.

    Hu, Hoffman, Reinhardt. IEEE Trans Med Imaging 2001;20:490-498: threshold, airways, two lungs.
    Mori et al. ICPR 1996 (C): 528-532: airway growth that stops before it explodes into the lung.
    Sun, Bauer, Beichel. IEEE Trans Med Imaging 2012;31:449-460: what a threshold misses.
"""
