"""Optimisers, their schedules, and which parameters they treat how."""

from train.optim.chain import optimiser, shown
from train.optim.groups import check_groups, groups_of, table
from train.optim.schedules import schedule

__all__ = ["check_groups", "groups_of", "optimiser", "schedule", "shown", "table"]
