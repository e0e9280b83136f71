"""What a run shows of itself: how fast it goes, where the time goes, its loss as a curve, its samples as a film, and a
card.
"""
